//! What QEMU gets of its host: a second boundary behind QEMU itself.
//!
//! Owns the choice between what this host offers, and who does which part of it.
//!
//! | who starts it | machine | folder of the host that it exports |
//! | --- | --- | --- |
//! | root | mounts of its own with what it needs, a user namespace without capabilities | a mount of that folder alone, without others below it |
//! | a user who may make user namespaces | the same | a folder among mounts of its own; QEMU by Landlock |
//! | any other | Landlock | the folder itself, other file systems refused; Landlock |
//! | no Landlock either | nothing but QEMU's own system call filter | other file systems refused |
//!
//! An ordinary user's namespace knows one user: QEMU within would show the guest all files of
//! others, root's too, as those of nobody. So a QEMU with a folder stays outside.

mod enter;
mod handshake;
mod landlock;
mod mounts;
mod needs;
mod steps;

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};

use ::landlock::RulesetCreated;
use rustix::thread::CapabilitySet;

use self::enter::Entry;
use self::handshake::{Held, Seen};
use self::steps::Step;

pub use self::enter::without_descriptors;
pub(crate) use self::needs::Needs;

/// Folders to mount the new root over: any will do.
const BASES: [&str; 4] = ["/tmp", "/usr", "/dev", "/"];

/// What this host offers to confine QEMU with. [`Display`](fmt::Display) says it to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boundary {
    /// Whether mounts can be made for a process.
    namespaces: bool,
    /// Whether without a user namespace.
    privileged: bool,
    landlock: bool,
    /// Whether it keeps signals too.
    signals: bool,
}

impl Boundary {
    /// No boundary but QEMU's own system call filter: for a QEMU with devices that this crate does
    /// not know, as in a measurement. Never for a guest that is not trusted.
    pub const NONE: Self =
        Self { namespaces: false, privileged: false, landlock: false, signals: false };

    /// Looks, once for each process: forks and lets the child try. Blocks for some milliseconds.
    #[must_use]
    pub fn of_host() -> Self {
        static FOUND: OnceLock<Boundary> = OnceLock::new();
        *FOUND.get_or_init(|| {
            let privileged =
                rustix::process::geteuid().is_root() && hold(true, Vec::new(), "/").is_ok();
            let namespaces = privileged || hold(false, Vec::new(), "/").is_ok();
            let (landlock, signals) = (landlock::is_there(), landlock::no_signals().is_some());
            Self { namespaces, privileged, landlock, signals }
        })
    }

    /// Whether QEMU gets a second boundary in any case.
    #[must_use]
    pub const fn is_complete(self) -> bool {
        self.privileged || self.landlock
    }

    /// How a machine is confined, with a folder of the host or without.
    const fn layer(self, folder: bool) -> Layer {
        match self {
            Self { privileged: true, .. } => Layer::Namespaces,
            Self { namespaces: true, .. } if !folder => Layer::Namespaces,
            Self { landlock: true, .. } => Layer::Landlock,
            _ => Layer::None,
        }
    }
}

impl fmt::Display for Boundary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.namespaces, self.privileged, self.landlock) {
            (true, true, _) => "QEMU runs in namespaces of its own, without capabilities",
            (true, false, true) => {
                "QEMU runs in namespaces of its own; with --rootfs under Landlock rules"
            }
            (true, false, false) => {
                "QEMU runs in namespaces of its own; with --rootfs it is not confined: this host \
                 has no Landlock"
            }
            (false, _, true) => {
                "QEMU runs under Landlock rules: this host allows you no user namespaces. With \
                 --rootfs the guest sees the names of hidden files"
            }
            (false, _, false) => {
                "QEMU is not confined, and --rootfs hides no files: this host allows you no user \
                 namespaces and has no Landlock"
            }
        })?;
        if self.signals {
            return Ok(());
        }
        f.write_str("; it could send signals to your processes, which Linux 6.12 prevents")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    Namespaces,
    Landlock,
    None,
}

/// How QEMU finds the folder that it exports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Export {
    pub(crate) path: PathBuf,
    /// Whether it refuses file systems below the folder.
    pub(crate) refuses_others: bool,
}

/// The confinement of one QEMU, prepared and not yet entered. The default is none.
#[derive(Debug, Default)]
pub(crate) struct Confinement {
    entry: Option<(Entry, Ends)>,
    rules: Option<RulesetCreated>,
    held: Option<Held>,
    export: Option<Export>,
}

/// Both ends of the conversation with a child.
#[derive(Debug)]
struct Ends {
    parent: UnixStream,
    child: UnixStream,
}

