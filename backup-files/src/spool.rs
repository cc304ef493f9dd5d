//! Entries that come last, kept on disk until then: hard links and directories.

use backup_core::{Entry, Kind, Posix, Stage};
use bytes::Bytes;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use tempfile::SpooledTempFile;

/// Up to this size a spool stays in memory.
const IN_MEMORY: usize = 256 * 1024;

/// Entries without content, in order. Paths, links and attributes are kept; sizes, fingerprints and extents are not.
pub(crate) struct Spool {
    file: SpooledTempFile,
    pending: Vec<u8>,
    count: u64,
}

impl Default for Spool {
    fn default() -> Self {
        Spool { file: SpooledTempFile::new(IN_MEMORY), pending: Vec::new(), count: 0 }
    }
}

impl Spool {
    /// Adds an entry at the end.
    pub(crate) fn push(&mut self, entry: &Entry) -> io::Result<()> {
        encode(entry, &mut self.pending);
        self.count += 1;
        if self.pending.len() >= 64 * 1024 {
            self.flush()?;
        }
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.pending)?;
        self.pending.clear();
        Ok(())
    }

    /// All, from the first to the last, in the stage `Complete`.
    pub(crate) fn read(mut self) -> io::Result<impl Iterator<Item = io::Result<Entry>> + Send> {
        self.flush()?;
        self.file.seek(SeekFrom::Start(0))?;
        let mut reader = BufReader::new(self.file);
        Ok((0..self.count).map(move |_| decode(&mut reader)))
    }
}

/// Writes an entry as `decode` reads it.
pub(crate) fn encode(entry: &Entry, out: &mut Vec<u8>) {
    let bytes = |out: &mut Vec<u8>, b: &[u8]| {
        out.extend_from_slice(&u32::try_from(b.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(b);
    };
    bytes(out, &entry.path);
    out.push(KINDS.iter().position(|k| *k == entry.kind).unwrap_or(0) as u8);
    out.push(u8::from(entry.link.is_some()));
    bytes(out, entry.link.as_deref().unwrap_or_default());
    out.push(u8::from(entry.posix.is_some()));
    let Some(posix) = &entry.posix else { return };
    out.extend_from_slice(&posix.mode.to_le_bytes());
    out.extend_from_slice(&posix.uid.to_le_bytes());
    out.extend_from_slice(&posix.gid.to_le_bytes());
    out.extend_from_slice(&posix.mtime.0.to_le_bytes());
    out.extend_from_slice(&posix.mtime.1.to_le_bytes());
    let (major, minor) = posix.device.unwrap_or_default();
    out.push(u8::from(posix.device.is_some()));
    out.extend_from_slice(&major.to_le_bytes());
    out.extend_from_slice(&minor.to_le_bytes());
    out.extend_from_slice(&u32::try_from(posix.xattrs.len()).unwrap_or(u32::MAX).to_le_bytes());
    for (name, value) in &posix.xattrs {
        bytes(out, name);
        bytes(out, value);
    }
}

const KINDS: [Kind; 7] = [
    Kind::File,
    Kind::Directory,
    Kind::Symlink,
    Kind::HardLink,
    Kind::Fifo,
    Kind::CharDevice,
    Kind::BlockDevice,
];

/// Reads what `encode` wrote.
pub(crate) fn decode(from: &mut impl Read) -> io::Result<Entry> {
    let mut entry = Entry::file(read_bytes(from)?, Stage::Complete);
    let [kind] = array(from)?;
    entry.kind = *KINDS.get(usize::from(kind)).ok_or(io::ErrorKind::InvalidData)?;
    let [has_link] = array(from)?;
    let link = read_bytes(from)?;
    entry.link = (has_link == 1).then_some(link);
    let [has_posix] = array(from)?;
    if has_posix == 1 {
        let mut posix = Posix {
            mode: u32::from_le_bytes(array(from)?),
            uid: u64::from_le_bytes(array(from)?),
            gid: u64::from_le_bytes(array(from)?),
            mtime: (i64::from_le_bytes(array(from)?), u32::from_le_bytes(array(from)?)),
            ..Posix::default()
        };
        let [has_device] = array(from)?;
        let device = (u32::from_le_bytes(array(from)?), u32::from_le_bytes(array(from)?));
        posix.device = (has_device == 1).then_some(device);
        for _ in 0..u32::from_le_bytes(array(from)?) {
            let name = read_bytes(from)?;
            posix.xattrs.push((name, read_bytes(from)?));
        }
        entry.posix = Some(posix);
    }
    Ok(entry)
}

fn array<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut out = [0; N];
    from.read_exact(&mut out)?;
    Ok(out)
}

fn read_bytes(from: &mut impl Read) -> io::Result<Bytes> {
    let length = u64::from(u32::from_le_bytes(array(from)?));
    let mut out = Vec::new();
    if from.take(length).read_to_end(&mut out)? as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_as_they_were_in_order() {
        let mut spool = Spool::default();
        let entries: Vec<Entry> = (0..5000)
            .map(|i| {
                let mut e = Entry::file(format!("d/{i}\n"), Stage::Complete);
                e.kind = KINDS[i % KINDS.len()];
                e.link = (i % 2 == 0).then(|| Bytes::from_static(b"\xff"));
                e.posix = (i % 3 != 0).then(|| Posix {
                    mode: 0o4755,
                    uid: 1 << 40,
                    gid: 7,
                    mtime: (-5, 999_999_999),
                    xattrs: vec![("user.a".into(), vec![0, b'\n', 255].into())],
                    device: (i % 5 == 0).then_some((8, 1)),
                });
                e
            })
            .collect();
        for e in &entries {
            spool.push(e).unwrap();
        }
        let back: Vec<Entry> = spool.read().unwrap().map(Result::unwrap).collect();
        assert_eq!(back, entries);
    }
}
