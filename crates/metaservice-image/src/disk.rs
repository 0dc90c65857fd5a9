//! Which disk images a machine may open.
//!
//! Owns the check of an image's first bytes. QEMU always gets the format, so that bytes that a
//! guest wrote into a raw disk are never taken for a header. An image that names other files of the
//! host (a backing file, a data file, an extent) is refused, unless the caller allows it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::qcow2::{self, HeaderError};

/// How many bytes are checked: the descriptor in a VMDK file is within them.
const LOOKED_AT: u64 = 64 * 1024;

/// The format of a disk image. It is exhaustive, so that code that hands an image to a machine
/// decides on each format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The bytes of the disk.
    Raw,
    /// QEMU's format, versions 2 and 3.
    Qcow2,
    /// VMware's format.
    Vmdk,
    /// Hyper-V's format.
    Vhdx,
}

impl Format {
    /// The name of the format, as QEMU has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vhdx => "vhdx",
        }
    }
}

/// An image that a machine may not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// It cannot be read.
    #[error("cannot read the disk image {path}")]
    Read {
        /// The image.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It is neither a file nor a block device.
    #[error("the disk image {0} is neither a file nor a block device")]
    NotADisk(PathBuf),
    /// The format is not supported.
    #[error(
        "the disk image {path} is in the format {format}: convert it with 'qemu-img convert -O qcow2'"
    )]
    Unsupported {
        /// The image.
        path: PathBuf,
        /// The format.
        format: &'static str,
    },
    /// The image is compressed.
    #[error("the disk image {path} is packed by {by}: unpack it first")]
    Packed {
        /// The image.
        path: PathBuf,
        /// The program that decompresses it.
        by: &'static str,
    },
    /// It refers to another file of the host.
    #[error(
        "the disk image {path} refers to another file ({what}), which could be any file of this host"
    )]
    RefersElsewhere {
        /// The image.
        path: PathBuf,
        /// The kind of reference.
        what: &'static str,
    },
}

/// A disk image whose first bytes were checked. A machine does not write it: the guest's writes go
/// to a scratch file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    path: PathBuf,
    format: Format,
    /// Whether it names other files.
    refers_to_files: bool,
}

impl Disk {
    /// Checks an image, and finds its format by its content.
    ///
    /// # Errors
    /// If it cannot be read, is not a disk image, or refers to other files.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DiskError> {
        Self::look(path.as_ref(), false)
    }

    /// As [`open`](Self::open), for an image whose author is trusted as much as the caller. It may
    /// refer to other files, in its own directory or below.
    ///
    /// # Errors
    /// If it cannot be read, or is not a disk image.
    pub fn open_trusted(path: impl AsRef<Path>) -> Result<Self, DiskError> {
        Self::look(path.as_ref(), true)
    }

    /// An image whose bytes are those of the disk, whatever they look like.
    ///
    /// # Errors
    /// If it cannot be read, or is not a file or block device.
    pub fn raw(path: impl AsRef<Path>) -> Result<Self, DiskError> {
        let (path, ..) = first_bytes(path.as_ref())?;
        Ok(Self { path, format: Format::Raw, refers_to_files: false })
    }

    /// An image whose format was found before a guest could write it.
    pub(crate) const fn known(path: PathBuf, format: Format) -> Self {
        Self { path, format, refers_to_files: false }
    }

    /// The absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The format.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Whether the image names other files, which are in its own directory or below.
    #[must_use]
    pub const fn refers_to_files(&self) -> bool {
        self.refers_to_files
    }

    /// The size in bytes of the disk that the guest sees. `None` if only QEMU can find it: for VMDK
    /// and VHDX, and for a qcow2 image that refers to other files.
    ///
    /// # Errors
    /// If the image cannot be read.
    pub fn size(&self) -> Result<Option<u64>, DiskError> {
        let (_, bytes, length) = first_bytes(&self.path)?;
        Ok(match self.format {
            // QEMU rounds up to whole sectors.
            Format::Raw => Some(length.next_multiple_of(512)),
            Format::Qcow2 => qcow2::Header::read(&bytes, length).ok().map(|header| header.size),
            Format::Vmdk | Format::Vhdx => None,
        })
    }

    fn look(path: &Path, trusted: bool) -> Result<Self, DiskError> {
        let (path, bytes, length) = first_bytes(path)?;
        match probe(&bytes, length) {
            Probe::Is(format) => Ok(Self { path, format, refers_to_files: false }),
            Probe::Refers(format, _) if trusted => Ok(Self { path, format, refers_to_files: true }),
            Probe::Refers(_, what) => Err(DiskError::RefersElsewhere { path, what }),
            Probe::Unsupported(format) => Err(DiskError::Unsupported { path, format }),
            Probe::Packed(by) => Err(DiskError::Packed { path, by }),
        }
    }
}

