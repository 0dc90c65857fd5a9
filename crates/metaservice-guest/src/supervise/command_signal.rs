//! A signal for a command, as the host sends it on a stream.

use rustix::process::{Pid, Signal, kill_process_group};

use crate::system::processes::{Process, ProcessIdentity};
use crate::system::streams::{AgentEnd, foreground};

/// Sends a signal to the foreground processes of the terminal, as its keyboard does. Without a
/// terminal the command's own process group gets it.
pub(crate) fn signal_command(
    main: Option<&ProcessIdentity>,
    terminal: Option<&AgentEnd>,
    number: u8,
) {
    let Some(signal) = Signal::from_named_raw(number.into()) else { return };
    let group = terminal.and_then(|terminal| foreground(&**terminal));
    let find = || main.and_then(Process::find_same);
    let group = group.or_else(|| Pid::from_raw(find()?.pid));
    let sent = group.is_some_and(|group| kill_process_group(group, signal).is_ok());
    // A command that was just started leads no group yet.
    if !sent && let Some(main) = find() {
        // It may have ended by now.
        let _ = main.signal(signal);
    }
}
