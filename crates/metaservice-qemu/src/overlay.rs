//! Empty qcow2 images over other images.
//!
//! Owns the header and tables that QEMU needs to open one. QEMU does all the rest.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The first bytes of each qcow2 image.
pub(crate) const MAGIC: &[u8] = b"QFI\xfb";

/// The length of a version 3 header.
const HEADER: usize = 104;

/// The cluster size of an overlay: 64 KiB.
const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;

/// The bytes of the disk that one cluster of table entries covers.
const COVERED: u64 = CLUSTER / 8 * CLUSTER;

/// The header extension with the format of the backing image.
const BACKING_FORMAT: u32 = 0xe279_2aca;

/// The longest path that QEMU reads from a header.
const MAX_PATH: usize = 1023;

/// Writes an empty overlay into an empty file. Until the guest writes, each of its `size` bytes
/// comes from the image at `below`, which has this format.
///
/// # Errors
/// If the path is relative or too long for a header, or the file cannot be written.
pub(crate) fn write(file: &File, below: &Path, format: &str, size: u64) -> io::Result<()> {
    let path: &OsStr = below.as_os_str();
    if path.len() > MAX_PATH || !below.is_absolute() {
        return Err(io::Error::from(io::ErrorKind::InvalidFilename));
    }
    // The header, the refcount table, one refcount block, and the L1 table.
    let (counts, block, table) = (CLUSTER, 2 * CLUSTER, 3 * CLUSTER);
    let entries = size.div_ceil(COVERED);
    let clusters = 3 + (entries * 8).div_ceil(CLUSTER).max(1);
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let mut header = Vec::with_capacity(HEADER + MAX_PATH);
    let name_at = HEADER + 8 + format.len().next_multiple_of(8) + 8;
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
    use super::*;

    /// Runs QEMU's own tool on the image. `None` if it is not installed.
    fn qemu_img(verb: &[&str], image: &Path) -> Option<String> {
        let output = std::process::Command::new("qemu-img").args(verb).arg(image).output().ok()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(String::from_utf8(output.stdout).unwrap())
    }

    #[test]
    fn an_overlay_is_what_qemu_takes_for_one() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("below, with a comma");
        for size in [512, COVERED, 3 * COVERED + 512] {
            File::create(&below).unwrap().set_len(size).unwrap();
            let path = directory.path().join("overlay");
            let file = File::create(&path).unwrap();
            write(&file, &below, "raw", size).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            assert!(bytes.starts_with(MAGIC));
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
            write(&file, Path::new(path), "raw", 512).unwrap_err();
        }
        assert_eq!(file.metadata().unwrap().len(), 0);
    }
}
