//! Tests of the state of a connection.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// Both sides, after the first message.
fn pair() -> (Flow, Flow) {
    let (mut client, mut worker) = (Flow::new(Side::Client), Flow::new(Side::Worker));
    assert_eq!(worker.receive(&client.open()), Ok(Event::Nothing));
    assert_eq!(client.receive(&worker.open()), Ok(Event::Opened));
    (client, worker)
}

fn bytes(count: usize) -> Bytes {
    Bytes::from(vec![1; count])
}

#[test]
fn a_sender_stops_at_the_window_and_continues_with_credit() {
    let (mut client, mut worker) = pair();
    let mut sent = 0;
    while client.room() > 0 {
        let room = client.room();
        sent += room;
        assert!(sent <= WINDOW, "the window does not end");
        assert_eq!(worker.receive(&client.data(bytes(room))), Ok(Event::Data(bytes(room))));
    }
    assert!(sent <= WINDOW && sent > WINDOW - 2 * MAX_DATA, "{sent}");
    assert_eq!(worker.grant(), None);
    worker.passed(sent);
    let credit = worker.grant().unwrap();
    assert_eq!(client.receive(&credit), Ok(Event::Nothing));
    assert_eq!(client.room(), MAX_DATA);
}

#[test]
fn a_sender_that_ignores_the_window_is_stopped() {
    let (mut client, mut worker) = pair();
    let (mut taken, mut number) = (0, 1);
    let end = loop {
        match worker.receive(&Frame::Data(bytes(1)).encode(number)) {
            Ok(_) => taken += 1,
            Err(reason) => break reason,
        }
        number += 1;
        assert!(number < 10_000, "the window does not end");
    };
    assert_eq!((taken, end), (WINDOW / (1 + OVERHEAD), Reason::Broken));
    // Credit for more than was sent is an error too.
    assert_eq!(client.receive(&Frame::Credit(1).encode(1)), Err(Reason::Broken));
}

#[test]
fn each_side_finishes_once_and_then_it_is_over() {
    let (mut client, mut worker) = pair();
    assert_eq!(worker.receive(&client.finish()), Ok(Event::Finish));
    assert_eq!((client.room(), worker.room()), (0, MAX_DATA));
    assert!(!client.is_over() && !worker.is_over() && worker.has_peer_finished());
    for late in [Frame::Data(bytes(1)), Frame::Finish] {
        let mut worker = Flow { has_peer_finished: true, ..Flow::new(Side::Worker) };
        worker.receive(&Frame::Open.encode(0)).unwrap();
        assert_eq!(worker.receive(&late.encode(1)), Err(Reason::Broken));
    }
    assert_eq!(client.receive(&worker.finish()), Ok(Event::Finish));
    assert!(client.is_over() && worker.is_over());
}

#[test]
fn only_a_client_opens_and_only_at_first() {
    let first = |side, frame: Frame| Flow::new(side).receive(&frame.encode(0));
    assert_eq!(first(Side::Worker, Frame::Open), Ok(Event::Nothing));
    assert_eq!(first(Side::Worker, Frame::Ping), Err(Reason::Broken));
    assert_eq!(first(Side::Client, Frame::Open), Err(Reason::Broken));
    let (mut client, mut worker) = pair();
    assert_eq!(worker.receive(&Frame::Open.encode(1)), Err(Reason::Broken));
    assert_eq!(client.receive(&Frame::Opened.encode(1)), Err(Reason::Broken));
}

#[test]
fn the_end_is_taken_whatever_its_number() {
    let (mut client, _) = pair();
    let reset = Frame::Reset(Reason::TooMany).encode(77);
    assert_eq!(client.receive(&reset), Ok(Event::Reset(Reason::TooMany)));
}

/// Messages between two sides, in order.
struct Wire {
    sides: [Flow; 2],
    on_the_way: [VecDeque<Bytes>; 2],
    /// What each side still writes, has got, and has got and not passed on.
    to_send: [usize; 2],
    got: [usize; 2],
    held: [usize; 2],
}

impl Wire {
    fn new(to_send: [usize; 2]) -> Self {
        let (client, worker) = pair();
        let on_the_way = [VecDeque::new(), VecDeque::new()];
        Self { sides: [client, worker], on_the_way, to_send, got: [0; 2], held: [0; 2] }
    }

    fn write(&mut self, side: usize, most: usize) {
        let count = most.min(self.to_send[side]).min(self.sides[side].room());
        if count > 0 {
            let message = self.sides[side].data(bytes(count));
            self.on_the_way[side].push_back(message);
            self.to_send[side] -= count;
        }
    }

    fn deliver(&mut self, from: usize) {
        let Some(message) = self.on_the_way[from].pop_front() else { return };
        if let Event::Data(data) = self.sides[1 - from].receive(&message).unwrap() {
            self.got[1 - from] += data.len();
            self.held[1 - from] += data.len();
        }
    }

    fn pass(&mut self, side: usize, most: usize) {
        let count = most.min(self.held[side]);
        self.held[side] -= count;
        self.sides[side].passed(count);
        self.on_the_way[side].extend(self.sides[side].grant());
    }
}

proptest! {
    #[test]
    fn all_bytes_arrive_and_the_window_limits_what_waits(
        total in (0_usize..2_000_000, 0_usize..2_000_000),
        steps in proptest::collection::vec((0_u8..3, 0_usize..2, 1_usize..100_000), 0..400),
    ) {
        let mut wire = Wire::new([total.0, total.1]);
        let finish = (0..2000).flat_map(|_| [0, 1, 2])
            .flat_map(|step| [(step, 0, MAX_DATA), (step, 1, MAX_DATA)]);
        for (step, side, most) in steps.into_iter().chain(finish) {
            match step {
                0 => wire.write(side, most),
                1 => wire.deliver(side),
                _ => wire.pass(side, most),
            }
            for side in 0..2 {
                let waits = wire.on_the_way[1 - side].iter().map(Bytes::len).sum::<usize>();
                // Credits are small, and at most one for each part.
                prop_assert!(waits + wire.held[side] <= WINDOW + 16 * 13);
            }
        }
        prop_assert_eq!((wire.got[1], wire.got[0]), total);
    }

    #[test]
    fn a_message_that_is_lost_repeated_or_moved_ends_the_connection(
        count in 2_usize..20,
        place in 0_usize..20,
        how in 0_u8..3,
    ) {
        let (mut client, mut worker) = pair();
        let mut messages: Vec<Bytes> = (0..count).map(|_| client.data(bytes(9))).collect();
        let place = place % (count - 1);
        match how {
            0 => drop(messages.remove(place)),
            1 => messages.insert(place, messages[place].clone()),
            _ => messages.swap(place, place + 1),
        }
        let taken = messages.iter().map(|message| worker.receive(message));
        let first = taken.filter_map(Result::err).next();
        prop_assert_eq!(first, Some(Reason::Lost));
    }

    #[test]
    fn no_bytes_of_the_network_panic_or_open_the_window(
        messages in proptest::collection::vec((0_u8..9, 0_u64..4, any::<u32>()), 0..60),
    ) {
        let mut flow = Flow::new(Side::Worker);
        for (kind, number, word) in messages {
            let mut message = vec![kind];
            message.extend((flow.next_in + number / 3).to_be_bytes());
            message.extend(word.to_be_bytes());
            let _ = flow.receive(&Bytes::from(message));
            prop_assert!(flow.window_out <= WINDOW && flow.window_in <= WINDOW);
        }
    }
}
