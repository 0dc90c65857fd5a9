//! Two sessions with a queue in each direction, in any interleaving.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::limits::{SHELL_BLOCK, SHELL_WINDOW};

/// Both ends, the messages in flight, and what each stream has carried.
struct Pair {
    ends: [ShellSession; 2],
    wires: [VecDeque<Bytes>; 2],
    written: [Vec<u8>; 3],
    read: [Vec<u8>; 3],
}

impl Pair {
    fn new(protocol: StreamProtocol) -> Self {
        Self {
            ends: [Role::Host, Role::Guest].map(|role| ShellSession::with_protocol(role, protocol)),
            wires: Default::default(),
            written: Default::default(),
            read: Default::default(),
        }
    }

    fn sender(stream: Stream) -> usize {
        usize::from(stream != Stream::Stdin)
    }

    fn write(&mut self, stream: Stream, amount: usize) {
        let end = &mut self.ends[Self::sender(stream)];
        let written = &mut self.written[usize::from(stream.number())];
        let count = amount.min(end.writable(stream));
        let block: Vec<u8> = (0..=250).cycle().skip(written.len() % 251).take(count).collect();
        written.extend(&block);
        end.write(stream, block.into());
    }

    fn read(&mut self, stream: Stream) {
        let end = &mut self.ends[1 - Self::sender(stream)];
        if let Some(block) = end.read(stream) {
            self.read[usize::from(stream.number())].extend(&block);
        }
    }

    fn transmit(&mut self, end: usize) {
        if let Some(message) = self.ends[end].next_message() {
            assert!(message.len() <= self.ends[end].protocol().message());
            self.wires[end].push_back(message);
        }
    }

    fn deliver(&mut self, end: usize) {
        if let Some(message) = self.wires[end].pop_front() {
            self.ends[1 - end].handle(&message).expect("a peer that follows the protocol");
        }
    }

