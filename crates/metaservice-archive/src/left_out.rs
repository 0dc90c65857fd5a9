//! What no archive can carry: sockets, FIFOs, devices, and the file systems of the kernel.
//!
//! The packer writes a record instead, in a global header of pax. Other programs ignore it, and the
//! extractor counts it.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The key of the record. The value is the path in the archive.
pub(crate) const KEY: &[u8] = b"METASERVICE.left-out";

/// How many paths are remembered.
const MAX_PATHS: usize = 10;

/// The maximum length of a remembered path, in bytes.
const MAX_LENGTH: usize = 4096;

/// What was left out of an archive because no archive can carry it.
///
/// ```
/// use std::os::unix::net::UnixListener;
/// use metaservice_archive::Packer;
///
/// let directory = tempfile::tempdir()?;
/// let _socket = UnixListener::bind(directory.path().join("socket"))?;
/// let mut packer = Packer::open(directory.path())?;
/// while packer.next_block()?.is_some() {}
/// assert_eq!(packer.packed().left_out.count, 1);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// The number of left out files and directories.
    pub count: u64,
    /// The first paths, ten at most. From an archive, the packer wrote them: sanitize them for a
    /// terminal.
    pub first: Vec<PathBuf>,
}

impl LeftOut {
    pub(crate) fn add(&mut self, path: &[u8]) {
        self.count = self.count.saturating_add(1);
        if self.first.len() < MAX_PATHS && path.len() <= MAX_LENGTH {
            self.first.push(Path::new(OsStr::from_bytes(path)).to_owned());
        }
    }
}

/// The file systems that the kernel generates, by their numbers in statfs(2). A file in them has no
/// size before it is read, has no end, or has an effect when it is read. It is useless elsewhere.
const KERNEL: [i64; 21] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0x1cd1,      // devpts
    0xcafe_4a11, // bpf
    0x6165_676c, // pstore
    0xde5e_81e4, // efivarfs
    0x6265_6570, // configfs
    0xf97c_ff8c, // selinuxfs
    0x4341_5d53, // smackfs
    0x1980_0202, // mqueue
    0x4249_4e4d, // binfmt_misc
    0x6e73_6673, // nsfs
    0x6573_5543, // fusectl
    0x9584_58f6, // hugetlbfs
    0x6759_6969, // rpc_pipefs
    0x0187,      // autofs: to open a directory can wait for the network
];

/// Whether an open file or directory is in such a file system.
pub(crate) fn is_of_kernel(file: impl AsFd) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|system| {
        let kind = system.f_type & 0xffff_ffff;
        KERNEL.contains(&kind)
    })
}
