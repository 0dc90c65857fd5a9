//! Between a shell's processes and its websocket.
//!
//! Owns four flows that never wait for each other, as futures of one task around a shared
//! [`Wire`]: messages in, messages out, outputs, input. If one waited for another, a command
//! that does not read its input would hold up its own output.
//!
//! ```text
//!   running ── command ends, outputs drained ──► exit sent ── close, 10 s at most ──► over
//!      ├────── abort, agent stops ──► tree told to die, close, 10 s at most, tree gone ─► over
//!      └────── connection gone, silent, stuck, or against the rules ──► tree told to die ─► over
//! ```

use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Mutex;

use metaservice_private::lock;

use bytes::Bytes;
use futures_util::StreamExt;
use metaservice_protocol::shell::{Stream, StreamProtocol};
use metaservice_protocol::{Ending, Reason};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::sync::watch;
use tokio::time::timeout;

use super::Running;
use super::background_output::Leftovers;
use crate::client::stream::{CLOSE_TIMEOUT, Control, Over, Reader, Socket, Wire, goodbye};
use crate::job::pending_replies::Partings;
use crate::system::processes::Process;
use crate::system::streams::{End, Ends, Input, foreground, read_now, resize};

/// How much is read of an output at once, where there is room for it.
const READ: usize = 64 * 1024;

/// Where outputs are read to: one place for all shells, as nobody waits while it is in use.
static OUTPUT: Mutex<[u8; READ]> = Mutex::new([0; READ]);

/// Carries a shell from its start to its end. It is killed when `stopping` becomes true.
pub(super) async fn run(
    socket: Socket,
    protocol: StreamProtocol,
    running: &Running,
    ends: Ends,
    (leftovers, partings): (&Leftovers, &Partings),
    mut stopping: watch::Receiver<bool>,
) {
    let supervisor = &running.supervisor;
    let Ends { stdin, stdout, stderr } = ends;
    let outputs = [&stdout, &stderr].map(Clone::clone);
    let wire = Wire::new(protocol);
    let (sink, stream) = socket.split();
    let terminal = stdin.as_ref().and_then(Input::terminal);
    let control = |control| match (control, &terminal) {
        (Control::Resized(columns, rows), Some(terminal)) => {
            resize(&**terminal, (columns, rows));
        }
        (Control::Resized(..), None) => {}
        (Control::Signalled(number), terminal) => signal(running, terminal.as_ref(), number),
    };
    let (end, ended) = watch::channel(false);
    let mut reader = Reader::new(stream, &wire, &control);
    let mut sending = pin!(wire.send(sink));
    let mut input = pin!(feed(stdin, &wire));
    let mut working = pin!(async {
        let gone = async {
            supervisor.gone().await;
            end.send_replace(true);
            partings.begin()
        };
        let (parting, ..) = tokio::join!(
            gone,
            drain(Stream::Stdout, stdout, &wire, ended.clone()),
            drain(Stream::Stderr, stderr, &wire, ended.clone()),
        );
        parting
    });
    // The job's end is said after this shell's.
    let (over, _parting) = tokio::select! {
        parting = &mut working => (None, Some(parting)),
        over = reader.run() => (Some(over), None),
        () = &mut sending => (Some(Over::Gone), None),
        _ = stopping.wait_for(|stopping| *stopping) => (Some(Over::Aborted), None),
        () = &mut input => (Some(Over::Gone), None),
    };
    if over.is_some() {
        supervisor.end();
    }
    // A supervisor that was killed has left no word.
    let ending = || running.folder().ending().unwrap_or(Ending::new(Reason::Lost));
    let ending = over.is_none().then(ending);
    if over.is_none() && terminal.is_none() {
        outputs.into_iter().flatten().for_each(|output| leftovers.take(output));
    }
    let detail = ending.as_ref().map(Ending::to_header).unwrap_or_default();
    wire.exit(ending.is_some_and(|ending| ending.is_success()), detail.as_bytes());
    let goodbye = async {
        if over != Some(Over::Gone) {
            goodbye(sending, &mut reader).await;
        }
    };
    tokio::join!(goodbye, supervisor.gone());
}

