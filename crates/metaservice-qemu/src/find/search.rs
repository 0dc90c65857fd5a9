//! Where programs and kernels are searched, in order.
//!
//! For a program: the environment variable that names it, then `PATH`, then the cache
//! (`$XDG_CACHE_HOME/metaservice`, or else `~/.cache/metaservice`). For a kernel: the variable,
//! then the cache, then the kernel of this host.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use metaservice_private::Location;

use super::kernel::{Kernel, is_readable, modules_of};
use super::qemu::{OLDEST_QEMU, Qemu, Records, VersionError};
use super::report::{Finding, INSTALL_HINT, Report};
use crate::arch::Arch;
use crate::cache;
use crate::elf::is_static;
use crate::kernel::is_whole;

/// Searches this host. Blocks: it may run QEMU for its version, at most once in a process, and not
/// at all if the version is recorded in the cache.
#[must_use]
pub fn find() -> Report {
    Search::from_environment().report()
}

/// As [`find`], but always runs QEMU: to find out whether it works.
#[must_use]
pub fn check() -> Report {
    Search { versions: None, ..Search::from_environment() }.report()
}

/// Where to search.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Search {
    /// The architecture of the guest.
    pub arch: Arch,
    /// The directories of programs.
    pub path: Vec<PathBuf>,
    /// The cache, if there is one.
    pub cache: Option<PathBuf>,
    /// Why the cache is not used.
    pub cache_problem: Option<String>,
    /// `METASERVICE_QEMU`.
    pub qemu: Option<PathBuf>,
    /// `METASERVICE_QEMU_IMG`.
    pub qemu_img: Option<PathBuf>,
    /// `METASERVICE_KERNEL`.
    pub kernel: Option<PathBuf>,
    /// `METASERVICE_MODULES`.
    pub modules: Option<PathBuf>,
    /// `METASERVICE_BUSYBOX`.
    pub busybox: Option<PathBuf>,
    /// Whether the kernel of this host may be used: a file in `/boot`.
    pub host_kernel: bool,
    /// Where the version of QEMU is recorded. `None`: QEMU runs each time.
    pub versions: Option<Location>,
}

impl Default for Search {
    /// Nowhere, for the architecture of this host.
    fn default() -> Self {
        Self {
            arch: Arch::HOST,
            path: Vec::new(),
            cache: None,
            cache_problem: None,
            qemu: None,
            qemu_img: None,
            kernel: None,
            modules: None,
            busybox: None,
            host_kernel: false,
            versions: None,
        }
    }
}

impl Search {
    /// The places that the environment of this process names.
    #[must_use]
    pub fn from_environment() -> Self {
        let named = |name: &str| {
            env::var_os(name).filter(|value: &OsString| !value.is_empty()).map(PathBuf::from)
        };
        let (cache, cache_problem) = match cache::trusted() {
            Ok(cache) => (cache, None),
            Err(error) => (None, Some(error.to_string())),
        };
        let path = env::var_os("PATH").map(|path| env::split_paths(&path).collect());
        Self {
            arch: Arch::HOST,
            path: path.unwrap_or_default(),
            cache,
            cache_problem,
            qemu: named("METASERVICE_QEMU"),
            qemu_img: named("METASERVICE_QEMU_IMG"),
            kernel: named("METASERVICE_KERNEL"),
            modules: named("METASERVICE_MODULES"),
            busybox: named("METASERVICE_BUSYBOX"),
            host_kernel: true,
            versions: Some(Location::Cache("versions")),
        }
    }

    /// Searches for everything. Blocks.
    #[must_use]
    pub fn report(&self) -> Report {
        Report {
            qemu: self.find_qemu(),
            kernel: self.find_kernel(),
            busybox: self.find_busybox(),
            qemu_img: match self.candidates(self.qemu_img.as_deref(), "qemu-img").next() {
                Some(path) => Finding::Found(path),
                None => self.missing("there is no qemu-img"),
            },
        }
    }

    fn missing<T>(&self, problem: impl Into<String>) -> Finding<T> {
        let mut problem = problem.into();
        if let Some(why) = &self.cache_problem {
            problem += &format!(", and the cache is not used: {why}");
        }
        Finding::Missing { problem, hint: INSTALL_HINT.into() }
    }

