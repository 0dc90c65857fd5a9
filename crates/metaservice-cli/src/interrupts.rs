//! Signals that ask the tool to end. The first one ends the job in order, the second one at once.
//!
//! A thread of its own waits for them: whatever the rest of the process waits for, the second one
//! ends it within [`LAST`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as sync;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use metaservice_sandbox::exit;

use crate::status::ExitStatus;

/// How long the process has, after the second signal, to end in order.
const LAST: Duration = Duration::from_millis(700);

/// SIGHUP.
const HANG_UP: u8 = 1;

/// The signals that ask for an end.
pub(crate) struct Interrupts {
    receiver: mpsc::UnboundedReceiver<Interrupt>,
    last: Option<Interrupt>,
}

/// One of them came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interrupt {
    /// Its number, for the exit status.
    pub(crate) number: u8,
    /// Its name.
    pub(crate) name: &'static str,
}

/// Whether the verb has ended, and only its last words are to be written.
static OVER: AtomicBool = AtomicBool::new(false);

/// The verb has ended: one signal ends the process from now on.
pub(crate) fn verb_is_over() {
    OVER.store(true, Ordering::SeqCst);
}

fn is_over() -> bool {
    OVER.load(Ordering::SeqCst)
}

/// The name of a signal that ends a job.
pub(crate) fn signal_name(number: u8) -> &'static str {
    match number {
        HANG_UP => "SIGHUP",
        2 => "SIGINT",
        _ => "SIGTERM",
    }
}

impl Interrupts {
    /// From now on the signals come here instead of ending the process.
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

    /// The last one that came.
    pub(crate) fn last(&self) -> Option<Interrupt> {
        self.last
    }

    /// The next one. Dropping the future loses none.
    pub(crate) async fn next(&mut self) -> Interrupt {
        match self.receiver.recv().await {
            Some(interrupt) => {
                self.last = Some(interrupt);
                interrupt
            }
            // The thread is there for as long as the process is.
            None => std::future::pending().await,
        }
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// `None` where it was ignored when the process began, as by `nohup`.
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
                // Where nothing waits for it, the verb is about to end.
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

/// What a signal means after those before it.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Ignore,
    HandOn,
    /// Hand it on, and end the process soon, whether or not it is heard.
    Leave,
}

#[derive(Debug, Default)]
struct Urgency {
    before: bool,
    hung_up: bool,
}

impl Urgency {
    /// A terminal that closes sends more than one SIGHUP: from the kernel, and from the shell.
    /// That is one request.
    fn take(&mut self, number: u8, over: bool) -> Step {
        let again = number == HANG_UP && std::mem::replace(&mut self.hung_up, true);
        if again && !over {
            return Step::Ignore;
        }
        if std::mem::replace(&mut self.before, true) || over { Step::Leave } else { Step::HandOn }
    }
}

/// Whether the signal is ignored, by what the process was started with.
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
        // Once there are only last words to write, the first one does.
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
