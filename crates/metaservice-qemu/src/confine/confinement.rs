//! The confinement of one QEMU.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;

use ::landlock::RulesetCreated;

use super::armed::{Armed, Ends, entry};
use super::enter::Entry;
use super::error::ConfineError;
use super::handshake::Held;
use super::hold::hold;
use super::needs::Needs;
use super::{landlock, steps};
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

/// Where QEMU finds the shared directory.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    held: Option<Held>,
    export: Option<Export>,
}

impl Confinement {
    /// Prepares it. Blocks for some milliseconds.
    pub(crate) fn of(needs: &Needs, host: Boundary) -> Result<Self, ConfineError> {
        let mut confinement = Self::default();
        let layer = Layer::of(host, needs.exported.is_some());
        if let Some(exported) = &needs.exported {
            let (path, refuses_others) = if layer == Layer::Namespaces {
                (PathBuf::from(steps::EXPORT), false)
            } else if host.namespaces {
                let held = hold(false, steps::of_export(exported)?, steps::EXPORT)?;
                let path = format!("/proc/self/fd/{}", held.directory.as_raw_fd());
                confinement.held = Some(held);
                (path.into(), false)
            } else {
                (exported.directory.clone(), true)
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

    /// Where QEMU finds the shared directory, if it has one.
    pub(crate) const fn export(&self) -> Option<&Export> {
        self.export.as_ref()
    }

    /// The descriptors that the command must inherit.
    pub(crate) fn take_descriptors(&mut self) -> Vec<OwnedFd> {
        self.held.take().map(|held| vec![held.directory, held.mounts]).unwrap_or_default()
    }

    /// Has the command enter it between fork and exec. It marks all descriptors as close-on-exec,
    /// so mark those to inherit after this call.
    pub(crate) fn arm(self, command: &mut Command) -> Armed {
        Armed::prepare(command, self.entry, self.rules)
    }
}
