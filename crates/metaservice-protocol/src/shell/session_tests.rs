//! Two sessions and two queues between them, in any interleaving.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::limits::{SHELL_BLOCK, SHELL_WINDOW};

/// Both ends, the messages on their way, and what each stream has carried.
struct Pair {
    ends: [Session; 2],
    wires: [VecDeque<Bytes>; 2],
    written: [Vec<u8>; 3],
    read: [Vec<u8>; 3],
}

impl Pair {
    fn new(dialect: Dialect) -> Self {
        Self {
            ends: [Role::Host, Role::Guest].map(|role| Session::with_dialect(role, dialect)),
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
            assert!(message.len() <= self.ends[end].dialect().message());
            self.wires[end].push_back(message);
        }
    }

    fn deliver(&mut self, end: usize) {
        if let Some(message) = self.wires[end].pop_front() {
            self.ends[1 - end].handle(&message).expect("a peer that keeps the rules");
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

proptest! {
    #[test]
    fn no_byte_is_lost_and_no_window_exceeded(
        steps in proptest::collection::vec((0u8..5, super::super::frame::tests::stream(), 0usize..80_000), 0..400),
        second in any::<bool>(),
    ) {
        let mut pair = Pair::new(if second { Dialect::V2 } else { Dialect::V1 });
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
    fn any_bytes_from_the_peer_are_survived(
        messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..100),
        guest in any::<bool>(),
        second in any::<bool>(),
    ) {
        let dialect = if second { Dialect::V2 } else { Dialect::V1 };
        let role = if guest { Role::Guest } else { Role::Host };
        let mut session = Session::with_dialect(role, dialect);
        for message in messages {
            let _ = session.handle(&message.into());
            let _ = session.next_message();
        }
    }
}

#[test]
fn a_full_window_opens_by_what_is_read() {
    let mut pair = Pair::new(Dialect::V1);
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
fn in_the_second_dialect_a_quarter_of_the_window_is_acknowledged_at_once() {
    let mut pair = Pair::new(Dialect::V2);
    let grain = Dialect::V2.grain();
    for _ in 0..grain / Dialect::V2.block() {
        assert_eq!(pair.ends[0].next_message(), None, "not worth a message yet");
        pair.write(Stream::Stdout, Dialect::V2.block());
        pair.transmit(1);
        pair.deliver(1);
        pair.read(Stream::Stdout);
    }
    pair.transmit(0);
    assert_eq!(pair.ends[0].next_message(), None, "one message for all of it");
    pair.deliver(0);
    assert_eq!(pair.ends[1].acknowledged(Stream::Stdout), grain as u64);
}

#[test]
fn a_peer_that_ignores_the_window_is_cut() {
    let mut host = Session::new(Role::Host);
    let block = Frame::Data { stream: Stream::Stderr, payload: vec![7; SHELL_BLOCK].into() };
    for _ in 0..4 {
        assert_eq!(host.handle(&block.encode()), Ok(Some(Event::Readable(Stream::Stderr))));
    }
    let violation = host.handle(&block.encode()).unwrap_err();
    assert_eq!(violation.stream, Stream::Stderr);
}

#[test]
fn what_only_the_other_role_sends_is_ignored() {
    let mut host = Session::new(Role::Host);
    for frame in [
        Frame::Abort,
        Frame::Size { columns: 1, rows: 1 },
        Frame::Data { stream: Stream::Stdin, payload: Bytes::from_static(b"x") },
        Frame::Ack { stream: Stream::Stdout, consumed: 1 },
    ] {
        assert_eq!(host.handle(&frame.encode()), Ok(None));
    }
    let mut guest = Session::new(Role::Guest);
    assert_eq!(
        guest.handle(&Frame::Exit { success: true, detail: Bytes::new() }.encode()),
        Ok(None)
    );
}

#[test]
fn exit_ends_both_outputs_first_and_counts_once() {
    let mut guest = Session::new(Role::Guest);
    guest.write(Stream::Stdout, Bytes::from_static(b"bye"));
    guest.exit(false, b"detail");
    guest.exit(true, b"");
    let frames: Vec<Frame> = std::iter::from_fn(|| guest.next_message())
        .map(|m| Frame::decode(&m, Dialect::V1).unwrap())
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

#[test]
fn the_second_dialect_has_signals_and_a_detailed_exit() {
    let [mut host, mut guest] =
        [Role::Host, Role::Guest].map(|role| Session::with_dialect(role, Dialect::V2));
    host.signal(15);
    assert_eq!(guest.handle(&host.next_message().unwrap()), Ok(Some(Event::Signalled(15))));
    guest.exit(false, br#"{"reason":"signaled"}"#);
    let last = std::iter::from_fn(|| guest.next_message()).last().unwrap();
    let detail = Bytes::from_static(br#"{"reason":"signaled"}"#);
    assert_eq!(host.handle(&last), Ok(Some(Event::Exited { success: false, detail })));

    let mut first = Session::new(Role::Host);
    first.signal(15);
    assert_eq!(first.next_message(), None, "version 1 has no signals");
}