    /// The programs with a name, the preferred one first. If the user named a program, it alone.
    fn candidates(&self, named: Option<&Path>, name: &str) -> impl Iterator<Item = PathBuf> {
        let directories = if named.is_some() { &[] } else { self.path.as_slice() };
        let cached = self.cache.iter().filter(|_| named.is_none()).map(|cache| cache.join("bin"));
        let found = directories.iter().cloned().chain(cached).map(|directory| directory.join(name));
        let all: Vec<_> = named.map(Path::to_owned).into_iter().chain(found).collect();
        all.into_iter().filter(|path| is_executable(path))
    }

    fn find_qemu(&self) -> Finding<Qemu> {
        let name = format!("qemu-system-{}", self.arch);
        let mut problem = match &self.qemu {
            Some(path) => format!("{} (METASERVICE_QEMU) is no program", path.display()),
            None => format!("there is no {name}"),
        };
        let records = Records { location: self.versions.as_ref(), cache: self.cache.as_deref() };
        for path in self.candidates(self.qemu.as_deref(), &name) {
            let shown = path.display();
            match records.version(&path) {
                Ok(version) if version < OLDEST_QEMU => {
                    problem = format!(
                        "{shown} is version {version}, and {OLDEST_QEMU} or newer is needed"
                    );
                }
                Ok(version) => return Finding::Found(Qemu { path, version, arch: self.arch }),
                Err(VersionError::Run(error)) if is_resource_limit(&error) => {
                    return Finding::Missing {
                        problem: format!("{shown} cannot be started: {error}"),
                        hint: "raise the limits of this shell or service ('ulimit -a')".into(),
                    };
                }
                Err(error) => problem = format!("{shown} {error}"),
            }
        }
        self.missing(problem)
    }

    fn find_busybox(&self) -> Finding<PathBuf> {
        let mut problem = match &self.busybox {
            Some(path) => format!("{} (METASERVICE_BUSYBOX) is no program", path.display()),
            None => "there is no busybox".to_owned(),
        };
        for path in self.candidates(self.busybox.as_deref(), "busybox") {
            let shown = path.display();
            problem = match fs::read(&path).map(|bytes| is_static(&bytes)) {
                Ok(Some(true)) => return Finding::Found(path),
                Ok(Some(false)) => {
                    format!("{shown} needs libraries, and a static busybox is needed")
                }
                Ok(None) => format!("{shown} is not a complete program"),
                Err(error) => format!("{shown} cannot be read: {error}"),
            };
        }
        self.missing(problem)
    }

    fn find_kernel(&self) -> Finding<Kernel> {
        if let Some(image) = &self.kernel {
            return self.named_kernel(image);
        }
        // The link is resolved once, here. If a newer kernel replaces it while a machine starts,
        // the image and the modules still have the same version.
        let current = self.cache.as_ref().map(|cache| cache.join("kernel/current"));
        if let Some(directory) = current.and_then(|current| current.canonicalize().ok()) {
            let (image, modules) = (directory.join("vmlinuz"), directory.join("modules"));
            if is_readable(&image) && is_readable(&modules.join("modules.dep")) {
                if !is_whole(&image) {
                    return self.missing(format!("the kernel {} is damaged", image.display()));
                }
                return Finding::Found(Kernel { image, modules: Some(modules), arch: self.arch });
            }
        }
        if self.host_kernel && self.arch == Arch::HOST {
            let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
            let image = Path::new("/boot").join(format!("vmlinuz-{}", release.trim()));
            let modules = Path::new("/lib/modules").join(release.trim());
            if is_readable(&image) && is_readable(&modules.join("modules.dep")) {
                return Finding::Found(Kernel { image, modules: Some(modules), arch: self.arch });
            }
        }
        self.missing("there is no kernel in the cache, and none of this host's that can be read")
    }

    fn named_kernel(&self, image: &Path) -> Finding<Kernel> {
        if !is_readable(image) {
            return Finding::Missing {
                problem: format!("the kernel {} cannot be read", image.display()),
                hint: "check METASERVICE_KERNEL".into(),
            };
        }
        let modules = self.modules.clone().or_else(|| modules_of(image));
        Finding::Found(Kernel { image: image.to_owned(), modules, arch: self.arch })
    }
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Whether this process has reached a limit, so that it could not start any program.
fn is_resource_limit(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::AGAIN | Errno::NOMEM))
}
