//! Decrypts ranges of what was written.

use super::{
    CHUNK, Identities, MAGIC, STORED_CHUNK, blocking,
    key::{KnownKey, Remember},
};
use crate::{Error, ErrorKind, Result, destination::Blob};
use age::{DecryptError, Decryptor, stream::StreamReader};
use async_trait::async_trait;
use bytes::Bytes;
use std::{
    io::{self, Cursor, Read, Seek, SeekFrom},
    sync::Arc,
};

/// Headers are this long at most: room for a thousand recipients.
const LARGEST_HEADER: u64 = 256 << 10;
/// The first read: headers for a few recipients come with it.
const USUAL_HEADER: u64 = 4 << 10;

/// Whether this is an encrypted file.
pub(crate) async fn is_encrypted(blob: &dyn Blob) -> Result<bool> {
    let length = blob.bytes().min(MAGIC.len() as u64);
    Ok(blob.read_at(0, length as usize).await? == MAGIC)
}

/// The content of an encrypted file, by ranges. Of the file only the chunks of 64 KiB are fetched that hold the range. Ranges are decrypted in
/// parallel, because the key of the file is known from its opening.
pub(crate) struct EncryptedBlob {
    inner: Arc<dyn Blob>,
    file: Arc<File>,
}

/// What is known of the file.
struct File {
    key: KnownKey,
    /// Its header and what else stands before the first chunk.
    head: Bytes,
    /// Bytes of all of it.
    stored: u64,
    /// Bytes of the content.
    content: u64,
    /// Where its last chunks begin, and they: the end is looked at first and proves that nothing was cut off.
    tail: (u64, Bytes),
}

impl EncryptedBlob {
    /// Finds the key of the file, and makes sure that its end is its end.
    pub(crate) async fn open(inner: Arc<dyn Blob>, identities: &Identities) -> Result<Self> {
        let mut file = Self::file(&inner, identities, inner.bytes()).await?;
        let file = blocking("decrypt", move || {
            let mut reader = file.reader((0, Bytes::new()))?;
            file.content =
                reader.seek(SeekFrom::End(0)).map_err(|_| damaged("its end is missing or was changed"))?;
            Ok(file)
        })
        .await?;
        Ok(EncryptedBlob { inner, file: Arc::new(file) })
    }

    /// The chunks that are whole of a file that has lost its end. Each proves itself and its place; that nothing came after them
    /// is proven by nothing.
    pub(crate) async fn open_cut(inner: Arc<dyn Blob>, identities: &Identities) -> Result<Self> {
        let mut file = Self::file(&inner, identities, inner.bytes()).await?;
        let whole = (file.stored - file.start()) / STORED_CHUNK;
        file.stored = file.start() + whole * STORED_CHUNK;
        file.content = whole * CHUNK;
        let in_tail = file.stored.saturating_sub(file.tail.0) as usize;
        file.tail.1.truncate(in_tail);
        Ok(EncryptedBlob { inner, file: Arc::new(file) })
    }

    /// Everything but the length of the content.
    async fn file(inner: &Arc<dyn Blob>, identities: &Identities, stored: u64) -> Result<File> {
        let mut head = inner.read_at(0, USUAL_HEADER.min(stored) as usize).await?;
        if !head.starts_with(MAGIC) {
            return Err(damaged("it is no age file of version 1"));
        }
        let mut opened = open_header(head.clone(), identities.clone()).await?;
        if opened.is_none() && stored > USUAL_HEADER {
            head = inner.read_at(0, LARGEST_HEADER.min(stored) as usize).await?;
            opened = open_header(head.clone(), identities.clone()).await?;
        }
        let Some((key, start)) = opened else { return Err(damaged("its header is cut, or is too long")) };
        head.truncate(start as usize);
        // The last two chunks: where a table of frames and the locator are.
        let chunks = (stored - start).div_ceil(STORED_CHUNK);
        let at = start + chunks.saturating_sub(2) * STORED_CHUNK;
        let tail = (at, inner.read_at(at, (stored - at) as usize).await?);
        Ok(File { key, head, stored, content: 0, tail })
    }
}

fn damaged(text: impl std::fmt::Display) -> Error {
    Error::damaged("decrypt", text)
}

/// The key of the file and where its first chunk begins; `None` if `head` ends before.
async fn open_header(head: Bytes, identities: Identities) -> Result<Option<(KnownKey, u64)>> {
    blocking("decrypt", move || {
        let mut cursor = Cursor::new(&head[..]);
        let decryptor = match Decryptor::new(&mut cursor) {
            Ok(decryptor) => decryptor,
            Err(DecryptError::Io(e)) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(e) => return Err(damaged(e)),
        };
        let by_passphrase = decryptor.is_scrypt();
        if identities.is_empty() {
            return Err(missing_identity(by_passphrase));
        }
        let all = identities.read()?;
        let all: Vec<_> = all.iter().map(|identity| Remember::new(&**identity)).collect();
        match decryptor.decrypt(all.iter().map(|identity| identity as &dyn age::Identity)) {
            Ok(_) => {}
            Err(
                DecryptError::NoMatchingKeys
                | DecryptError::KeyDecryptionFailed
                | DecryptError::DecryptionFailed,
            ) => {
                return Err(wrong_identity(by_passphrase));
            }
            Err(e @ DecryptError::ExcessiveWork { .. }) => {
                return Err(Error::new(ErrorKind::Unsupported, "decrypt", e));
            }
            Err(e) => return Err(damaged(e)),
        }
        let start = cursor.position();
        let key = all.into_iter().find_map(Remember::given);
        key.map(|key| Some((key, start))).ok_or_else(|| wrong_identity(by_passphrase))
    })
    .await
}