/// A host that does not keep what it offers.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// A child could not be confined.
    #[error("cannot confine QEMU")]
    Io(#[from] io::Error),
    /// A step of it failed.
    #[error("cannot confine QEMU: {step}")]
    Step {
        /// Which.
        step: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Landlock's rules could not be made.
    #[error("cannot confine QEMU by Landlock rules")]
    Landlock(#[from] ::landlock::RulesetError),
}

impl Confinement {
    /// Prepares it. Blocks, for some milliseconds.
    pub(crate) fn of(needs: &Needs, host: Boundary) -> Result<Self, ConfineError> {
        let mut confinement = Self::default();
        let layer = host.layer(needs.exported.is_some());
        if let Some(exported) = &needs.exported {
            let (path, refuses_others) = if layer == Layer::Namespaces {
                (PathBuf::from(steps::EXPORT), false)
            } else if host.namespaces {
                let held = hold(false, steps::of_export(exported)?, steps::EXPORT)?;
                let path = format!("/proc/self/fd/{}", held.folder.as_raw_fd());
                confinement.held = Some(held);
                (path.into(), false)
            } else {
                (exported.folder.clone(), true)
            };
            confinement.export = Some(Export { path, refuses_others });
        }
        match layer {
            Layer::Namespaces => {
                let steps = steps::of_machine(needs, needs.exported.is_some())?;
                let (mut entry, ends) = entry(host.privileged, steps)?;
                entry.network = needs.network;
                if host.privileged {
                    entry.kept = needs.capabilities();
                }
                confinement.entry = Some((entry, ends));
                confinement.rules = landlock::no_signals();
            }
            Layer::Landlock => confinement.rules = Some(landlock::rules(needs)?),
            Layer::None => {}
        }
        Ok(confinement)
    }

    /// How QEMU finds the folder that it exports, if it does.
    pub(crate) const fn export(&self) -> Option<&Export> {
        self.export.as_ref()
    }

    /// The descriptors that the command has to inherit.
    pub(crate) fn take_descriptors(&mut self) -> Vec<OwnedFd> {
        self.held.take().map(|held| vec![held.folder, held.mounts]).unwrap_or_default()
    }

    /// Has the command enter it between fork and exec. What the command is to inherit is marked
    /// behind this: here all descriptors are marked to be closed.
    pub(crate) fn arm(self, command: &mut Command) -> Armed {
        let Self { entry, rules, .. } = self;
        let (entry, ends) = entry.unzip();
        let steps = entry.as_ref().map(|entry| Arc::clone(&entry.steps)).unwrap_or_default();
        let privileged = entry.as_ref().is_some_and(|entry| entry.privileged);
        enter::prepare(command, entry);
        Armed { ends, rules, steps, privileged }
    }
}

/// A command that enters its confinement when it is started.
#[derive(Debug)]
pub(crate) struct Armed {
    ends: Option<Ends>,
    rules: Option<RulesetCreated>,
    steps: Arc<[Step]>,
    privileged: bool,
}

impl Armed {
    /// Starts the command. The calling thread is under the same Landlock rules, and the command
    /// dies with it.
    pub(crate) fn spawn(self, command: &mut Command) -> Result<Child, ConfineError> {
        let (spawned, _) = self.run(command);
        spawned
    }

    fn run(self, command: &mut Command) -> (Result<Child, ConfineError>, Seen) {
        let Self { ends, rules, steps, privileged } = self;
        if let Some(Err(error)) = rules.map(RulesetCreated::restrict_self) {
            return (Err(error.into()), Seen::default());
        }
        let Some(Ends { parent, child }) = ends else {
            return (command.spawn().map_err(ConfineError::Io), Seen::default());
        };
        let usher = std::thread::Builder::new().name("usher".into());
        let usher = match usher.spawn(move || handshake::attend(parent, privileged)) {
            Ok(usher) => usher,
            Err(error) => return (Err(error.into()), Seen::default()),
        };
        let spawned = command.spawn();
        // The usher ends when nobody has this end any more.
        drop(child);
        let seen = usher.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
        match (spawned, seen) {
            (Ok(child), seen) => (Ok(child), seen.unwrap_or_default()),
            (Err(_), Err(error)) => (Err(error.into()), Seen::default()),
            (Err(source), Ok(seen)) => {
                let failed = seen.failed.and_then(|number| steps.get(number));
                let error = match failed {
                    Some(step) => ConfineError::Step { step: format!("{step:?}"), source },
                    None => source.into(),
                };
                (Err(error), seen)
            }
        }
    }
}

/// Has a child make mounts, and takes the folder over from it. The child is gone then.
fn hold(privileged: bool, steps: Vec<Step>, folder: &str) -> Result<Held, ConfineError> {
    // It is never executed.
    let mut command = Command::new("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let (mut entry, ends) = entry(privileged, steps)?;
    entry.waits_at = Some(CString::new(folder).map_err(io::Error::from)?);
    let confinement = Confinement { entry: Some((entry, ends)), ..Confinement::default() };
    let (spawned, seen) = confinement.arm(&mut command).run(&mut command);
    match (seen.held, spawned) {
        (Some(held), _) => Ok(held),
        (None, Err(error)) => Err(error),
        (None, Ok(mut child)) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(ConfineError::Io(io::ErrorKind::Other.into()))
        }
    }
}

fn entry(privileged: bool, steps: Vec<Step>) -> io::Result<(Entry, Ends)> {
    let (parent, child) = UnixStream::pair()?;
    let base = BASES.iter().find(|base| Path::new(base).is_dir()).unwrap_or(&"/");
    let entry = Entry {
        child: child.as_raw_fd(),
        parent: parent.as_raw_fd(),
        privileged,
        network: false,
        base: CString::new(*base)?,
        steps: steps.into(),
        waits_at: None,
        kept: CapabilitySet::empty(),
    };
    Ok((entry, Ends { parent, child }))
}

#[cfg(test)]
mod tests;
