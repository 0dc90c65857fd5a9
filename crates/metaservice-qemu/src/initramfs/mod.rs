//! Builds the initramfs of a machine: an init program, the kernel modules that it loads, and a
//! busybox userland.
//!
//! Owns the layout that kernel and init find, and the cache of built files. It does not know what
//! the init is: the caller gives its bytes.
//!
//! | path | content |
//! | --- | --- |
//! | `/init` | the program of the caller |
//! | `/lib/metaservice/modules` | the modules in load order, one absolute path a line |
//! | `/lib/metaservice/modules.later` | the modules that no command waits for |
//! | `/bin/busybox` | the userland; each applet is a link to it |
//! | `/etc/passwd`, `group`, `hosts`, `profile` | the minimum that programs need |
//! | `/proc /sys /dev /run /tmp /root /sysroot` | empty directories to mount over |
//!
//! The archive is not compressed. A guest under emulation boots no faster from a smaller one (gzip:
//! the same, xz: 0.1 s slower), and the build would take longer.

mod cpio;
pub(crate) mod modules;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use metaservice_private::Location;

use crate::cache;
use crate::cache::boot_file::BootFile;
use crate::cache::key::Key;
use crate::find::report::Tools;
use crate::initramfs::cpio::Archive;
use crate::initramfs::modules::{ModuleError, ModuleIndex, ModuleNeed, read_module};

/// Changes with the layout, so that no file with an older layout is used.
const LAYOUT: &[u8] = b"2";

/// The largest init program: 128 MiB.
const MAX_INIT: usize = 128 * 1024 * 1024;

/// The content of an initramfs.
#[derive(Debug, Clone)]
pub struct Contents {
    init: Vec<u8>,
    busybox: PathBuf,
    modules: Option<PathBuf>,
    needs: BTreeSet<ModuleNeed>,
    cache: Location,
}

impl Contents {
    /// `init` becomes `/init`. Modules and busybox come from `tools`.
    #[must_use]
    pub fn new(init: Vec<u8>, tools: &Tools) -> Self {
        Self {
            init,
            busybox: tools.busybox.clone(),
            modules: tools.kernel.modules.clone(),
            needs: [ModuleNeed::Base].into(),
            cache: Location::Cache("initramfs"),
        }
    }

    /// Adds the modules for another purpose than the network.
    #[must_use]
    pub fn need(mut self, need: ModuleNeed) -> Self {
        self.needs.insert(need);
        self
    }

    /// Keeps built files in `directory` instead of the user's cache.
    #[must_use]
    pub fn cache(mut self, directory: impl Into<PathBuf>) -> Self {
        self.cache = Location::At(directory.into());
        self
    }
}

