//! Signals that ask this process to end.
//!
//! This module owns SIGINT, SIGTERM and SIGHUP. The first signal ends the job gracefully. The
//! second one ends the process within [`LAST`].
//!
//! A separate thread waits for the signals, so that this works even if all other threads block.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as sync;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use metaservice_sandbox::exit;

use crate::status::ExitStatus;

/// How long the process may take to end gracefully after the second signal.
const LAST: Duration = Duration::from_millis(700);

/// The number of SIGHUP.
const HANG_UP: u8 = 1;

/// A receiver of the signals that ask for an end.
pub(crate) struct Interrupts {
    receiver: mpsc::UnboundedReceiver<Interrupt>,
    last: Option<Interrupt>,
}

/// A signal that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interrupt {
    /// The number, for the exit status.
    pub(crate) number: u8,
    /// The name, with SIG.
    pub(crate) name: &'static str,
}

/// Whether the verb has ended, so that only queued output is left to write.
static OVER: AtomicBool = AtomicBool::new(false);

/// Marks the verb as ended: from now on, one signal ends the process at once.
pub(crate) fn verb_is_over() {
    OVER.store(true, Ordering::SeqCst);
}

/// Lets one signal end the process at once, with its clean-up, as the default would without it. For
/// a verb that does not wait for signals, and that leaves something if it is killed.
pub(crate) fn leave_at_once() -> Result<()> {
    Interrupts::listen()?;
    verb_is_over();
    Ok(())
}

fn is_over() -> bool {
    OVER.load(Ordering::SeqCst)
}

/// Returns the name of a signal that ends a job.
pub(crate) fn signal_name(number: u8) -> &'static str {
    match number {
        HANG_UP => "SIGHUP",
        2 => "SIGINT",
        _ => "SIGTERM",
    }
}

impl Interrupts {
    /// Starts to receive the signals. They no longer end the process by default.
    pub(crate) fn listen() -> Result<Self> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let (ready, listening) = sync::channel();
        let watch = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = match runtime.context("cannot listen for signals") {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(error))),
            };
            runtime.block_on(async {
                match Signals::listen() {
                    Ok(signals) => {
                        let _ = ready.send(Ok(()));
                        signals.watch(&sender).await;
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
            });
        };
        let thread = std::thread::Builder::new().name("signals".to_owned()).spawn(watch);
        thread.context("cannot listen for signals")?;
        listening.recv().context("cannot listen for signals")??;
        Ok(Self { receiver, last: None })
    }

    /// Returns the last signal that [`Self::next`] has returned.
    pub(crate) fn last(&self) -> Option<Interrupt> {
        self.last
    }

    /// Waits for the next signal.
    /// Cancellation: dropping the future loses no signal.
    pub(crate) async fn next(&mut self) -> Interrupt {
        match self.receiver.recv().await {
            Some(interrupt) => {
                self.last = Some(interrupt);
                interrupt
            }
            // The thread lives as long as the process, so this does not happen.
            None => std::future::pending().await,
        }
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// `None` if the process was started with SIGHUP ignored, as by `nohup`.
    hang_up: Option<Signal>,
}

impl Signals {
    fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: match is_ignored(HANG_UP) {
                true => None,
                false => Some(listen(SignalKind::hangup())?),
            },
        })
    }

    async fn watch(mut self, sender: &mpsc::UnboundedSender<Interrupt>) {
        let mut urgency = Urgency::default();
        let mut deadline: Option<(Instant, u8)> = None;
        loop {
            let interrupt = tokio::select! {
                interrupt = self.next() => interrupt,
                () = until(deadline.map(|(at, _)| at)) => {
                    let number = deadline.map_or(0, |(_, number)| number);
                    exit::now(ExitStatus::signal(number).0)
                }
            };
            let step = urgency.take(interrupt.number, is_over());
            if step == Step::Leave && deadline.is_none() {
                let left = if is_over() { Duration::ZERO } else { LAST };
                deadline = Some((Instant::now() + left, interrupt.number));
            }
            if step != Step::Ignore {
                // If there is no receiver, the verb is about to end.
                let _ = sender.send(interrupt);
            }
        }
    }

    async fn next(&mut self) -> Interrupt {
        let hang_up = async {
            match &mut self.hang_up {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        let number = tokio::select! {
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
            _ = hang_up => HANG_UP,
        };
        Interrupt { number, name: signal_name(number) }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// What a signal means, after the signals before it.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Ignore,
    HandOn,
    /// Hand it on, and end the process soon even if the verb does not react.
    Leave,
}

#[derive(Debug, Default)]
struct Urgency {
    before: bool,
    hung_up: bool,
}

impl Urgency {
    /// Decides what a signal means. `over` says whether the verb has ended.
    ///
    /// A terminal that closes causes several SIGHUPs: from the kernel and from the shell. They
    /// count as one request.
    fn take(&mut self, number: u8, over: bool) -> Step {
        let again = number == HANG_UP && std::mem::replace(&mut self.hung_up, true);
        if again && !over {
            return Step::Ignore;
        }
        if std::mem::replace(&mut self.before, true) || over { Step::Leave } else { Step::HandOn }
    }
}

/// Returns whether this process was started with the signal ignored.
fn is_ignored(number: u8) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (number - 1)) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_request_ends_the_process() {
        let mut urgency = Urgency::default();
        assert_eq!(urgency.take(2, false), Step::HandOn);
        assert_eq!(urgency.take(15, false), Step::Leave);
        // After the verb has ended, the first signal ends the process.
        assert_eq!(Urgency::default().take(15, true), Step::Leave);
    }

    #[test]
    fn a_terminal_that_closes_is_one_request() {
        let mut urgency = Urgency::default();
        assert_eq!(urgency.take(HANG_UP, false), Step::HandOn);
        assert_eq!(urgency.take(HANG_UP, false), Step::Ignore);
        assert_eq!(urgency.take(2, false), Step::Leave);
        assert_eq!(urgency.take(HANG_UP, true), Step::Leave);
    }
}