    fn settle(&mut self) {
        for _ in 0..10_000 {
            for end in 0..2 {
                self.transmit(end);
                self.deliver(end);
            }
            Stream::ALL.into_iter().for_each(|stream| self.read(stream));
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<(u8, Stream, usize)>> {
    let step = (0u8..5, crate::shell::frame::tests::stream(), 0usize..80_000);
    proptest::collection::vec(step, 0..400)
}

fn messages() -> impl Strategy<Value = Vec<Vec<u8>>> {
    proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..100)
}

proptest! {
    #[test]
    fn no_byte_is_lost_and_no_window_exceeded(
        steps in steps(),
        second in any::<bool>(),
    ) {
        let mut pair = Pair::new(if second { StreamProtocol::V2 } else { StreamProtocol::V1 });
        for (step, stream, amount) in steps {
            match step {
                0 => pair.write(stream, amount),
                1 => pair.read(stream),
                2 => pair.transmit(amount % 2),
                3 => pair.deliver(amount % 2),
                _ => pair.ends[0].resize(80, 24),
            }
        }
        pair.ends[0].finish(Stream::Stdin);
        pair.ends[1].exit(true, b"{}");
        pair.settle();
        prop_assert_eq!(&pair.read, &pair.written);
        for stream in Stream::ALL {
            prop_assert!(pair.ends[1 - Pair::sender(stream)].is_ended(stream));
        }
    }

    #[test]
    fn any_bytes_from_the_peer_are_handled(
        messages in messages(),
        guest in any::<bool>(),
        second in any::<bool>(),
    ) {
        let protocol = if second { StreamProtocol::V2 } else { StreamProtocol::V1 };
        let role = if guest { Role::Guest } else { Role::Host };
        let mut session = ShellSession::with_protocol(role, protocol);
        for message in messages {
            let _ = session.handle(&message.into());
            let _ = session.next_message();
        }
    }
}

#[test]
fn reading_opens_a_full_window() {
    let mut pair = Pair::new(StreamProtocol::V1);
    for _ in 0..10 {
        pair.write(Stream::Stdout, SHELL_BLOCK);
    }
    assert_eq!(pair.written[1].len(), SHELL_WINDOW);
    assert_eq!(pair.ends[1].writable(Stream::Stdout), 0);
    (0..4).for_each(|_| pair.transmit(1));
    (0..4).for_each(|_| pair.deliver(1));
    pair.read(Stream::Stdout);
    pair.read(Stream::Stdout);
    pair.transmit(0);
    assert!(pair.ends[0].next_message().is_none(), "two reads share one acknowledgement");
    pair.deliver(0);
    assert_eq!(pair.ends[1].writable(Stream::Stdout), SHELL_BLOCK);
}

#[test]
fn version_2_acknowledges_a_quarter_of_the_window_at_once() {
    let mut pair = Pair::new(StreamProtocol::V2);
    let quarter = StreamProtocol::V2.acknowledge_after();
    for _ in 0..quarter / StreamProtocol::V2.block() {
        assert_eq!(pair.ends[0].next_message(), None, "less than a quarter");
        pair.write(Stream::Stdout, StreamProtocol::V2.block());
        pair.transmit(1);
        pair.deliver(1);
        pair.read(Stream::Stdout);
    }
    pair.transmit(0);
    assert_eq!(pair.ends[0].next_message(), None, "one message for all of it");
    pair.deliver(0);
    assert_eq!(pair.ends[1].acknowledged(Stream::Stdout), quarter as u64);
}

#[test]
fn a_peer_that_ignores_the_window_is_an_error() {
    let mut host = ShellSession::new(Role::Host);
    let block = Frame::Data { stream: Stream::Stderr, payload: vec![7; SHELL_BLOCK].into() };
    for _ in 0..4 {
        assert_eq!(host.handle(&block.encode()), Ok(Some(Event::Readable(Stream::Stderr))));
    }
    let violation = host.handle(&block.encode()).unwrap_err();
    assert_eq!(violation.stream, Stream::Stderr);
}

#[test]
fn frames_of_the_other_role_are_ignored() {
    let mut host = ShellSession::new(Role::Host);
    for frame in [
        Frame::Abort,
        Frame::Size { columns: 1, rows: 1 },
        Frame::Data { stream: Stream::Stdin, payload: Bytes::from_static(b"x") },
        Frame::Ack { stream: Stream::Stdout, consumed: 1 },
    ] {
        assert_eq!(host.handle(&frame.encode()), Ok(None));
    }
    let mut guest = ShellSession::new(Role::Guest);
    assert_eq!(
        guest.handle(&Frame::Exit { success: true, detail: Bytes::new() }.encode()),
        Ok(None)
    );
}

#[test]
fn an_exit_ends_both_outputs_and_is_sent_once() {
    let mut guest = ShellSession::new(Role::Guest);
    guest.write(Stream::Stdout, Bytes::from_static(b"bye"));
    guest.exit(false, b"detail");
    guest.exit(true, b"");
    let frames: Vec<Frame> = std::iter::from_fn(|| guest.next_message())
        .map(|m| Frame::decode(&m, StreamProtocol::V1).unwrap())
        .collect();
    let data = |stream, payload: &'static [u8]| Frame::Data { stream, payload: payload.into() };
    assert_eq!(
        frames,
        [
            data(Stream::Stdout, b"bye"),
            data(Stream::Stdout, b""),
            data(Stream::Stderr, b""),
            Frame::Exit { success: false, detail: Bytes::new() },
        ]
    );
}

fn ends_of_version_2() -> [ShellSession; 2] {
    [Role::Host, Role::Guest].map(|role| ShellSession::with_protocol(role, StreamProtocol::V2))
}

#[test]
fn version_2_has_signals() {
    let [mut host, mut guest] = ends_of_version_2();
    host.signal(15);
    assert_eq!(guest.handle(&host.next_message().unwrap()), Ok(Some(Event::Signalled(15))));
}

#[test]
fn version_1_has_no_signals() {
    let mut host = ShellSession::new(Role::Host);
    host.signal(15);
    assert_eq!(host.next_message(), None);
}

#[test]
fn version_2_has_a_detail_of_the_exit() {
    let [mut host, mut guest] = ends_of_version_2();
    guest.exit(false, br#"{"reason":"signaled"}"#);
    let last = std::iter::from_fn(|| guest.next_message()).last().unwrap();
    let detail = Bytes::from_static(br#"{"reason":"signaled"}"#);
    assert_eq!(host.handle(&last), Ok(Some(Event::Exited { success: false, detail })));
}