/// The path, the first bytes, and the length.
fn first_bytes(path: &Path) -> Result<(PathBuf, Vec<u8>, u64), DiskError> {
    use std::io::{Seek, SeekFrom};
    use std::os::unix::fs::FileTypeExt;
    let failed = |source| DiskError::Read { path: path.to_owned(), source };
    let path = path.canonicalize().map_err(failed)?;
    let kind = path.metadata().map_err(failed)?.file_type();
    // This comes before opening: opening a FIFO would wait for its writer.
    if !kind.is_file() && !kind.is_block_device() {
        return Err(DiskError::NotADisk(path));
    }
    let mut bytes = Vec::new();
    let mut look = || {
        let mut file = File::open(&path)?;
        // A block device has its length only this way.
        let length = file.seek(SeekFrom::End(0))?;
        file.rewind()?;
        file.take(LOOKED_AT).read_to_end(&mut bytes)?;
        Ok(length)
    };
    let length = look().map_err(failed)?;
    Ok((path, bytes, length))
}

#[derive(Debug, PartialEq, Eq)]
enum Probe {
    Is(Format),
    /// It refers to another file of the host. The text names the kind of reference.
    Refers(Format, &'static str),
    Unsupported(&'static str),
    /// It is compressed. The text names the program.
    Packed(&'static str),
}

/// Checks the first bytes of a file with `length` bytes.
fn probe(bytes: &[u8], length: u64) -> Probe {
    if bytes.starts_with(qcow2::MAGIC) {
        return probe_qcow2(bytes, length);
    }
    if bytes.starts_with(b"KDMV") {
        return probe_vmdk(bytes);
    }
    if bytes.starts_with(b"# Disk DescriptorFile") {
        return Probe::Refers(Format::Vmdk, "an extent");
    }
    if bytes.starts_with(b"vhdxfile") {
        return Probe::Is(Format::Vhdx);
    }
    let unsupported = [
        (0, b"conectix".as_slice(), "vpc"),
        (0, b"QED\0", "qed"),
        (0, b"LUKS\xba\xbe", "luks"),
        (0, b"COWD", "vmdk version 3"),
        (0x40, b"\x7f\x10\xda\xbe", "vdi"),
    ];
    for (offset, magic, name) in unsupported {
        if bytes.get(offset..).is_some_and(|rest| rest.starts_with(magic)) {
            return Probe::Unsupported(name);
        }
    }
    let packed = [
        (b"\x1f\x8b".as_slice(), "gzip"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"BZh", "bzip2"),
        (b"PK\x03\x04", "zip"),
        (b"7z\xbc\xaf", "7z"),
    ];
    match packed.into_iter().find(|(magic, _)| bytes.starts_with(magic)) {
        Some((_, name)) => Probe::Packed(name),
        None => Probe::Is(Format::Raw),
    }
}

fn probe_qcow2(bytes: &[u8], length: u64) -> Probe {
    match qcow2::Header::read(bytes, length) {
        Ok(_) => Probe::Is(Format::Qcow2),
        Err(HeaderError::Refers(what)) => Probe::Refers(Format::Qcow2, what),
        Err(HeaderError::Unsupported(what)) => Probe::Unsupported(what),
    }
}

fn probe_vmdk(bytes: &[u8]) -> Probe {
    let capacity = bytes.get(12..20).unwrap_or_default();
    // Without a capacity the descriptor decides, and it may name any extent. A child image names
    // its parent. Flat extents are separate files.
    let contains =
        |text: &[u8]| bytes.windows(text.len()).any(|window| window.eq_ignore_ascii_case(text));
    if capacity == [0; 8] || contains(b"parentFileNameHint") || contains(b" FLAT \"") {
        return Probe::Refers(Format::Vmdk, "a parent or an extent");
    }
    Probe::Is(Format::Vmdk)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn probe(bytes: &[u8]) -> Probe {
        super::probe(bytes, bytes.len() as u64)
    }

    fn qcow2(version: u32, backing: u64, features: u64) -> Vec<u8> {
        let mut header = vec![0; 104];
        header[..4].copy_from_slice(b"QFI\xfb");
        header[4..8].copy_from_slice(&version.to_be_bytes());
        header[8..16].copy_from_slice(&backing.to_be_bytes());
        header[20..24].copy_from_slice(&16_u32.to_be_bytes());
        header[72..80].copy_from_slice(&features.to_be_bytes());
        header
    }

    #[test]
    fn formats_by_their_content() {
        assert_eq!(probe(b""), Probe::Is(Format::Raw));
        assert_eq!(probe(&[0; 512]), Probe::Is(Format::Raw));
        assert_eq!(probe(&qcow2(2, 0, 0)), Probe::Is(Format::Qcow2));
        assert_eq!(probe(&qcow2(3, 0, 0)), Probe::Is(Format::Qcow2));
        assert_eq!(probe(b"vhdxfile and more"), Probe::Is(Format::Vhdx));
        let mut vmdk = b"KDMV\x01\0\0\0\x03\0\0\0".to_vec();
        vmdk.extend([1; 500]);
        assert_eq!(probe(&vmdk), Probe::Is(Format::Vmdk));
        assert_eq!(probe(b"conectix"), Probe::Unsupported("vpc"));
        assert_eq!(probe(b"\x1f\x8b\x08"), Probe::Packed("gzip"));
        assert_eq!(probe(b"\xfd7zXZ\0 and more"), Probe::Packed("xz"));
        assert_eq!(
            probe(&qcow2(1, 0, 0)),
            Probe::Unsupported("qcow of another version than 2 and 3")
        );
    }

    #[test]
    fn images_that_refer_elsewhere() {
        assert_eq!(probe(&qcow2(2, 512, 0)), Probe::Refers(Format::Qcow2, "a backing file"));
        assert_eq!(probe(&qcow2(3, 1 << 63, 0)), Probe::Refers(Format::Qcow2, "a backing file"));
        assert_eq!(probe(&qcow2(3, 0, 4)), Probe::Refers(Format::Qcow2, "a data file"));
        assert!(matches!(
            probe(b"# Disk DescriptorFile\nRW 1 FLAT \"/etc/shadow\" 0"),
            Probe::Refers(..)
        ));
        assert!(matches!(probe(&[b"KDMV".as_slice(), &[0; 100]].concat()), Probe::Refers(..)));
    }

    #[test]
    fn trust_lets_a_backing_file_through_and_raw_is_raw() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        std::fs::write(&path, qcow2(3, 512, 0)).unwrap();
        assert!(matches!(
            Disk::open(&path),
            Err(DiskError::RefersElsewhere { what: "a backing file", .. })
        ));
        assert_eq!(Disk::open_trusted(&path).unwrap().format(), Format::Qcow2);
        assert_eq!(Disk::raw(&path).unwrap().format(), Format::Raw);
    }

    #[test]
    fn the_size_of_a_disk_is_that_of_its_sectors() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (bytes, size) in [(0, 0), (512, 512), (1000, 1024)] {
            file.as_file().set_len(bytes).unwrap();
            assert_eq!(Disk::raw(file.path()).unwrap().size().unwrap(), Some(size));
        }
    }

    #[test]
    fn what_is_no_disk() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(Disk::open(directory.path()), Err(DiskError::NotADisk(_))));
        assert!(matches!(Disk::open(directory.path().join("none")), Err(DiskError::Read { .. })));
        assert!(matches!(Disk::open("/dev/null"), Err(DiskError::NotADisk(_))));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(magic in prop::sample::select(vec![&b"QFI\xfb"[..], b"KDMV", b""]),
                                bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = probe(&[magic, &bytes].concat());
        }
    }
}
