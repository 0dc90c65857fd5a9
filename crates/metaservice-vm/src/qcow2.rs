//! QEMU's disk format, as far as a host has to know it before QEMU opens a stranger's image.
//!
//! Owns the header: what makes an image unfit to be opened, and an empty image over another one.
//! Tables and data are QEMU's own business.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The first bytes of every such image.
pub(crate) const MAGIC: &[u8] = b"QFI\xfb";

/// The first version's header; later ones have more.
const SHORT_HEADER: usize = 72;
const LONG_HEADER: usize = 104;

/// What an image may demand of its reader: to check it first (bit 0), to know another compression
/// (bit 3), to know smaller pieces of clusters (bit 4).
const KNOWN_FEATURES: u64 = 1 << 0 | 1 << 3 | 1 << 4;
const CORRUPT: u64 = 1 << 1;
const DATA_FILE: u64 = 1 << 2;

/// The largest first table that QEMU reads: 32 MiB.
const MAX_TABLE: u64 = 32 << 20;

/// The clusters of an overlay: 64 KiB.
const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;

/// What a table of one cluster's entries, each of a cluster, covers.
const COVERED: u64 = CLUSTER / 8 * CLUSTER;

/// The header extension that names the format of the image below.
const BACKING_FORMAT: u32 = 0xe279_2aca;

/// The longest path that QEMU reads from a header.
const MAX_PATH: usize = 1023;

/// Why an image is not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Objection {
    /// It names another file of the host.
    Refers(&'static str),
    /// It is broken, or of a kind that is not taken.
    Unsupported(&'static str),
}

/// What the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// The bytes of the disk.
    pub(crate) size: u64,
}

impl Header {
    /// Reads the beginning of an image whose file has `length` bytes.
    pub(crate) fn read(bytes: &[u8], length: u64) -> Result<Self, Objection> {
        let cut = Objection::Unsupported("qcow2, cut off");
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
            return Err(Objection::Unsupported("qcow of another version than 2 and 3"));
        }
        if long(8) != 0 {
            return Err(Objection::Refers("a backing file"));
        }
        if version == 3 {
            if bytes.len() < LONG_HEADER {
                return Err(cut);
            }
            check_features(long(72))?;
        }
        if short(32) != 0 {
            return Err(Objection::Unsupported("qcow2, encrypted"));
        }
        let tables = [
            (long(40), u64::from(short(36)) * 8),
            (long(48), u64::from(short(56)) << short(20).min(21)),
        ];
        let within = |(offset, bytes): (u64, u64)| {
            bytes <= MAX_TABLE && offset.checked_add(bytes).is_some_and(|end| end <= length)
        };
        if !(9..=21).contains(&short(20)) || !tables.into_iter().all(within) {
            return Err(Objection::Unsupported("qcow2, broken"));
        }
        Ok(Self { size: long(24) })
    }
}

fn check_features(features: u64) -> Result<(), Objection> {
    if features & DATA_FILE != 0 {
        return Err(Objection::Refers("a data file"));
    }
    if features & CORRUPT != 0 {
        return Err(Objection::Unsupported("qcow2, marked as corrupt"));
    }
    if features & !KNOWN_FEATURES != 0 {
        return Err(Objection::Unsupported("qcow2 with features that are not known"));
    }
    Ok(())
}