/// An initramfs that cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitramfsError {
    /// A kernel module is missing or damaged.
    #[error("cannot take the kernel's modules into the initramfs")]
    Modules(#[from] ModuleError),
    /// Busybox does not list its applets.
    #[error("{path} does not list its applets")]
    Busybox {
        /// The program.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write the initramfs")]
    Write(#[from] io::Error),
    /// The init program is too large.
    #[error("an init program of {0} bytes is too large")]
    InitTooLarge(usize),
}

/// Builds an initramfs, or finds one with the same content in the cache.
///
/// Blocks: about 100 ms the first time, later a few. Processes may build at the same time. The
/// cache keeps the most recently used files. If the cache cannot be written, the file is a
/// temporary one, which is removed with the result.
///
/// # Errors
/// If a required module is missing, busybox does not run, or nothing can be written.
pub fn build(contents: &Contents) -> Result<BootFile, InitramfsError> {
    if contents.init.len() > MAX_INIT {
        return Err(InitramfsError::InitTooLarge(contents.init.len()));
    }
    let modules = match &contents.modules {
        Some(directory) => Modules::choose(&ModuleIndex::read(directory)?, &contents.needs)?,
        None => Modules::default(),
    };
    let mut key = Key::default();
    key.bytes(LAYOUT).bytes(&contents.init).file(&contents.busybox)?;
    for module in &modules.all {
        let read = |source| ModuleError::Read { path: module.clone(), source };
        key.file(module).map_err(read)?;
    }
    cache::get_or_make(&contents.cache, key, "cpio", |output| write(output, contents, &modules))
}

/// Modules in load order.
#[derive(Default)]
struct Modules {
    all: Vec<PathBuf>,
    /// The number of modules that the agent needs. They come first.
    first: usize,
}

impl Modules {
    fn choose(index: &ModuleIndex, needs: &BTreeSet<ModuleNeed>) -> Result<Self, ModuleError> {
        let first = index.in_load_order(needs)?.len();
        // `Later` is the last need, so it does not change the order of the others.
        let mut needs = needs.clone();
        needs.insert(ModuleNeed::Later);
        Ok(Self { all: index.in_load_order(&needs)?, first })
    }
}

fn write(
    output: &mut dyn Write,
    contents: &Contents,
    modules: &Modules,
) -> Result<(), InitramfsError> {
    let mut archive = Archive::new(output);
    for directory in [
        "/proc",
        "/sys",
        "/dev",
        "/run",
        "/etc",
        "/sysroot",
        "/bin",
        "/sbin",
        "/usr/bin",
        "/usr/sbin",
    ] {
        archive.directory(directory, 0o755)?;
    }
    archive.directory("/tmp", 0o1777)?;
    archive.directory("/root", 0o700)?;
    // The kernel opens it as the init's standard streams.
    archive.character_device("/dev/console", 0o600, (5, 1))?;
    archive.file("/init", 0o755, &contents.init)?;

    archive.file(
        "/etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    )?;
    archive.file("/etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
    archive.file("/etc/hosts", 0o644, b"127.0.0.1 localhost\n::1 localhost\n")?;
    archive.file("/etc/profile", 0o644, b"export PATH=/usr/sbin:/usr/bin:/sbin:/bin\n")?;

    let mut lists = [String::new(), String::new()];
    for (number, path) in modules.all.iter().enumerate() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.split(".ko").next().unwrap_or_default();
        let in_guest = format!("/lib/metaservice/{name}.ko");
        archive.file(&in_guest, 0o644, &read_module(path)?)?;
        let list = &mut lists[usize::from(number >= modules.first)];
        list.push_str(&in_guest);
        list.push('\n');
    }
    archive.file("/lib/metaservice/modules", 0o644, lists[0].as_bytes())?;
    archive.file("/lib/metaservice/modules.later", 0o644, lists[1].as_bytes())?;

    archive.file("/bin/busybox", 0o755, &std::fs::read(&contents.busybox)?)?;
    for applet in applets(&contents.busybox)? {
        archive.link(&applet, "/bin/busybox")?;
    }
    archive.finish()?;
    Ok(())
}

/// The absolute paths of busybox's applets.
fn applets(busybox: &Path) -> Result<Vec<String>, InitramfsError> {
    let failed = |source| InitramfsError::Busybox { path: busybox.to_owned(), source };
    let output = Command::new(busybox)
        .arg("--list-full")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .map_err(failed)?;
    let list = String::from_utf8_lossy(&output.stdout);
    let applets = parse_applets(&list);
    if !output.status.success() || applets.is_empty() {
        return Err(failed(io::Error::other(format!("--list-full ended with {}", output.status))));
    }
    Ok(applets)
}

fn parse_applets(list: &str) -> Vec<String> {
    let directories = ["bin", "sbin", "usr/bin", "usr/sbin"];
    list.lines()
        .map(|line| line.trim().trim_start_matches('/'))
        .filter(|path| {
            path.rsplit_once('/').is_some_and(|(directory, name)| {
                directories.contains(&directory) && !name.is_empty()
            })
        })
        .map(|path| format!("/{path}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::elf::module;

    fn contents(directory: &Path) -> Contents {
        let busybox = directory.join("busybox");
        fs::write(&busybox, "#!/bin/sh\nprintf 'usr/bin/[\\nbin/sh\\nlinuxrc\\nbin/../x\\n'\n")
            .unwrap();
        fs::set_permissions(&busybox, fs::Permissions::from_mode(0o755)).unwrap();
        let modules = directory.join("modules");
        fs::create_dir(&modules).unwrap();
        fs::write(
            modules.join("modules.dep"),
            "virtio_net.ko: virtio.ko\nvirtio.ko:\nevdev.ko: virtio.ko\n",
        )
        .unwrap();
        fs::write(modules.join("modules.builtin"), "kernel/virtio_pci.ko\n").unwrap();
        fs::write(modules.join("virtio_net.ko"), module("net module")).unwrap();
        fs::write(modules.join("virtio.ko"), module("bus module")).unwrap();
        fs::write(modules.join("evdev.ko"), module("input module")).unwrap();
        Contents {
            init: b"the init".to_vec(),
            busybox,
            modules: Some(modules),
            needs: [ModuleNeed::Base].into(),
            cache: Location::At(directory.join("cache")),
        }
    }

    #[test]
    fn everything_is_in_it_and_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let built = fs::read(build(&contents(directory.path())).unwrap().path()).unwrap();
        let text = String::from_utf8_lossy(&built);
        for part in [
            "the init",
            "net module",
            "bus module",
            "input module",
            "/lib/metaservice/virtio.ko\n/lib/metaservice/virtio_net.ko\n\0",
            "modules.later\0",
            "\0/lib/metaservice/evdev.ko\n",
        ] {
            assert!(text.contains(part), "{part}");
        }
        assert!(text.contains("usr/bin/[\0") && text.contains("bin/sh\0"));
        assert!(!text.contains("linuxrc\0"), "only what belongs into a directory of programs");
    }

    #[test]
    fn the_same_things_give_the_same_file_and_others_another() {
        let directory = tempfile::tempdir().unwrap();
        let mut contents = contents(directory.path());
        let first = build(&contents).unwrap();
        let bytes = fs::read(first.path()).unwrap();
        assert_eq!(build(&contents).unwrap(), first);
        fs::remove_file(first.path()).unwrap();
        assert_eq!(
            fs::read(build(&contents).unwrap().path()).unwrap(),
            bytes,
            "no time and no chance gets in"
        );
        contents.init = b"another".to_vec();
        assert_ne!(build(&contents).unwrap(), first);
    }

    #[test]
    fn a_missing_module_leaves_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let contents = contents(directory.path()).need(ModuleNeed::SharedDirectory);
        assert!(matches!(
            build(&contents),
            Err(InitramfsError::Modules(ModuleError::Missing { .. }))
        ));
        assert!(!directory.path().join("cache").exists());
    }

    #[test]
    fn applets_outside_of_program_directories_are_left_out() {
        assert_eq!(
            parse_applets("bin/sh\n/usr/sbin/x\nlinuxrc\nusr/lib/y\nbin/\nbin/../sh\n"),
            ["/bin/sh", "/usr/sbin/x"]
        );
    }
}
