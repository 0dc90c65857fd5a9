//! Kernel modules, in the order that the host has computed.
//!
//! Owns the format of the lists. The host chooses the modules and their order, because it can read
//! their dependencies and decompress their files.
//!
//! Loading a module takes an emulated machine tens of milliseconds. So modules that no command
//! waits for, such as the power button, have a list of their own and are loaded after the agent's
//! start.

use std::ffi::CString;
use std::fs::{self, File};

use rustix::io::Errno;

use crate::diagnostics::print;

const LIST: &str = "/lib/metaservice/modules";

const DEFERRED_LIST: &str = "/lib/metaservice/modules.later";

/// The nice value while deferred modules are loaded, so that the agent gets the processor first.
const NICE: i32 = 19;

/// A module whose file is open.
struct Module {
    path: String,
    file: File,
    parameters: CString,
}

/// Loads the modules that the agent needs.
pub(super) fn load() {
    open(LIST).iter().for_each(Module::load);
}

/// Modules to load after the agent's start.
pub(super) struct DeferredModules(Vec<Module>);

impl DeferredModules {
    /// Opens the files, before the root is changed.
    pub(super) fn open() -> Self {
        Self(open(DEFERRED_LIST))
    }

    /// Loads the modules with the lowest priority.
    pub(super) fn load(self) {
        let nicer = rustix::process::nice(NICE).is_ok();
        self.0.iter().for_each(Module::load);
        if nicer {
            let _ = rustix::process::nice(-NICE);
        }
    }
}

/// Opens the modules of a list. Prints which one cannot be opened, and skips it.
fn open(list: &str) -> Vec<Module> {
    let list = fs::read_to_string(list).unwrap_or_default();
    let open = |(path, parameters): (&str, &str)| match File::open(path) {
        Ok(file) => {
            let parameters = CString::new(parameters).unwrap_or_default();
            Some(Module { path: path.to_owned(), file, parameters })
        }
        Err(error) => {
            print(&format!("cannot load the kernel module {path}: {error}"));
            None
        }
    };
    parse(&list).filter_map(open).collect()
}

impl Module {
    /// Loads the module. Prints an error and continues: a machine without a power button can still
    /// run a job.
    fn load(&self) {
        match rustix::system::finit_module(&self.file, &self.parameters, 0) {
            // It is built in, or was loaded before.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => print(&format!("cannot load the kernel module {}: {error}", self.path)),
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
