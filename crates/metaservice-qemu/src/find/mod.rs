//! Finds what a machine needs on this host: QEMU, a kernel, busybox.
//!
//! Owns where is looked, in which order, and what a person is told to type when something
//! is missing. It installs nothing.
//!
//! For each thing: the environment variable that names it, then `PATH`, then the cache
//! folder (`$XDG_CACHE_HOME/metaservice`, else `~/.cache/metaservice`). For a kernel: the
//! variable, the cache, then this host's own.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cache;
use crate::initramfs::modules::ends_behind_its_sections;
use crate::kernel;

/// What to type when something is missing.
const INSTALL_HINT: &str = "type 'metaservice doctor --install'";

/// The oldest QEMU that can hand a network card's frames to a socket of ours.
pub(crate) const OLDEST_QEMU: QemuVersion = QemuVersion { major: 7, minor: 2 };

/// A version of QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct QemuVersion {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

impl QemuVersion {
    /// Reads what `qemu-system-… --version` prints.
    fn parse(text: &str) -> Option<Self> {
        let version = text.split("version ").nth(1)?;
        let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        Some(Self { major: numbers.next()?.ok()?, minor: numbers.next()?.ok()? })
    }
}

impl fmt::Display for QemuVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A QEMU that can run machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qemu {
    /// The program.
    pub path: PathBuf,
    /// Its version, 7.2 or newer.
    pub version: QemuVersion,
}

impl fmt::Display for Qemu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.path.display(), self.version)
    }
}

/// A kernel and where its modules are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// The kernel image.
    pub image: PathBuf,
    /// Its folder of modules (what is `/lib/modules/VERSION` where it is installed);
    /// `None` when everything is taken to be built in.
    pub modules: Option<PathBuf>,
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

/// One thing that was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding<T> {
    /// There, and fit for use.
    Found(T),
    /// Not there, or there and unfit.
    Missing {
        /// What is wrong.
        problem: String,
        /// What to do about it.
        hint: String,
    },
}

impl<T> Finding<T> {
    fn missing(problem: impl Into<String>) -> Self {
        Self::Missing { problem: problem.into(), hint: INSTALL_HINT.into() }
    }

    /// What was found, if it was.
    pub const fn found(&self) -> Option<&T> {
        match self {
            Self::Found(thing) => Some(thing),
            Self::Missing { .. } => None,
        }
    }
}

/// Everything that was looked for. [`Display`](fmt::Display) is a list for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The emulator.
    pub qemu: Finding<Qemu>,
    /// The kernel for machines that boot no disk of their own.
    pub kernel: Finding<Kernel>,
    /// The static busybox for the userland of such machines.
    pub busybox: Finding<PathBuf>,
    /// QEMU's image tool. No machine needs it; people who make images do.
    pub qemu_img: Finding<PathBuf>,
}

/// All that [`Report`] found, with nothing missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    /// The emulator.
    pub qemu: Qemu,
    /// The kernel.
    pub kernel: Kernel,
    /// The static busybox.
    pub busybox: PathBuf,
}

/// Something that a machine needs is missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.join("; "))]
pub struct MissingTools {
    /// What is wrong, one sentence a thing.
    pub problems: Vec<String>,
    /// What to do about it.
    pub hint: String,
}

