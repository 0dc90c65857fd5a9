//! What an archive says of one member, read with bounds.
//!
//! The `tar` crate reads long names and pax records into memory whatever their size, so its raw
//! entries are used and the extension headers are read here, none beyond [`EXTENSION_BYTES`].

use std::io::Read;

use tar::{Entry, EntryType, PaxExtensions};

use crate::special::{KEY, LeftOut};

/// The most that one extension header may hold.
const EXTENSION_BYTES: u64 = 64 << 10;

/// Why a member was refused; members before it are in place.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", String::from_utf8_lossy(member).escape_debug())]
pub struct Error {
    /// The member's name as the archive has it; empty if there is none.
    pub member: Vec<u8>,
    /// What is wrong.
    pub reason: Reason,
}

/// What is wrong with a member.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The name is empty, absolute, has `..` or a NUL, or is too long or too deep.
    #[error("a name that is not allowed")]
    Name,
    /// A device, a FIFO, a sparse file or something unknown.
    #[error("a kind of member that is not allowed")]
    Kind,
    /// The stream ends where a member, or the archive's end, was to come.
    #[error("an archive that breaks off before its end")]
    Unended,
    /// Behind the archive's end there is more than zeros.
    #[error("an archive with more behind its end")]
    Behind,
    /// Headers that contradict themselves, or the stream ends within a member.
    #[error("not a well-formed archive")]
    Corrupt,
    /// More than [`crate::Limits`] allows.
    #[error("more than the limits allow")]
    Limit,
    /// The system refused; a name through a link is `ELOOP` or `ENOTDIR`.
    #[error(transparent)]
    System(#[from] rustix::io::Errno),
    /// The archive cannot be read, or the file not written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// What extension headers say of the member after them.
#[derive(Default)]
pub(crate) struct Extension {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) mtime: Option<(i64, u32)>,
    pub(crate) uid: Option<u64>,
    pub(crate) gid: Option<u64>,
    pub(crate) size: Option<u64>,
    /// What the packer says it has left out.
    pub(crate) left_out: LeftOut,
}

impl Extension {
    /// Takes an extension header; `false` if the entry is a member.
    pub(crate) fn take<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<bool, Reason> {
        match entry.header().entry_type() {
            EntryType::XGlobalHeader => self.left_out(entry)?,
            EntryType::GNULongName => self.path = Some(text(entry)?),
            EntryType::GNULongLink => self.link = Some(text(entry)?),
            EntryType::XHeader => self.records(&bounded(entry)?)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Reads a global header. What others write into it is for others, however long it is.
    fn left_out<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<(), Reason> {
        if entry.size() > EXTENSION_BYTES {
            return Ok(());
        }
        let bytes = bounded(entry)?;
        for record in PaxExtensions::new(&bytes).map_while(Result::ok) {
            if record.key_bytes() == KEY {
                self.left_out.add(record.value_bytes());
            }
        }
        Ok(())
    }

    fn records(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        for record in PaxExtensions::new(bytes) {
            let record = record.map_err(|_| Reason::Corrupt)?;
            let value = record.value_bytes();
            match record.key_bytes() {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"mtime" => self.mtime = Some(time(value).ok_or(Reason::Corrupt)?),
                b"uid" => self.uid = Some(number(value).ok_or(Reason::Corrupt)?),
                b"gid" => self.gid = Some(number(value).ok_or(Reason::Corrupt)?),
                b"size" => self.size = Some(number(value).ok_or(Reason::Corrupt)?),
                key if key.starts_with(b"GNU.sparse.") => return Err(Reason::Kind),
                _ => {}
            }
        }
        Ok(())
    }
}

fn bounded<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<u8>, Reason> {
    let size = entry.size();
    if size > EXTENSION_BYTES {
        return Err(Reason::Limit);
    }
    let mut bytes = Vec::new();
    let read = entry.take(EXTENSION_BYTES).read_to_end(&mut bytes)?;
    if read as u64 == size { Ok(bytes) } else { Err(Reason::Corrupt) }
}

fn text<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<u8>, Reason> {
    let mut bytes = bounded(entry)?;
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    Ok(bytes)
}

fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Seconds with a fraction of any length; digits after the ninth are cut. Before 1970 the
/// fraction counts down from zero, so it is turned round.
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let value = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanos = digits.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    if whole.starts_with('-') && nanos > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos));
    }
    Some((seconds, nanos))
}
