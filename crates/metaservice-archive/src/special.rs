//! What no archive carries: sockets, FIFOs, devices, and the file systems of the kernel.
//!
//! The packer leaves a record where such a thing would be, in a global header of pax under a name
//! of its own: other programs pass it over, and the extractor counts it.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The key of the record; its value is the path in the archive.
pub(crate) const KEY: &[u8] = b"METASERVICE.left-out";

/// How many paths are kept.
const KEPT: usize = 10;

/// The longest path that is kept.
const LONGEST: usize = 4096;

/// What was left out of an archive because no archive carries it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// How many.
    pub count: u64,
    /// The paths of the first of them. Out of an archive they are its maker's words.
    pub first: Vec<PathBuf>,
}

impl LeftOut {
    pub(crate) fn add(&mut self, path: &[u8]) {
        self.count = self.count.saturating_add(1);
        if self.first.len() < KEPT && path.len() <= LONGEST {
            self.first.push(Path::new(OsStr::from_bytes(path)).to_owned());
        }
    }
}

/// File systems that the kernel makes up, as it numbers them (statfs(2)): what is in them has no
/// size before it is read, no end, or an effect, and it means nothing elsewhere.
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
    0x0187,      // autofs: looking in may wait for a network
];

/// Whether an open file or folder is in such a file system.
pub(crate) fn is_of_kernel(file: impl AsFd) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|system| {
        let kind = system.f_type & 0xffff_ffff;
        KERNEL.contains(&kind)
    })
}
