//! Reading a shell's output.

use std::os::fd::AsFd;
use std::sync::Mutex;

use bytes::Bytes;
use metaservice_private::lock;
use rustix::io::Errno;
use tokio::sync::watch;

use crate::system::streams::{AgentEnd, read_now};

/// How many bytes are read at once, if there is room for them.
const READ: usize = 64 * 1024;

/// The read buffer of all shells. A read never waits while it holds the lock.
static BUFFER: Mutex<[u8; READ]> = Mutex::new([0; READ]);

/// The next bytes of an output, at most `room`; empty at its end. `ended` becomes true when the
/// command has ended: then the output ends as soon as it is empty.
pub(super) async fn read(
    output: &AgentEnd,
    room: usize,
    ended: &mut watch::Receiver<bool>,
) -> Bytes {
    loop {
        // First `ended`, then the output: what was written before the end is there now.
        let last = *ended.borrow_and_update();
        if last {
            return read_block(&**output, room).unwrap_or_default();
        }
        tokio::select! {
            ready = output.readable() => {
                let Ok(mut ready) = ready else { return Bytes::new() };
                match ready.try_io(|output| read_block(output, room).map_err(Into::into)) {
                    Ok(result) => return result.unwrap_or_default(),
                    Err(_would_block) => {}
                }
            }
            // If the sender was dropped, the next round reads the last value.
            _ = ended.changed() => {}
        }
    }
}

/// Reads and discards an output until no process has it open.
pub(super) async fn discard(output: AgentEnd) {
    while let Ok(mut ready) = output.readable().await {
        let read = ready.try_io(|output| {
            let mut buffer = lock(&BUFFER);
            read_now(output, &mut *buffer).map_err(Into::into)
        });
        if let Ok(Ok(0) | Err(_)) = read {
            return;
        }
    }
}

fn read_block(output: impl AsFd, room: usize) -> Result<Bytes, Errno> {
    let mut buffer = lock(&BUFFER);
    let count = read_now(output, &mut buffer[..room.min(READ)])?;
    Ok(Bytes::copy_from_slice(&buffer[..count]))
}
