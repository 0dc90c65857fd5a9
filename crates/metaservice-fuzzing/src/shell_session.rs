//! A session accepts any sequence of messages, and buffers no more than its windows.

use bytes::Bytes;
use metaservice_protocol::shell::{Role, ShellSession, Stream, StreamProtocol};

/// Runs the target on one input. It panics if the input shows a fault.
pub fn run(data: &[u8]) {
    let Some((&first, mut rest)) = data.split_first() else { return };
    let role = if first & 1 == 0 { Role::Host } else { Role::Guest };
    let version = if first & 2 == 0 { StreamProtocol::V1 } else { StreamProtocol::V2 };
    let mut session = ShellSession::with_protocol(role, version);
    // Before each message: its length, and whether a stream is read.
    while let [length, read, tail @ ..] = rest {
        let (message, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = tail;
        if session.handle(&Bytes::copy_from_slice(message)).is_err() {
            return;
        }
        if read & 1 == 1 {
            let stream = Stream::ALL[usize::from(*read) % 3];
            while session.read(stream).is_some() {}
        }
        while let Some(message) = session.next_message() {
            assert!(message.len() <= version.message());
        }
    }
    let mut held =
        |stream| std::iter::from_fn(|| session.read(stream)).map(|b| b.len()).sum::<usize>();
    assert!(Stream::ALL.map(&mut held).into_iter().all(|held| held <= version.window()));
}
