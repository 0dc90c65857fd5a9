//! Kernel modules, in the order in which the host has listed them.
//!
//! Owns the lists' format. Which modules, and in which order, was worked out on the host, where
//! their dependencies can be read and their files decompressed.
//!
//! Loading one costs an emulated machine tens of milliseconds, so those that no command waits for
//! (the power button and the like) have a list of their own, and are loaded beside the agent.

use std::ffi::CString;
use std::fs::{self, File};

use rustix::io::Errno;

use crate::diagnostics::say;

const LIST: &str = "/lib/metaservice/modules";

const LATER: &str = "/lib/metaservice/modules.later";

/// How far the loading beside the agent stands back.
const NICE: i32 = 19;

/// A module that has been found.
struct Module {
    path: String,
    file: File,
    parameters: CString,
}

/// Loads the modules without which there is no agent.
pub(super) fn load() {
    found(LIST).iter().for_each(Module::load);
}

/// Modules to be loaded when the agent has been started.
pub(super) struct Later(Vec<Module>);

impl Later {
    /// Opens them, while the root is where they are.
    pub(super) fn open() -> Self {
        Self(found(LATER))
    }

    /// Loads them, and lets whoever else wants the processor have most of it.
    pub(super) fn load(self) {
        let nicer = rustix::process::nice(NICE).is_ok();
        self.0.iter().for_each(Module::load);
        if nicer {
            let _ = rustix::process::nice(-NICE);
        }
    }
}

/// The modules of a list. One that cannot be opened is named and passed over.
fn found(list: &str) -> Vec<Module> {
    let list = fs::read_to_string(list).unwrap_or_default();
    let open = |(path, parameters): (&str, &str)| match File::open(path) {
        Ok(file) => {
            let parameters = CString::new(parameters).unwrap_or_default();
            Some(Module { path: path.to_owned(), file, parameters })
        }
        Err(error) => {
            say(&format!("cannot load the kernel module {path}: {error}"));
            None
        }
    };
    parse(&list).filter_map(open).collect()
}

impl Module {
    /// One that cannot be loaded is named and passed over: a machine without a power button can
    /// still run a job.
    fn load(&self) {
        match rustix::system::finit_module(&self.file, &self.parameters, 0) {
            // Built in, or loaded for another.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => say(&format!("cannot load the kernel module {}: {error}", self.path)),
        }
    }
}

/// Absolute paths, each with its parameters.
fn parse(list: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = list.lines().map(str::trim).filter(|line| line.starts_with('/'));
    lines.map(|line| match line.split_once(char::is_whitespace) {
        Some((path, parameters)) => (path, parameters.trim_start()),
        None => (line, ""),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_path_and_its_parameters() {
        let list = "/lib/a.ko\n\n  /lib/b.ko  x=1 y=2 \nrelative.ko\n# comment\n/lib/c.ko\n";
        let modules: Vec<_> = parse(list).collect();
        assert_eq!(modules, [("/lib/a.ko", ""), ("/lib/b.ko", "x=1 y=2"), ("/lib/c.ko", "")]);
    }
}
