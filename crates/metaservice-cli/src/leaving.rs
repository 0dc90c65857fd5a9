//! What is put in order when the process ends, however it ends.
//!
//! A [`CleanUp`] does its work when it is dropped. A process that is stuck drops nothing any
//! longer: [`leave`] does what is left, and ends it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use metaservice_private::lock;

type Work = Box<dyn FnOnce() + Send>;

static WORK: Mutex<BTreeMap<u64, Work>> = Mutex::new(BTreeMap::new());
static NEXT: AtomicU64 = AtomicU64::new(0);
static OVER: AtomicBool = AtomicBool::new(false);

/// Work that is done once, when this is dropped or when the process is ended by [`leave`].
pub(crate) struct CleanUp(u64);

impl CleanUp {
    /// `work` must not wait for anything.
    pub(crate) fn new(work: impl FnOnce() + Send + 'static) -> Self {
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
    lock(&WORK)
}

/// The verb has ended: only its last words are still to be written.
pub(crate) fn is_over() {
    OVER.store(true, Ordering::SeqCst);
}

/// Whether [`is_over`] was called.
pub(crate) fn over() -> bool {
    OVER.load(Ordering::SeqCst)
}

/// Ends the process with this status at once, whatever its threads wait for.
pub(crate) fn leave(status: u8) -> ! {
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
        let clean_up =
            CleanUp::new(move || count.store(count.load(Ordering::SeqCst) + 1, Ordering::SeqCst));
        assert_eq!(done.load(Ordering::SeqCst), 0);
        drop(clean_up);
        assert_eq!(done.load(Ordering::SeqCst), 1);
    }
}