/// With a terminal its foreground hears the signal, as if it came from the keyboard; else
/// the command's own process group, which it leads as long as it lives.
fn signal(running: &Running, terminal: Option<&End>, number: u8) {
    let Some(signal) = Signal::from_named_raw(number.into()) else { return };
    let group = match terminal {
        Some(terminal) => foreground(&**terminal),
        None => None,
    };
    let main = || running.folder().main().and_then(|main| Process::same(&main));
    let group = group.or_else(|| Pid::from_raw(main()?.pid));
    let told = group.is_some_and(|group| kill_process_group(group, signal).is_ok());
    // One that has only just been started leads no group yet.
    if !told && let Some(main) = main() {
        // It may be gone by now.
        let _ = crate::supervise::signal_process(&main, signal);
    }
}

/// Says why there is no shell, and ends it.
pub(super) async fn refuse(socket: Socket, protocol: StreamProtocol, reason: Bytes, detail: &[u8]) {
    let wire = Wire::new(protocol);
    let (sink, stream) = socket.split();
    let room = wire.room(Stream::Stderr).await;
    wire.write(Stream::Stderr, reason.slice(..reason.len().min(room)));
    wire.exit(false, detail);
    let ignore = |_| {};
    let mut reader = Reader::new(stream, &wire, &ignore);
    let goodbye = async { tokio::join!(wire.send(sink), reader.run()) };
    let _ = timeout(CLOSE_TIMEOUT, goodbye).await;
}

/// Moves one output into the session until it ends, or the command has and it is empty.
async fn drain(stream: Stream, end: Option<End>, wire: &Wire, mut ended: watch::Receiver<bool>) {
    let Some(end) = end else { return };
    loop {
        let room = wire.room(stream).await;
        let block = read_some(&end, room, &mut ended).await;
        if block.is_empty() {
            break;
        }
        wire.write(stream, block);
    }
    wire.finish(stream);
}

/// The next bytes of an output; none at its end.
async fn read_some(end: &End, room: usize, ended: &mut watch::Receiver<bool>) -> Bytes {
    loop {
        // The order matters: what was written before the end is there by now.
        let last = *ended.borrow_and_update();
        if last {
            return read_block(&**end, room).unwrap_or_default();
        }
        tokio::select! {
            ready = end.readable() => {
                let Ok(mut ready) = ready else { return Bytes::new() };
                match ready.try_io(|end| read_block(end, room).map_err(Into::into)) {
                    Ok(result) => return result.unwrap_or_default(),
                    Err(_would_block) => {}
                }
            }
            // Without a sender the command has ended as well.
            _ = ended.changed() => {}
        }
    }
}

/// Reads an output that nobody is sent any longer, until nobody has it open.
pub(super) async fn discard(end: End) {
    while let Ok(mut ready) = end.readable().await {
        if let Ok(Ok(0) | Err(_)) = ready.try_io(|end| discard_now(end).map_err(Into::into)) {
            return;
        }
    }
}

fn discard_now(end: impl AsFd) -> Result<usize, Errno> {
    read_now(end, &mut *lock(&OUTPUT))
}

fn read_block(end: impl AsFd, room: usize) -> Result<Bytes, Errno> {
    let mut output = lock(&OUTPUT);
    let count = read_now(end, &mut output[..room.min(READ)])?;
    Ok(Bytes::copy_from_slice(&output[..count]))
}

/// Moves the host's input to the command. Never completes: an input that has ended, or that
/// nobody reads, ends nothing else.
async fn feed(input: Option<Input>, wire: &Wire) {
    let mut input = input;
    while let Some(block) = wire.read().await {
        let broken = match &input {
            Some(input) => !input.write(&block).await,
            // Taken and dropped, so that the host can go on.
            None => false,
        };
        if broken {
            input = None;
        }
    }
    if let Some(input) = input.take() {
        input.finish().await;
    }
    std::future::pending::<()>().await;
}
