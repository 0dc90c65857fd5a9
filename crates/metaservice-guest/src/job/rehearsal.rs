//! A rehearsal of the job, in a restored machine that waits for one.
//!
//! The first command of a restored machine is slow. The host reads the machine's memory from the
//! snapshot when the guest touches it, and an emulator translates code when it runs first. A
//! machine that waits has the time to run another command before: one that does nothing.
//!
//! Owns when to rehearse, and that nothing of it is left when the job begins.

use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use tokio::time::sleep;

use crate::program::Program;
use crate::state::StateDirectory;
use crate::supervise::{Kind, Order, Supervisor, supervisor_command};

/// How long a request for a job has no answer before the rehearsal begins. A machine that was
/// restored for a job has an answer at once, and its job has the processors.
const DELAY: Duration = Duration::from_secs(1);

/// Waits for the answer, and rehearses meanwhile if it does not come soon.
pub(super) async fn rehearse_until<T>(
    answer: impl Future<Output = T>,
    state: &StateDirectory,
) -> T {
    let mut answer = pin!(answer);
    tokio::select! {
        answer = &mut answer => return answer,
        () = sleep(DELAY) => {}
    }
    // A machine without a rehearsal is slower, nothing else.
    let Some(rehearsal) = Rehearsal::begin(state) else { return answer.await };
    let early = tokio::select! {
        answer = &mut answer => Some(answer),
        () = rehearsal.supervisor.gone() => None,
    };
    rehearsal.end().await;
    match early {
        Some(answer) => answer,
        None => answer.await,
    }
}

/// A command that runs as that of a job does.
struct Rehearsal {
    supervisor: Supervisor,
    state: StateDirectory,
}

impl Rehearsal {
    fn begin(state: &StateDirectory) -> Option<Self> {
        // As for a shell, of which there is none yet. The next agent removes what this one leaves.
        let state = state.create_shell(0).ok()?;
        let words = ["sh", "-c", ":"].map(ToOwned::to_owned).to_vec();
        let program = Program { words, env: Vec::new(), user: None, workdir: None };
        let order = Order {
            reports_start: true,
            separate: true,
            ..Order::new(&state, Kind::Job, false, &program)
        };
        let mut command = supervisor_command(&order, &program.env);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match Supervisor::spawn(&mut command) {
            Ok(supervisor) => Some(Self { supervisor, state }),
            Err(_) => {
                state.remove();
                None
            }
        }
    }

    /// Ends it if it still runs.
    async fn end(self) {
        self.supervisor.end();
        self.supervisor.gone().await;
        self.state.remove();
    }
}
