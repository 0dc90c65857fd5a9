//! Kernel modules, in the order in which the host has listed them.
//!
//! Owns the list's format. Which modules, and in which order, was worked out on the host, where
//! their dependencies can be read and their files decompressed.

use std::ffi::CString;
use std::fs::{self, File};

use rustix::io::Errno;

use crate::words::say;

const LIST: &str = "/lib/metaservice/modules";

/// Loads every module of the list. One that cannot be loaded is named and passed over: a
/// machine without a power button can still run a job.
pub(super) fn load() {
    let list = fs::read_to_string(LIST).unwrap_or_default();
    for (path, parameters) in parse(&list) {
        let loaded = File::open(path).map_err(|error| error.to_string()).and_then(|file| {
            let parameters = CString::new(parameters).unwrap_or_default();
            match rustix::system::finit_module(&file, &parameters, 0) {
                // Built in, or loaded for another.
                Ok(()) | Err(Errno::EXIST) => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        });
        if let Err(error) = loaded {
            say(&format!("cannot load the kernel module {path}: {error}"));
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
