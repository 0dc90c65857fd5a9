//! A kernel on the host, and its modules.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::arch::Arch;

/// A kernel image, and the directory of its modules.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kernel {
    /// The image.
    pub image: PathBuf,
    /// The directory of the modules: `/lib/modules/VERSION` for an installed kernel. `None` if
    /// everything is built in.
    pub modules: Option<PathBuf>,
    /// The architecture that it runs on.
    pub arch: Arch,
}

impl Kernel {
    /// A kernel for the architecture of this host.
    #[must_use]
    pub fn new(image: impl Into<PathBuf>, modules: Option<PathBuf>) -> Self {
        Self { image: image.into(), modules, arch: Arch::HOST }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.image.display())?;
        match &self.modules {
            Some(modules) => write!(f, " with modules in {}", modules.display()),
            None => write!(f, " without modules"),
        }
    }
}

/// The modules of a kernel whose image the user named: beside the image, or in the directory of
/// the version in the name of the image.
pub(super) fn modules_of(image: &Path) -> Option<PathBuf> {
    let beside = image.parent().map(|directory| directory.join("modules"));
    let version = image.file_name().and_then(|name| name.to_str()?.strip_prefix("vmlinuz-"));
    let installed = version.map(|version| Path::new("/lib/modules").join(version));
    let mut both = [beside, installed].into_iter().flatten();
    both.find(|directory| is_readable(&directory.join("modules.dep")))
}

pub(super) fn is_readable(path: &Path) -> bool {
    path.is_file() && fs::File::open(path).is_ok()
}
