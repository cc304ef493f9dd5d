//! Goes through the tar from member to member, past what cannot be read.

use crate::{
    Context, Result,
    portable::{check::alive, convoy::Seat, frames::Frames, index::Place},
    tar::{self, Member, TarFault},
};
use std::sync::Arc;

/// Headers up to this are read; a pax header is bounded by `tar::Limits`.
const LONGEST_HEADERS: u64 = 3 << 20;

/// What stands in the tar.
pub(super) enum Found {
    Member(Box<Member>, Place),
    /// Nothing is known of these bytes.
    Unreadable {
        from: u64,
        to: u64,
    },
}

/// A walk over a tar of which parts may be unreadable.
pub(super) struct Walk<'a> {
    frames: Arc<Frames>,
    at: u64,
    seat: Seat,
    /// Whether a name may stand in this archive: contents may look like members.
    is_ours: &'a (dyn Fn(&Member) -> bool + Sync),
}

impl<'a> Walk<'a> {
    pub(super) fn new(frames: Arc<Frames>, is_ours: &'a (dyn Fn(&Member) -> bool + Sync)) -> Self {
        Walk { frames, at: 0, seat: Seat::alone(), is_ours }
    }

    /// What comes next; `None` at the end of what there is.
    pub(super) async fn next(&mut self, cx: &Context) -> Result<Option<Found>> {
        alive(cx)?;
        if self.at >= self.frames.bytes {
            return Ok(None);
        }
        match self.member(self.at).await {
            Here::Member(member, place) if (self.is_ours)(&member) => {
                self.at = place.end();
                Ok(Some(Found::Member(member, place)))
            }
            // Zeros that come out of damage are no end.
            Here::End if !self.frames.met_damage(self.at, self.at + 2 * tar::BLOCK as u64) => Ok(None),
            here => {
                let from = self.at;
                let next = if matches!(here, Here::Unreadable) {
                    self.frames.after_frame(from)
                } else {
                    from + tar::BLOCK as u64
                };
                self.at = self.resume(next, cx).await?;
                Ok(Some(Found::Unreadable { from, to: self.at }))
            }
        }
    }

    /// Where the next member begins. One whose pax header may be missing is not taken.
    async fn resume(&self, from: u64, cx: &Context) -> Result<u64> {
        let block = tar::BLOCK as u64;
        let mut at = from.next_multiple_of(block);
        while at < self.frames.bytes {
            let Ok(first) = self.frames.small(at, block.min(self.frames.bytes - at), Some(&self.seat)).await
            else {
                alive(cx)?;
                at = self.frames.after_frame(at).next_multiple_of(block);
                continue;
            };
            let kind = first.get(156).copied().unwrap_or(0);
            let own = first.starts_with(b"index/") || first.starts_with(b"SHA256SUMS/");
            if first.get(257..262) == Some(b"ustar")
                && (kind == b'x' || own)
                && let Here::Member(member, _) = self.member(at).await
                && (self.is_ours)(&member)
            {
                return Ok(at);
            }
            at += block;
        }
        Ok(self.frames.bytes)
    }

    async fn member(&self, at: u64) -> Here {
        let rest = self.frames.bytes - at;
        let mut length = (4 * tar::BLOCK as u64).min(rest);
        loop {
            let Ok(bytes) = self.frames.small(at, length, Some(&self.seat)).await else {
                return Here::Unreadable;
            };
            match Member::decode(&bytes) {
                Ok(Some((member, headers))) => {
                    let data = at + headers as u64;
                    let place = Place { header: at, data, length: member.size };
                    return Here::Member(Box::new(member), place);
                }
                Ok(None) if length < rest.min(LONGEST_HEADERS) => length = (length * 8).min(rest),
                Err(e) if matches!(e.fault, TarFault::End) => return Here::End,
                _ => return Here::Nonsense,
            }
        }
    }
}

enum Here {
    Member(Box<Member>, Place),
    End,
    Unreadable,
    Nonsense,
}
