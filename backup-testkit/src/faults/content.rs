//! Contents that go wrong.

use super::panic_as_told;
use backup_core::{Content, Error, ErrorKind, Facts, Part, Result};
use bytes::Bytes;
use futures::stream;

/// How a content goes wrong. Positions are in bytes delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentFault {
    /// It stops after so many bytes, without an end: a socket was closed, a sender dropped.
    CutAfter(u64),
    /// The byte at this position has one bit changed.
    FlipAt(u64),
    /// Nothing comes any more after so many bytes, for ever.
    StallAfter(u64),
    /// An error after so many bytes.
    FailAfter(u64),
    /// Its producer panics after so many bytes.
    PanicAfter(u64),
    /// It says that it is whole after so many bytes.
    EndAfter(u64),
    /// So many more bytes than it has.
    LongerBy(u64),
}

impl ContentFault {
    /// The content with this fault in it. Wrap before anything holds the content to a length or digest.
    pub fn of(self, content: Content) -> Content {
        match self {
            ContentFault::PanicAfter(at) => Content::produce(move |feed| async move {
                let mut from = Faulty::new(content, self, at);
                while let Some(Part::Bytes(bytes)) = from.step().await? {
                    feed.send(bytes).await?;
                }
                panic_as_told("this producer")
            }),
            ContentFault::CutAfter(at)
            | ContentFault::FlipAt(at)
            | ContentFault::StallAfter(at)
            | ContentFault::FailAfter(at)
            | ContentFault::EndAfter(at)
            | ContentFault::LongerBy(at) => {
                let from = Faulty::new(content, self, at);
                Content::stream(stream::unfold(Some(from), |from| async {
                    let mut from = from?;
                    match from.step().await {
                        Ok(None) => None,
                        Ok(Some(part)) => Some((Ok(part), Some(from))),
                        Err(e) => Some((Err(e), None)),
                    }
                }))
            }
        }
    }
}

struct Faulty {
    content: Content,
    fault: ContentFault,
    at: u64,
    seen: u64,
    ended: bool,
}

impl Faulty {
    fn new(content: Content, fault: ContentFault, at: u64) -> Self {
        Faulty { content, fault, at, seen: 0, ended: false }
    }

    async fn step(&mut self) -> Result<Option<Part>> {
        let stops = !matches!(self.fault, ContentFault::FlipAt(_) | ContentFault::LongerBy(_));
        if self.ended {
            return Ok(None);
        }
        if stops && self.seen >= self.at {
            return self.stop().await;
        }
        let Some(mut bytes) = self.content.next().await? else {
            return match self.fault {
                // So that a fault behind the last byte happens too, instead of being forgotten.
                _ if stops => self.stop().await,
                ContentFault::LongerBy(more) if more > 0 => {
                    self.fault = ContentFault::LongerBy(0);
                    Ok(Some(Part::Bytes(Bytes::from(vec![
                        b'+';
                        usize::try_from(more).unwrap_or(usize::MAX)
                    ]))))
                }
                _ => {
                    self.ended = true;
                    Ok(Some(Part::End(self.content.facts().cloned().unwrap_or_default())))
                }
            };
        };
        if stops {
            bytes.truncate(usize::try_from(self.at - self.seen).unwrap_or(usize::MAX));
        } else if self.fault == ContentFault::FlipAt(self.at) {
            let within = self.at.checked_sub(self.seen).and_then(|i| usize::try_from(i).ok());
            if let Some(i) = within.filter(|i| *i < bytes.len()) {
                let mut changed = bytes.to_vec();
                changed[i] ^= 0x10;
                bytes = changed.into();
            }
        }
        self.seen += bytes.len() as u64;
        Ok(Some(Part::Bytes(bytes)))
    }

    async fn stop(&mut self) -> Result<Option<Part>> {
        match self.fault {
            ContentFault::StallAfter(_) => std::future::pending().await,
            ContentFault::FailAfter(_) => {
                Err(Error::new(ErrorKind::Source, "read the content", "it fails as it was told to"))
            }
            ContentFault::EndAfter(_) => {
                self.ended = true;
                Ok(Some(Part::End(Facts::new())))
            }
            _ => Ok(None),
        }
    }
}
