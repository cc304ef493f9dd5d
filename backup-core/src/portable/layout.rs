//! What the manifest says of the archive itself: compression, and where the shards are.

use super::{Compression, index::Place};
use crate::{Error, Result, Sha};
use serde::{Deserialize, Serialize};

/// A member of the archive's own, with its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OwnMember {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) sha256: Sha,
}

/// Where everything that is not an entry is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) compression: Compression,
    /// metadata.json, RESTORE.md, shards of index and sums, in the order of the tar.
    pub(super) own: Vec<OwnMember>,
    /// Where the header of manifest.json begins.
    pub(super) end: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LayoutV1 {
    compression: Compression,
    end: u64,
    /// name, header, length of header, length, sha256
    own: Vec<(String, u64, u64, u64, String)>,
}

impl Layout {
    pub(super) fn to_json(&self) -> serde_json::Value {
        let own = self
            .own
            .iter()
            .map(|m| {
                let p = m.place;
                (m.name.clone(), p.header, p.data - p.header, p.length, hex::encode(m.sha256))
            })
            .collect();
        // Plain data: it cannot fail, and a null is refused by every reader.
        serde_json::to_value(LayoutV1 { compression: self.compression, end: self.end, own })
            .unwrap_or_default()
    }

    pub(super) fn from_json(value: &serde_json::Value) -> Result<Self> {
        let bad = |text: String| Error::damaged("read the manifest", text);
        let wire = LayoutV1::deserialize(value).map_err(|e| bad(format!("its layout: {e}")))?;
        let mut own = Vec::with_capacity(wire.own.len());
        for (name, header, skip, length, sha) in wire.own {
            let sha256 = hex::decode(&sha).ok().and_then(|h| h.try_into().ok());
            let data = header.checked_add(skip);
            let (Some(sha256), Some(data)) = (sha256, data) else {
                return Err(bad(format!("its layout: {name} is impossible")));
            };
            let place = Place { header, data, length };
            if skip == 0 || place.end() > wire.end {
                return Err(bad(format!("its layout: {name} is outside of the archive")));
            }
            own.push(OwnMember { name, place, sha256 });
        }
        check_names(&own)
            .map_err(|name| bad(format!("its layout: {name} is no member of the archive's own")))?;
        Ok(Layout { compression: wire.compression, own, end: wire.end })
    }

    /// The shards of the index, in their order.
    pub(super) fn index_shards(&self) -> impl Iterator<Item = &OwnMember> {
        self.own.iter().filter(|m| m.name.starts_with("index/"))
    }
}

/// The two texts, then shards numbered without a gap: nothing else can hide among them. The first wrong name.
fn check_names(own: &[OwnMember]) -> std::result::Result<(), &str> {
    let (mut index, mut sums) = (0, 0);
    for (i, member) in own.iter().enumerate() {
        let expected = match (i, &*member.name) {
            (0, _) => "metadata.json".to_owned(),
            (1, _) => "RESTORE.md".to_owned(),
            (_, name) if name.starts_with("index/") => {
                index += 1;
                format!("index/{:06}.jsonl", index - 1)
            }
            _ => {
                sums += 1;
                format!("SHA256SUMS/{:06}", sums - 1)
            }
        };
        if member.name != expected {
            return Err(&member.name);
        }
    }
    Ok(())
}
