//! The limit of open files: raised for this process, and as it was for its children.
//!
//! A guest's connections are descriptors of this process. Files that a guest opens in a shared
//! folder are QEMU's: the usual limit bounds them, and QEMU closes what is not in use below it.

use std::io;
use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a child can count on, where the hard limit allows it.
const USUAL: u64 = 1024;

static BEGUN: OnceLock<Rlimit> = OnceLock::new();

/// Raises the limit of open files as far as the kernel lets this process, and says where it is;
/// `None` where there is none.
pub fn raise_descriptors() -> Option<u64> {
    let begun = getrlimit(Resource::Nofile);
    let _ = BEGUN.set(begun);
    // It may be refused: then there are fewer connections.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: begun.maximum, ..begun });
    getrlimit(Resource::Nofile).current
}

/// Sets a child's limit to what it was before [`raise_descriptors`], or to the usual where that
/// is more. To be called between fork and exec: it makes one system call.
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
