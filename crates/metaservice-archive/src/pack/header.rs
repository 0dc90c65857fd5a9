//! The headers of an archive: ustar, with extended records (POSIX pax) where ustar has no room.

use rustix::fs::Stat;
use tar::{EntryType, Header};

/// The size of a header, and the unit of a file's content, in bytes.
pub(super) const SECTOR: usize = 512;

/// The largest number of seven octal digits.
const OCTAL_7: u64 = 0o7_777_777;

/// The largest number of eleven octal digits.
const OCTAL_11: u64 = 0o77_777_777_777;

/// Appends the headers of a member to `archive`.
pub(super) fn member(
    archive: &mut Vec<u8>,
    path: &[u8],
    kind: EntryType,
    status: &Stat,
    size: u64,
    link: Option<&[u8]>,
) {
    let mut records = Vec::new();
    let mut header = Header::new_ustar();
    set_name(&mut header.as_old_mut().name, path, b"path", &mut records);
    if let Some(link) = link {
        set_name(&mut header.as_old_mut().linkname, link, b"linkpath", &mut records);
    }
    header.set_entry_type(kind);
    header.set_mode(status.st_mode & 0o7777);
    set_number(status.st_uid.into(), OCTAL_7, b"uid", &mut records, |n| header.set_uid(n));
    set_number(status.st_gid.into(), OCTAL_7, b"gid", &mut records, |n| header.set_gid(n));
    // A size that is too large for octal digits is written in the GNU format. Unlike an extended
    // record, each reader looks for it.
    header.set_size(size);
    header.set_mtime(u64::try_from(status.st_mtime).unwrap_or(0).min(OCTAL_11));
    let fraction = i64::try_from(status.st_mtime_nsec).unwrap_or(0);
    if fraction != 0
        || status.st_mtime < 0
        || u64::try_from(status.st_mtime).is_ok_and(|t| t > OCTAL_11)
    {
        record(&mut records, b"mtime", time(status.st_mtime, fraction).as_bytes());
    }
    if !records.is_empty() {
        extension(archive, EntryType::XHeader, records);
    }
    header.set_cksum();
    archive.extend_from_slice(header.as_bytes());
}

/// Appends one record for the whole archive, which other programs ignore.
pub(super) fn global_record(archive: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let mut records = Vec::new();
    record(&mut records, key, value);
    extension(archive, EntryType::XGlobalHeader, records);
}

/// Appends zeros up to the next sector.
pub(super) fn pad(archive: &mut Vec<u8>, length: usize) {
    archive.resize(archive.len() + length.next_multiple_of(SECTOR) - length, 0);
}

/// A header with records, for the next member or for the archive.
fn extension(archive: &mut Vec<u8>, kind: EntryType, mut records: Vec<u8>) {
    let mut header = Header::new_ustar();
    set_name(&mut header.as_old_mut().name, b"./PaxHeaders/member", b"", &mut Vec::new());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(records.len() as u64);
    header.set_cksum();
    archive.extend_from_slice(header.as_bytes());
    let length = records.len();
    archive.append(&mut records);
    pad(archive, length);
}

/// Writes a name into the header. If it is too long, it becomes a record, and the header has its
/// beginning.
fn set_name(field: &mut [u8; 100], name: &[u8], key: &[u8], records: &mut Vec<u8>) {
    let fits = name.len().min(field.len());
    field[..fits].copy_from_slice(&name[..fits]);
    if fits < name.len() {
        record(records, key, name);
    }
}

/// Writes a number into the header. If it exceeds `limit`, it becomes a record, and the header has
/// the limit.
fn set_number(number: u64, limit: u64, key: &[u8], records: &mut Vec<u8>, set: impl FnOnce(u64)) {
    set(number.min(limit));
    if number > limit {
        record(records, key, number.to_string().as_bytes());
    }
}

/// Appends `LENGTH KEY=VALUE\n`. The length includes itself.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() > length {
        length += 1;
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// Seconds with a fraction, as pax writes them. Before 1970, the fraction counts down from zero.
fn time(seconds: i64, nanoseconds: i64) -> String {
    if seconds >= 0 || nanoseconds == 0 {
        return format!("{seconds}.{nanoseconds:09}");
    }
    let (seconds, nanoseconds) = (seconds + 1, 1_000_000_000 - nanoseconds);
    format!("-{}.{nanoseconds:09}", -seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_its_fraction() {
        assert_eq!(time(12, 5), "12.000000005");
        assert_eq!(time(-1, 750_000_000), "-0.250000000");
    }

    #[test]
    fn a_record_includes_its_own_length() {
        for length in [1, 5, 86, 87, 88, 89, 90, 200, 980, 990, 1000] {
            let mut records = Vec::new();
            record(&mut records, b"k", &vec![b'v'; length]);
            let text = String::from_utf8(records).unwrap();
            assert_eq!(text.split_once(' ').unwrap().0, text.len().to_string());
        }
    }
}
