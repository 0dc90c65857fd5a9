//! QEMU's disk format, as far as the host must check it before QEMU opens an untrusted image.
//!
//! Owns the header, and what makes an image unfit to be opened. QEMU checks tables and data.

/// The first bytes of each qcow2 image.
pub(crate) const MAGIC: &[u8] = b"QFI\xfb";

/// The length of a version 2 header, and of a version 3 header.
const SHORT_HEADER: usize = 72;
const LONG_HEADER: usize = 104;

/// The features that an image may require: to be checked first (bit 0), another compression (bit
/// 3), extended L2 entries (bit 4).
const KNOWN_FEATURES: u64 = 1 << 0 | 1 << 3 | 1 << 4;
const CORRUPT: u64 = 1 << 1;
const DATA_FILE: u64 = 1 << 2;

/// The largest table that QEMU reads: 32 MiB.
const MAX_TABLE: u64 = 32 << 20;

/// Why an image may not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// It names another file of the host.
    Refers(&'static str),
    /// It is broken, or not supported.
    Unsupported(&'static str),
}

/// The content of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// The size of the disk in bytes.
    pub(crate) size: u64,
}

impl Header {
    /// Reads the first bytes of an image whose file has `length` bytes.
    pub(crate) fn read(bytes: &[u8], length: u64) -> Result<Self, HeaderError> {
        let cut = HeaderError::Unsupported("qcow2, cut off");
        if bytes.len() < SHORT_HEADER {
            return Err(cut);
        }
        let short = |offset: usize| {
            let field = bytes.get(offset..).and_then(<[u8]>::first_chunk);
            field.map(|bytes| u32::from_be_bytes(*bytes)).unwrap_or_default()
        };
        let long = |offset: usize| {
            let field = bytes.get(offset..).and_then(<[u8]>::first_chunk);
            field.map(|bytes| u64::from_be_bytes(*bytes)).unwrap_or_default()
        };
        let version = short(4);
        if !(2..=3).contains(&version) {
            return Err(HeaderError::Unsupported("qcow of another version than 2 and 3"));
        }
        if long(8) != 0 {
            return Err(HeaderError::Refers("a backing file"));
        }
        if version == 3 {
            if bytes.len() < LONG_HEADER {
                return Err(cut);
            }
            check_features(long(72))?;
        }
        if short(32) != 0 {
            return Err(HeaderError::Unsupported("qcow2, encrypted"));
        }
        let tables = [
            (long(40), u64::from(short(36)) * 8),
            (long(48), u64::from(short(56)) << short(20).min(21)),
        ];
        let within = |(offset, bytes): (u64, u64)| {
            bytes <= MAX_TABLE && offset.checked_add(bytes).is_some_and(|end| end <= length)
        };
        if !(9..=21).contains(&short(20)) || !tables.into_iter().all(within) {
            return Err(HeaderError::Unsupported("qcow2, broken"));
        }
        Ok(Self { size: long(24) })
    }
}

fn check_features(features: u64) -> Result<(), HeaderError> {
    if features & DATA_FILE != 0 {
        return Err(HeaderError::Refers("a data file"));
    }
    if features & CORRUPT != 0 {
        return Err(HeaderError::Unsupported("qcow2, marked as corrupt"));
    }
    if features & !KNOWN_FEATURES != 0 {
        return Err(HeaderError::Unsupported("qcow2 with features that are not known"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLUSTER: u64 = 64 << 10;

    /// The header of a valid, empty image of one MiB.
    fn header(version: u32) -> Vec<u8> {
        let mut header = vec![0; LONG_HEADER];
        let fields: [(usize, &[u8]); 8] = [
            (0, MAGIC),
            (4, &version.to_be_bytes()),
            (20, &16_u32.to_be_bytes()),
            (24, &(1_u64 << 20).to_be_bytes()),
            (36, &1_u32.to_be_bytes()),
            (40, &(3 * CLUSTER).to_be_bytes()),
            (48, &CLUSTER.to_be_bytes()),
            (56, &1_u32.to_be_bytes()),
        ];
        for (offset, bytes) in fields {
            header[offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        header
    }

    fn with(offset: usize, bytes: &[u8]) -> Result<Header, HeaderError> {
        let mut header = header(3);
        header[offset..offset + bytes.len()].copy_from_slice(bytes);
        Header::read(&header, 4 * CLUSTER)
    }

    #[test]
    fn good_ones_are_read() {
        let good = Header { size: 1 << 20 };
        assert_eq!(Header::read(&header(2), 4 * CLUSTER), Ok(good));
        assert_eq!(Header::read(&header(3), 4 * CLUSTER), Ok(good));
        assert_eq!(with(72, &KNOWN_FEATURES.to_be_bytes()), Ok(good));
    }

    #[test]
    fn every_trick_is_seen() {
        let refers = |what| Err(HeaderError::Refers(what));
        let unfit = |what| Err(HeaderError::Unsupported(what));
        assert_eq!(with(8, &1_u64.to_be_bytes()), refers("a backing file"));
        assert_eq!(with(72, &DATA_FILE.to_be_bytes()), refers("a data file"));
        assert_eq!(with(72, &CORRUPT.to_be_bytes()), unfit("qcow2, marked as corrupt"));
        let unknown = unfit("qcow2 with features that are not known");
        assert_eq!(with(72, &(1_u64 << 5).to_be_bytes()), unknown);
        assert_eq!(with(32, &2_u32.to_be_bytes()), unfit("qcow2, encrypted"));
        let broken = unfit("qcow2, broken");
        assert_eq!(with(20, &8_u32.to_be_bytes()), broken);
        assert_eq!(with(20, &22_u32.to_be_bytes()), broken);
        // Tables that end one byte after the file, that are too large, or that overflow.
        assert_eq!(with(40, &(4 * CLUSTER - 7).to_be_bytes()), broken);
        assert_eq!(with(36, &u32::MAX.to_be_bytes()), broken);
        assert_eq!(with(48, &u64::MAX.to_be_bytes()), broken);
        assert_eq!(with(56, &u32::MAX.to_be_bytes()), broken);
        let version = unfit("qcow of another version than 2 and 3");
        assert_eq!(with(4, &1_u32.to_be_bytes()), version);
        assert_eq!(Header::read(&header(3)[..103], 4 * CLUSTER), unfit("qcow2, cut off"));
        assert_eq!(Header::read(&header(2)[..71], 4 * CLUSTER), unfit("qcow2, cut off"));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), length: u64) {
            let _ = Header::read(&[MAGIC, &bytes].concat(), length);
        }
    }
}
