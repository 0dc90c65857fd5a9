//! What the extension headers of an archive say about the next member.
//!
//! The `tar` crate reads long names and pax records into memory, however large they are. So the
//! extractor uses the raw entries of `tar`, and this module reads extension headers up to
//! [`MAX_EXTENSION`] bytes.

use std::io::Read;

use tar::{Entry, EntryType, PaxExtensions};

use crate::error::ExtractCause;
use crate::left_out::{KEY, LeftOut};

/// The maximum size of one extension header, in bytes.
const MAX_EXTENSION: u64 = 64 << 10;

/// What extension headers say about the next member.
#[derive(Debug, Default)]
pub(crate) struct Extension {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) mtime: Option<(i64, u32)>,
    pub(crate) uid: Option<u64>,
    pub(crate) gid: Option<u64>,
    pub(crate) size: Option<u64>,
    /// What the packer reports as left out.
    pub(crate) left_out: LeftOut,
}

impl Extension {
    /// Reads an extension header. Returns `false` if the entry is a member.
    pub(crate) fn take<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<bool, ExtractCause> {
        match entry.header().entry_type() {
            EntryType::XGlobalHeader => self.left_out(entry)?,
            EntryType::GNULongName => self.path = Some(text(entry)?),
            EntryType::GNULongLink => self.link = Some(text(entry)?),
            EntryType::XHeader => self.records(&contents(entry)?)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Reads the records of the packer in a global header. It ignores the records of other
    /// programs, and a header that is too large to be the packer's.
    fn left_out<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<(), ExtractCause> {
        if entry.size() > MAX_EXTENSION {
            return Ok(());
        }
        let bytes = contents(entry)?;
        for record in PaxExtensions::new(&bytes).map_while(Result::ok) {
            if record.key_bytes() == KEY {
                self.left_out.add(record.value_bytes());
            }
        }
        Ok(())
    }

    fn records(&mut self, bytes: &[u8]) -> Result<(), ExtractCause> {
        for record in PaxExtensions::new(bytes) {
            let record = record.map_err(|_| ExtractCause::Corrupt)?;
            let value = record.value_bytes();
            match record.key_bytes() {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"mtime" => self.mtime = Some(time(value).ok_or(ExtractCause::Corrupt)?),
                b"uid" => self.uid = Some(number(value).ok_or(ExtractCause::Corrupt)?),
                b"gid" => self.gid = Some(number(value).ok_or(ExtractCause::Corrupt)?),
                b"size" => self.size = Some(number(value).ok_or(ExtractCause::Corrupt)?),
                key if key.starts_with(b"GNU.sparse.") => return Err(ExtractCause::Kind),
                _ => {}
            }
        }
        Ok(())
    }
}

fn contents<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<u8>, ExtractCause> {
    let size = entry.size();
    if size > MAX_EXTENSION {
        return Err(ExtractCause::Limit);
    }
    let mut bytes = Vec::new();
    let read = entry.take(MAX_EXTENSION).read_to_end(&mut bytes)?;
    if read as u64 == size { Ok(bytes) } else { Err(ExtractCause::Corrupt) }
}

fn text<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<u8>, ExtractCause> {
    let mut bytes = contents(entry)?;
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    Ok(bytes)
}

fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Reads seconds with a fraction of any length. Digits after the ninth are dropped. Before 1970,
/// the fraction counts down from zero.
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
