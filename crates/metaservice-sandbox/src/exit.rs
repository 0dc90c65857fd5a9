//! Clean-up work that is done before the process ends, even if its threads are stuck.
//!
//! A [`CleanUp`] does its work when it is dropped. A stuck thread drops nothing, so [`now`] does
//! the remaining work itself and then ends the process.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

type Work = Box<dyn FnOnce() + Send>;

static WORK: Mutex<BTreeMap<u64, Work>> = Mutex::new(BTreeMap::new());
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Work that is done once: when this is dropped, or when [`now`] ends the process.
#[derive(Debug)]
pub struct CleanUp(u64);

impl CleanUp {
    /// `work` must not wait for anything.
    pub fn new(work: impl FnOnce() + Send + 'static) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        all().insert(number, Box::new(work));
        Self(number)
    }
}

impl Drop for CleanUp {
    fn drop(&mut self) {
        let work = all().remove(&self.0);
        if let Some(work) = work {
            work();
        }
    }
}

fn all() -> MutexGuard<'static, BTreeMap<u64, Work>> {
    metaservice_private::lock(&WORK)
}

/// Does the work of each remaining [`CleanUp`], then ends the process with this status. Does not
/// wait for other threads.
pub fn now(status: u8) -> ! {
    let work = std::mem::take(&mut *all());
    for work in work.into_values() {
        work();
    }
    std::process::exit(i32::from(status))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn work_is_done_once_when_it_is_dropped() {
        let done = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&done);
        let clean_up = CleanUp::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        assert_eq!(done.load(Ordering::SeqCst), 0);
        drop(clean_up);
        assert_eq!(done.load(Ordering::SeqCst), 1);
    }
}
