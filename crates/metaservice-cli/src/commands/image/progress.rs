//! Work on large files, with a progress bar and a way to interrupt it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use metaservice_image::{Observer, StoreError};

use crate::interrupts::{Interrupt, Interrupts};
use crate::output::printer::Printer;

/// Does work on large files, with a progress bar. An interrupt stops the work, which then removes
/// the files that it created.
pub(super) async fn with_progress<T: Send + 'static>(
    printer: Printer,
    what: &str,
    total: Option<u64>,
    interrupts: &mut Interrupts,
    work: impl FnOnce(Observer<'_>) -> Result<T, StoreError> + Send + 'static,
) -> Result<Result<T, Interrupt>, StoreError> {
    let progress = printer.progress(what, total);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let mut working = tokio::task::spawn_blocking(move || {
        work(&mut |bytes| {
            progress.count(bytes);
            if stopped.load(Ordering::Relaxed) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
    });
    let mut interrupted = None;
    let done = tokio::select! {
        done = &mut working => done,
        interrupt = interrupts.next() => {
            stop.store(true, Ordering::Relaxed);
            interrupted = Some(interrupt);
            working.await
        }
    };
    match (done.unwrap_or(Err(StoreError::Stopped)), interrupted) {
        (Err(StoreError::Stopped), Some(interrupt)) => Ok(Err(interrupt)),
        (done, _) => done.map(Ok),
    }
}