impl Report {
    /// The tools, when a machine can be built and started with them.
    ///
    /// # Errors
    /// When something is missing; `qemu-img` is not asked for.
    pub fn require(&self) -> Result<Tools, MissingTools> {
        if let (Finding::Found(qemu), Finding::Found(kernel), Finding::Found(busybox)) =
            (&self.qemu, &self.kernel, &self.busybox)
        {
            return Ok(Tools {
                qemu: qemu.clone(),
                kernel: kernel.clone(),
                busybox: busybox.clone(),
            });
        }
        fn note<T>(finding: &Finding<T>, problems: &mut Vec<String>, hints: &mut Vec<String>) {
            if let Finding::Missing { problem, hint } = finding {
                problems.push(problem.clone());
                if !hints.contains(hint) {
                    hints.push(hint.clone());
                }
            }
        }
        let (mut problems, mut hints) = (Vec::new(), Vec::new());
        note(&self.qemu, &mut problems, &mut hints);
        note(&self.kernel, &mut problems, &mut hints);
        note(&self.busybox, &mut problems, &mut hints);
        Err(MissingTools { problems, hint: hints.join("; ") })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn line<T>(
            f: &mut fmt::Formatter<'_>,
            name: &str,
            finding: &Finding<T>,
            text: impl Fn(&T) -> String,
        ) -> fmt::Result {
            match finding {
                Finding::Found(thing) => writeln!(f, "ok       {name:<9} {}", text(thing)),
                Finding::Missing { problem, hint } => {
                    writeln!(f, "missing  {name:<9} {problem}: {hint}")
                }
            }
        }
        line(f, "qemu", &self.qemu, ToString::to_string)?;
        line(f, "kernel", &self.kernel, ToString::to_string)?;
        line(f, "busybox", &self.busybox, |path| path.display().to_string())?;
        line(f, "qemu-img", &self.qemu_img, |path| path.display().to_string())
    }
}

/// Looks for everything on this host. Runs QEMU for its version (some 20 ms), so it blocks.
#[must_use]
pub fn find() -> Report {
    Search::from_environment().report()
}

/// Where is looked.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// The folders of programs.
    pub path: Vec<PathBuf>,
    /// The cache folder, if there is one.
    pub cache: Option<PathBuf>,
    /// Why there is a cache folder that is not used.
    pub refused: Option<String>,
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
    /// Whether this host's own kernel may be used: a file in `/boot`.
    pub host_kernel: bool,
}

impl Search {
    /// As this process's environment says.
    #[must_use]
    pub fn from_environment() -> Self {
        let named = |name: &str| {
            env::var_os(name).filter(|value: &OsString| !value.is_empty()).map(PathBuf::from)
        };
        let (cache, refused) = match cache::trusted() {
            Ok(cache) => (cache, None),
            Err(error) => (None, Some(error.to_string())),
        };
        Self {
            path: env::var_os("PATH")
                .map(|path| env::split_paths(&path).collect())
                .unwrap_or_default(),
            cache,
            refused,
            qemu: named("METASERVICE_QEMU"),
            qemu_img: named("METASERVICE_QEMU_IMG"),
            kernel: named("METASERVICE_KERNEL"),
            modules: named("METASERVICE_MODULES"),
            busybox: named("METASERVICE_BUSYBOX"),
            host_kernel: true,
        }
    }

