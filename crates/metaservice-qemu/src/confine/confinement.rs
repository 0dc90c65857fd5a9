//! The confinement of one QEMU.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use ::landlock::RulesetCreated;
use seccompiler::BpfProgram;

use super::armed::{Armed, Ends, entry};
use super::enter::Entry;
use super::error::ConfineError;
use super::handshake::Held;
use super::hold::hold;
use super::needs::{Exported, Needs};
use super::{calls, landlock, steps};
use crate::spec::boundary::Boundary;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    Namespaces,
    Landlock,
    None,
}

impl Layer {
    /// The layer for a machine, with or without a shared directory.
    pub(super) const fn of(host: Boundary, directory: bool) -> Self {
        match host {
            Boundary { privileged: true, .. } => Self::Namespaces,
            Boundary { namespaces: true, .. } if !directory => Self::Namespaces,
            Boundary { landlock: true, .. } => Self::Landlock,
            _ => Self::None,
        }
    }
}

/// The directory of a 9p device, as QEMU finds it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Export {
    pub(crate) path: PathBuf,
    /// Whether QEMU must reject other file systems below the directory.
    pub(crate) refuses_others: bool,
}

/// The confinement of one QEMU, prepared but not entered yet. The default confines nothing.
#[derive(Debug, Default)]
pub(crate) struct Confinement {
    entry: Option<(Entry, Ends)>,
    rules: Option<RulesetCreated>,
    filters: Vec<BpfProgram>,
    held: Option<Held>,
    exports: Vec<Export>,
}

impl Confinement {
    /// Prepares it. Blocks for some milliseconds.
    pub(crate) fn of(needs: &Needs, host: Boundary) -> Result<Self, ConfineError> {
        let mut confinement = Self::default();
        let shares = needs.shared().next().is_some();
        let layer = Layer::of(host, shares);
        if layer != Layer::Namespaces && host.namespaces && shares {
            confinement.held =
                Some(hold(false, steps::of_exports(&needs.exported)?, steps::EXPORT)?);
        }
        confinement.exports = exports(needs, layer, confinement.held.as_ref());
        match layer {
            Layer::Namespaces => {
                let (mut entry, ends) = entry(host.privileged, steps::of_machine(needs)?)?;
                if host.privileged {
                    entry.kept = needs.capabilities();
                }
                confinement.entry = Some((entry, ends));
                confinement.rules = landlock::no_signals();
            }
            Layer::Landlock => {
                confinement.rules = Some(landlock::rules(needs, confinement.held.as_ref())?);
            }
            Layer::None => {}
        }
        if needs.shares_writably() {
            let filters = calls::of_writable_shares().map_err(seccompiler::Error::from)?;
            confinement.filters = filters.into();
        }
        Ok(confinement)
    }

    /// The directory of each 9p device.
    pub(crate) fn exports(&self) -> &[Export] {
        &self.exports
    }

    /// The descriptors that the command must inherit.
    pub(crate) fn take_descriptors(&mut self) -> Vec<OwnedFd> {
        self.held.take().map(|held| vec![held.directory, held.mounts]).unwrap_or_default()
    }

    /// Has the command enter it between fork and exec. It marks all descriptors as close-on-exec,
    /// so mark those to inherit after this call.
    pub(crate) fn arm(self, command: &mut Command) -> Armed {
        Armed::prepare(command, self.entry, self.rules, self.filters)
    }
}

/// Where QEMU finds the directory of each 9p device.
fn exports(needs: &Needs, layer: Layer, held: Option<&Held>) -> Vec<Export> {
    let base = match (layer, held) {
        (Layer::Namespaces, _) => Some(PathBuf::from(steps::EXPORT)),
        (_, Some(held)) => Some(format!("/proc/self/fd/{}", held.directory.as_raw_fd()).into()),
        (_, None) => None,
    };
    let export = |(number, exported): (usize, &Option<Exported>)| match &base {
        Some(base) => Export { path: base.join(number.to_string()), refuses_others: false },
        None => {
            let directory = exported.as_ref().map(|exported| exported.directory.as_path());
            let path = directory.or(needs.empty.as_deref()).unwrap_or(Path::new(steps::EXPORT));
            Export { path: path.to_owned(), refuses_others: true }
        }
    };
    needs.exported.iter().enumerate().map(export).collect()
}