/// Whether an encrypted file opens with this passphrase, by its header alone; `None`: it has no passphrase, or that cannot be said.
pub(crate) async fn opens_with(blob: &dyn Blob, passphrase: Identities) -> Result<Option<bool>> {
    let head = blob.read_at(0, USUAL_HEADER.min(blob.bytes()) as usize).await?;
    blocking("decrypt", move || {
        let decryptor = match Decryptor::new(&head[..]) {
            Ok(decryptor) if decryptor.is_scrypt() => decryptor,
            _ => return Ok(None),
        };
        let all = passphrase.read()?;
        Ok(match decryptor.decrypt(all.iter().map(|identity| &**identity as &dyn age::Identity)) {
            Ok(_) => Some(true),
            Err(
                DecryptError::NoMatchingKeys
                | DecryptError::KeyDecryptionFailed
                | DecryptError::DecryptionFailed,
            ) => Some(false),
            Err(_) => None,
        })
    })
    .await
}

fn missing_identity(by_passphrase: bool) -> Error {
    let hint = match by_passphrase {
        true => "--passphrase-file FILE, or `encrypt = { passphrase_file = … }` of the archive",
        false => "--identity FILE with the secret key, or `identity` of the archive",
    };
    Error::new(ErrorKind::Usage, "decrypt the backup", "it is encrypted, and no identity is given").hint(hint)
}

fn wrong_identity(by_passphrase: bool) -> Error {
    let (text, hint) = match by_passphrase {
        true => (
            "it is encrypted with another passphrase",
            "--passphrase-file FILE with the passphrase of this backup",
        ),
        false => (
            "it is not encrypted to any of the identities given",
            "the recovery sheet of the archive, or whoever chose its recipients, has the secret key",
        ),
    };
    Error::new(ErrorKind::Usage, "decrypt the backup", text).hint(hint)
}

impl File {
    /// The content, of which only what `window` holds (from where in the file) can be read, and the end.
    fn reader(&self, window: (u64, Bytes)) -> Result<StreamReader<Window<'_>>> {
        let window = Window { file: self, window, at: 0 };
        let decryptor = Decryptor::new(window).map_err(damaged)?;
        decryptor.decrypt(std::iter::once(&self.key as &dyn age::Identity)).map_err(damaged)
    }

    fn start(&self) -> u64 {
        self.head.len() as u64
    }
}

/// A file of which some ranges are in memory.
struct Window<'a> {
    file: &'a File,
    window: (u64, Bytes),
    at: u64,
}

impl Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.file.stored {
            return Ok(0);
        }
        let head = (0, self.file.head.clone());
        for (begin, bytes) in [&head, &self.window, &self.file.tail] {
            let rest = self.at.checked_sub(*begin).and_then(|skip| bytes.get(skip as usize..));
            if let Some(rest) = rest.filter(|rest| !rest.is_empty()) {
                let n = rest.len().min(buffer.len());
                buffer[..n].copy_from_slice(&rest[..n]);
                self.at += n as u64;
                return Ok(n);
            }
        }
        Err(io::Error::other("this part of the file was not fetched"))
    }
}

impl Seek for Window<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.file.stored.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[async_trait]
impl Blob for EncryptedBlob {
    fn bytes(&self) -> u64 {
        self.file.content
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let file = self.file.clone();
        let end = offset.checked_add(length as u64).filter(|end| *end <= file.content);
        let Some(end) = end else { return Err(damaged("it ends before what is to be read")) };
        if length == 0 {
            return Ok(Bytes::new());
        }
        let first = file.start() + offset / CHUNK * STORED_CHUNK;
        let last = (file.start() + end.div_ceil(CHUNK) * STORED_CHUNK).min(file.stored);
        let window = match first >= file.tail.0 {
            true => (0, Bytes::new()),
            // What the end has is not fetched again.
            false => {
                let length = last.min(file.tail.0) - first;
                (first, self.inner.read_at(first, length as usize).await?)
            }
        };
        blocking("decrypt", move || {
            let changed = |_| damaged(format!("the part at byte {first} of the file was changed"));
            let mut reader = file.reader(window)?;
            // Where a chunk begins it would look for the end of the file, which one that was cut has not; inside a chunk it does not.
            if offset.is_multiple_of(CHUNK) && offset + 1 < file.content {
                reader.seek(SeekFrom::Start(offset + 1)).map_err(changed)?;
            }
            reader.seek(SeekFrom::Start(offset)).map_err(changed)?;
            let mut content = vec![0; length];
            reader.read_exact(&mut content).map_err(changed)?;
            Ok(content.into())
        })
        .await
    }
}