    /// Looks for everything.
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
        if let Some(why) = &self.refused {
            problem += &format!(", and the cache is not used: {why}");
        }
        Finding::missing(problem)
    }

    /// The programs of a name, in the order of preference; the named one alone if one is.
    fn candidates(&self, named: Option<&Path>, name: &str) -> impl Iterator<Item = PathBuf> {
        let folders = if named.is_some() { &[] } else { self.path.as_slice() };
        let cached = self.cache.iter().filter(|_| named.is_none()).map(|cache| cache.join("bin"));
        let found = folders.iter().cloned().chain(cached).map(|folder| folder.join(name));
        let all: Vec<_> = named.map(Path::to_owned).into_iter().chain(found).collect();
        all.into_iter().filter(|path| is_executable(path))
    }

    fn find_qemu(&self) -> Finding<Qemu> {
        let name = format!("qemu-system-{}", env::consts::ARCH);
        let mut problem = match &self.qemu {
            Some(path) => format!("{} (METASERVICE_QEMU) is no program", path.display()),
            None => format!("there is no {name}"),
        };
        for path in self.candidates(self.qemu.as_deref(), &name) {
            let shown = path.display();
            let text = match version_text(&path) {
                Ok(text) => text,
                Err(error) if is_of_limits(&error) => {
                    return Finding::Missing {
                        problem: format!("{shown} cannot be started: {error}"),
                        hint: "raise the limits of this shell or service ('ulimit -a')".into(),
                    };
                }
                Err(error) => {
                    problem = format!("{shown} does not run: {error}");
                    continue;
                }
            };
            let Some(version) = QemuVersion::parse(&text) else {
                problem = format!("{shown} does not say its version");
                continue;
            };
            if version < OLDEST_QEMU {
                problem =
                    format!("{shown} is version {version}, and {OLDEST_QEMU} or newer is needed");
                continue;
            }
            return Finding::Found(Qemu { path, version });
        }
        self.missing(problem)
    }

    fn find_busybox(&self) -> Finding<PathBuf> {
        let mut problem = match &self.busybox {
            Some(path) => format!("{} (METASERVICE_BUSYBOX) is no program", path.display()),
            None => "there is no busybox".to_owned(),
        };
        for path in self.candidates(self.busybox.as_deref(), "busybox") {
            let path_shown = path.display();
            problem = match fs::read(&path).map(|bytes| names_no_loader(&bytes)) {
                Ok(Some(true)) => return Finding::Found(path),
                Ok(Some(false)) => {
                    format!("{path_shown} needs libraries, and a static busybox is needed")
                }
                Ok(None) => format!("{path_shown} is no whole program"),
                Err(error) => format!("{path_shown} cannot be read: {error}"),
            };
        }
        self.missing(problem)
    }

    fn find_kernel(&self) -> Finding<Kernel> {
        if let Some(image) = &self.kernel {
            return named_kernel(image, self.modules.clone());
        }
        // The link is followed once, here: a newer kernel put in its place while a machine
        // starts would otherwise mix two versions.
        let cached =
            self.cache.as_ref().and_then(|cache| cache.join("kernel/current").canonicalize().ok());
        if let Some(folder) = cached {
            let (image, modules) = (folder.join("vmlinuz"), folder.join("modules"));
            if is_readable(&image) && is_readable(&modules.join("modules.dep")) {
                if !kernel::is_whole(&image) {
                    return self.missing(format!("the kernel {} is damaged", image.display()));
                }
                return Finding::Found(Kernel { image, modules: Some(modules) });
            }
        }
        if self.host_kernel {
            let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
            let image = Path::new("/boot").join(format!("vmlinuz-{}", release.trim()));
            let modules = Path::new("/lib/modules").join(release.trim());
            if is_readable(&image) && is_readable(&modules.join("modules.dep")) {
                return Finding::Found(Kernel { image, modules: Some(modules) });
            }
        }
        self.missing("there is no kernel in the cache, and none of this host's that can be read")
    }
}

/// A kernel that the caller names: its modules are beside it or where its name says.
fn named_kernel(image: &Path, modules: Option<PathBuf>) -> Finding<Kernel> {
    if !is_readable(image) {
        return Finding::Missing {
            problem: format!("the kernel {} cannot be read", image.display()),
            hint: "check METASERVICE_KERNEL".into(),
        };
    }
    let modules = modules.or_else(|| {
        let beside = image.parent().map(|folder| folder.join("modules"));
        let version = image.file_name().and_then(|name| name.to_str()?.strip_prefix("vmlinuz-"));
        let installed = version.map(|version| Path::new("/lib/modules").join(version));
        [beside, installed]
            .into_iter()
            .flatten()
            .find(|folder| is_readable(&folder.join("modules.dep")))
    });
    Finding::Found(Kernel { image: image.to_owned(), modules })
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

fn is_readable(path: &Path) -> bool {
    path.is_file() && fs::File::open(path).is_ok()
}

/// Whether a program asks for no program loader, and so for no libraries; `None` for what is no
/// program, or not a whole one.
fn names_no_loader(elf: &[u8]) -> Option<bool> {
    const INTERPRETER: u32 = 3;
    if !ends_behind_its_sections(elf)? {
        return None;
    }
    let table = usize::try_from(u64::from_le_bytes(*elf.get(32..)?.first_chunk()?)).ok()?;
    let count = u16::from_le_bytes(*elf.get(56..)?.first_chunk()?);
    for index in 0..usize::from(count) {
        let header = elf.get(table.checked_add(index * 56)?..)?;
        if u32::from_le_bytes(*header.first_chunk()?) == INTERPRETER {
            return Some(false);
        }
    }
    Some(true)
}

fn version_text(program: &Path) -> io::Result<String> {
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("it ended with {}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether this process could not start a program, whatever program it was.
fn is_of_limits(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::AGAIN | Errno::NOMEM))
}

#[cfg(test)]
mod tests;