/// Writes an empty image of `size` bytes into an empty file: all of it is what is in the image at
/// `below`, whose format has this name, until it is written.
///
/// # Errors
/// When the path is too long for a header or relative, or the file cannot be written.
pub(crate) fn write_overlay(file: &File, below: &Path, format: &str, size: u64) -> io::Result<()> {
    let path: &OsStr = below.as_os_str();
    if path.len() > MAX_PATH || !below.is_absolute() {
        return Err(io::Error::from(io::ErrorKind::InvalidFilename));
    }
    // Header, table of blocks of counts, one such block, first table.
    let (counts, block, table) = (CLUSTER, 2 * CLUSTER, 3 * CLUSTER);
    let entries = size.div_ceil(COVERED);
    let clusters = 3 + (entries * 8).div_ceil(CLUSTER).max(1);
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let mut header = Vec::with_capacity(LONG_HEADER + MAX_PATH);
    let name_at = LONG_HEADER + 8 + format.len().next_multiple_of(8) + 8;
    header.extend(MAGIC);
    header.extend(3_u32.to_be_bytes());
    header.extend((name_at as u64).to_be_bytes());
    header.extend(u32::try_from(path.len()).map_err(invalid)?.to_be_bytes());
    header.extend(CLUSTER_BITS.to_be_bytes());
    header.extend(size.to_be_bytes());
    header.extend(0_u32.to_be_bytes()); // no encryption
    header.extend(u32::try_from(entries).map_err(invalid)?.to_be_bytes());
    header.extend(table.to_be_bytes());
    header.extend(counts.to_be_bytes());
    header.extend(1_u32.to_be_bytes()); // clusters of the table of counts
    header.extend([0; 12]); // no snapshots
    header.extend([0; 24]); // no features
    header.extend(4_u32.to_be_bytes()); // counts of 16 bits
    header.extend(104_u32.to_be_bytes()); // the length so far
    header.extend(BACKING_FORMAT.to_be_bytes());
    header.extend(u32::try_from(format.len()).map_err(invalid)?.to_be_bytes());
    header.extend(format.as_bytes());
    header.resize(name_at, 0); // and an extension of nothing, the last one
    header.extend(path.as_bytes());
    file.set_len(clusters * CLUSTER)?;
    file.write_all_at(&header, 0)?;
    file.write_all_at(&block.to_be_bytes(), counts)?;
    let used = usize::try_from(clusters).map_err(invalid)?;
    file.write_all_at(&1_u16.to_be_bytes().repeat(used), block)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The header of a good, empty image of a MiB.
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

    fn with(offset: usize, bytes: &[u8]) -> Result<Header, Objection> {
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
        let refers = |what| Err(Objection::Refers(what));
        let unfit = |what| Err(Objection::Unsupported(what));
        assert_eq!(with(8, &1_u64.to_be_bytes()), refers("a backing file"));
        assert_eq!(with(72, &DATA_FILE.to_be_bytes()), refers("a data file"));
        assert_eq!(with(72, &CORRUPT.to_be_bytes()), unfit("qcow2, marked as corrupt"));
        let unknown = unfit("qcow2 with features that are not known");
        assert_eq!(with(72, &(1_u64 << 5).to_be_bytes()), unknown);
        assert_eq!(with(32, &2_u32.to_be_bytes()), unfit("qcow2, encrypted"));
        let broken = unfit("qcow2, broken");
        assert_eq!(with(20, &8_u32.to_be_bytes()), broken);
        assert_eq!(with(20, &22_u32.to_be_bytes()), broken);
        // Tables that end one byte past the file, that are too large, or that overflow.
        assert_eq!(with(40, &(4 * CLUSTER - 7).to_be_bytes()), broken);
        assert_eq!(with(36, &u32::MAX.to_be_bytes()), broken);
        assert_eq!(with(48, &u64::MAX.to_be_bytes()), broken);
        assert_eq!(with(56, &u32::MAX.to_be_bytes()), broken);
        let version = unfit("qcow of another version than 2 and 3");
        assert_eq!(with(4, &1_u32.to_be_bytes()), version);
        assert_eq!(Header::read(&header(3)[..103], 4 * CLUSTER), unfit("qcow2, cut off"));
        assert_eq!(Header::read(&header(2)[..71], 4 * CLUSTER), unfit("qcow2, cut off"));
    }

    /// QEMU's own tool on the image; nothing where it is not installed.
    fn qemu_img(verb: &[&str], image: &Path) -> Option<String> {
        let output = std::process::Command::new("qemu-img").args(verb).arg(image).output().ok()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(String::from_utf8(output.stdout).unwrap())
    }

    #[test]
    fn an_overlay_is_what_qemu_takes_for_one() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("below, with a comma");
        for size in [512, COVERED, 3 * COVERED + 512] {
            File::create(&below).unwrap().set_len(size).unwrap();
            let path = folder.path().join("overlay");
            let file = File::create(&path).unwrap();
            write_overlay(&file, &below, "raw", size).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            let read = Header::read(&bytes, bytes.len() as u64);
            assert_eq!(read, Err(Objection::Refers("a backing file")));
            qemu_img(&["check"], &path);
            if let Some(told) = qemu_img(&["info", "--output=json"], &path) {
                let told: serde_json::Value = serde_json::from_str(&told).unwrap();
                assert_eq!(told["virtual-size"], size);
                assert_eq!(told["backing-filename"], below.to_str().unwrap());
                assert_eq!(told["backing-filename-format"], "raw");
            }
        }
    }

    #[test]
    fn an_overlay_over_what_no_header_can_name_is_refused() {
        let file = tempfile::tempfile().unwrap();
        for path in ["relative", &format!("/{}", "x".repeat(MAX_PATH))] {
            write_overlay(&file, Path::new(path), "raw", 512).unwrap_err();
        }
        assert_eq!(file.metadata().unwrap().len(), 0);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), length: u64) {
            let _ = Header::read(&[MAGIC, &bytes].concat(), length);
        }
    }
}
