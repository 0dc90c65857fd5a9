//! Where shells' supervisors come from.
//!
//! Owns the zygote: it is started with the first shell, and again when it has ended. One that does
//! not answer in time is used no more, as something holds up processes here, but kept: the shells
//! that came of it go on.

use std::io;
use std::sync::{Mutex, MutexGuard};

use metaservice_private::lock;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::supervise::{self, Birth, NoCopy, Order, Supervisor, Unborn, Zygote};
use crate::system::streams::Streams;

/// How many supervisors are made before they are wanted. Each takes eight descriptors meanwhile, and
/// a host may leave 256 shells waiting.
const EARLY: usize = 32;

/// The zygote of an agent, if there is one, and room for supervisors that are not wanted yet.
#[derive(Debug)]
pub(crate) struct Nursery {
    state: Mutex<State>,
    early: Semaphore,
}

impl Default for Nursery {
    fn default() -> Self {
        Self { state: Mutex::default(), early: Semaphore::new(EARLY) }
    }
}

#[derive(Debug, Default)]
struct State {
    zygote: Option<Zygote>,
    retired: bool,
}

/// A supervisor that is on its way. It does not start its command before it is wanted; dropping
/// this gives it up.
#[derive(Debug)]
pub(super) struct Coming<'a> {
    nursery: &'a Nursery,
    order: Order,
    env: Vec<(String, String)>,
    streams: Streams,
    birth: Option<Birth>,
}

impl Coming<'_> {
    /// Lets it start its command: as a copy of the zygote, or as a program where that cannot be.
    /// An order that is given up meanwhile, by dropping this, is not carried out.
    pub(super) async fn wanted(self) -> io::Result<Supervisor> {
        let Self { nursery, order, env, streams, birth } = self;
        if let Some(birth) = birth {
            match birth.supervisor().await {
                Ok(supervisor) => return Ok(supervisor),
                Err(Unborn::Late) => nursery.lock().retired = true,
                Err(Unborn::Refused) => {}
            }
        }
        let [stdin, stdout, stderr] = streams.into_stdio();
        let mut command = supervise::command(&order, &env);
        Supervisor::spawn(command.stdin(stdin).stdout(stdout).stderr(stderr))
    }
}

impl Nursery {
    /// Room for a supervisor that is not wanted yet, if there is some.
    pub(super) fn room(&self) -> Option<SemaphorePermit<'_>> {
        self.early.try_acquire().ok()
    }

    /// Sends for a supervisor. Does not wait for it.
    pub(super) fn expect(
        &self,
        order: Order,
        env: Vec<(String, String)>,
        streams: Streams,
    ) -> Coming<'_> {
        let birth = self.begin(&order, &env, &streams);
        Coming { nursery: self, order, env, streams, birth }
    }

    fn begin(&self, order: &Order, env: &[(String, String)], streams: &Streams) -> Option<Birth> {
        let mut state = self.lock();
        if state.retired {
            return None;
        }
        if state.zygote.is_none() {
            state.zygote = Zygote::start().ok();
        }
        match state.zygote.as_ref()?.order(order, env, streams) {
            Ok(birth) => Some(birth),
            Err(NoCopy::Unfit) => None,
            Err(NoCopy::Gone) => {
                state.zygote = None;
                None
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}
