//! The limit of open files: raised for this process, and restored for its children.
//!
//! Each connection of a guest is a descriptor of this process. Files that a guest opens in a shared
//! directory are descriptors of QEMU. There the usual limit applies, and QEMU closes files that are
//! not in use.

use std::io;
use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limit that a child can rely on, if the hard limit allows it.
const USUAL: u64 = 1024;

static BEGUN: OnceLock<Rlimit> = OnceLock::new();

/// Raises the limit of open files as far as possible, and returns it. `None` if there is no limit.
pub fn raise_descriptors() -> Option<u64> {
    let begun = getrlimit(Resource::Nofile);
    let _ = BEGUN.set(begun);
    // If it fails, fewer connections are possible.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: begun.maximum, ..begun });
    getrlimit(Resource::Nofile).current
}

/// Restores the limit that this process had before [`raise_descriptors`] for a child, or sets the
/// usual limit if that is higher. For use between fork and exec: it makes one system call.
pub(crate) fn lower_descriptors() -> io::Result<()> {
    match BEGUN.get() {
        Some(begun) => Ok(setrlimit(Resource::Nofile, of_child(*begun))?),
        None => Ok(()),
    }
}

fn of_child(begun: Rlimit) -> Rlimit {
    let usual = begun.maximum.map_or(USUAL, |most| most.min(USUAL));
    Rlimit { current: begun.current.map(|begun| begun.max(usual)), ..begun }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_has_the_limit_of_before_or_the_usual_one() {
        let child = |current, maximum| of_child(Rlimit { current, maximum }).current;
        assert_eq!(child(Some(1024), Some(1 << 20)), Some(1024));
        assert_eq!(child(Some(4096), Some(1 << 20)), Some(4096));
        assert_eq!(child(Some(20), Some(1 << 20)), Some(1024));
        assert_eq!(child(Some(20), Some(100)), Some(100));
        assert_eq!(child(Some(20), None), Some(1024));
        assert_eq!(child(None, None), None);
    }
}
