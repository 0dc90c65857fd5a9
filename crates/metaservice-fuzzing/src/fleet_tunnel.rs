//! The connections of a tunnel: two sides that send each other what they may, with messages that
//! are lost, repeated or not valid. No side gets more than the window, and each byte comes once.

use std::collections::VecDeque;

use crate::typed::steps_of;
use arbitrary::Arbitrary;
use bytes::Bytes;
use metaservice_fleet::fuzzing;
use metaservice_fleet::tunnel::flow::{Event, Flow, OVERHEAD, Side, WINDOW};
use metaservice_fleet::tunnel::frame::{Frame, MAX_DATA, Reason};

#[derive(Debug, Arbitrary)]
struct Step {
    /// Which side acts.
    worker: bool,
    action: Action,
}

#[derive(Debug, Arbitrary)]
enum Action {
    Open,
    Data(u32),
    Finish,
    Ping,
    Reset(u8),
    /// It takes the next message of the other side.
    Receive,
    /// It takes that message twice.
    Repeat,
    /// The message is lost.
    Lose,
    /// It takes a message that no side sent.
    Message(Vec<u8>),
    /// It takes one with the right number and any content.
    Numbered(u8, Vec<u8>),
    /// It passes on what it got.
    Pass(u16),
    Subject(String),
}

struct End {
    flow: Flow,
    /// Its messages on the way.
    sent: VecDeque<Bytes>,
    /// The bytes that it sent and received so far.
    written: u64,
    read: u64,
    /// What it received and did not pass on, with the cost of each message.
    held: usize,
    held_cost: usize,
    /// How many messages it took.
    taken: u64,
    is_over: bool,
    /// Whether someone else sent it something.
    is_forged: bool,
}

impl End {
    fn new(side: Side) -> Self {
        Self {
            flow: Flow::new(side),
            sent: VecDeque::new(),
            written: 0,
            read: 0,
            held: 0,
            held_cost: 0,
            taken: 0,
            is_over: false,
            is_forged: false,
        }
    }

    fn receive(&mut self, message: &Bytes) {
        if self.is_over {
            return;
        }
        match self.flow.receive(message) {
            Ok(Event::Data(data)) => {
                assert!((1..=MAX_DATA).contains(&data.len()));
                self.read += data.len() as u64;
                self.held += data.len();
                self.held_cost += data.len() + OVERHEAD;
                assert!(self.held_cost <= WINDOW + OVERHEAD, "more than the window");
            }
            Ok(Event::Reset(_)) | Err(_) => self.is_over = true,
            Ok(_) => {}
        }
        self.taken += 1;
    }

    fn act(&mut self, action: &Action, peer: &mut Self) {
        match action {
            Action::Open => self.sent.push_back(self.flow.open()),
            Action::Data(length) => {
                let room = self.flow.room();
                assert!(room <= MAX_DATA);
                let data = vec![7; (*length as usize).min(2 * MAX_DATA)];
                if room > 0 && !data.is_empty() {
                    self.written += data.len().min(room) as u64;
                    self.sent.push_back(self.flow.data(data.into()));
                }
            }
            Action::Finish if !self.flow.has_finished() => {
                self.sent.push_back(self.flow.finish());
            }
            Action::Finish => {}
            Action::Ping => self.sent.push_back(self.flow.ping()),
            Action::Reset(number) => {
                let reason = if *number == 0 { Reason::Ended } else { Reason::Broken };
                self.sent.push_back(self.flow.reset(reason));
            }
            Action::Receive => {
                if let Some(message) = peer.sent.pop_front() {
                    self.receive(&message);
                }
            }
            Action::Repeat => {
                if let Some(message) = peer.sent.pop_front() {
                    self.receive(&message);
                    self.is_forged = true;
                    self.receive(&message);
                }
            }
            Action::Lose => drop(peer.sent.pop_front()),
            Action::Message(bytes) => self.forged(&bytes.clone().into()),
            Action::Numbered(kind, content) => {
                let mut message = vec![*kind % 8];
                message.extend(self.taken.to_be_bytes());
                message.extend(content);
                self.forged(&message.into());
            }
            Action::Pass(bytes) => {
                let bytes = self.held.min(usize::from(*bytes) * 4);
                self.flow.passed(bytes);
                self.held -= bytes;
                if let Some(credit) = self.flow.grant() {
                    self.held_cost = self.held;
                    self.sent.push_back(credit);
                }
            }
            Action::Subject(text) => {
                let name = fuzzing::connection(text);
                let is_plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric());
                assert!(name.is_none_or(|name| is_plain(name) && name.len() <= 64));
                assert!(!fuzzing::is_inbox(text) || !text.starts_with("$KV"));
            }
        }
    }

    fn forged(&mut self, message: &Bytes) {
        if let Ok((number, frame)) = Frame::decode(message) {
            let again = frame.encode(number);
            let is_other_reason = matches!(frame, Frame::Reset(Reason::Broken));
            assert!(again == *message || is_other_reason);
        }
        self.is_forged = true;
        self.receive(message);
    }
}

/// Runs the target on one input. It panics if the input shows a fault.
pub fn run(input: &[u8]) {
    let steps: Vec<Step> = steps_of(input);
    let (mut client, mut worker) = (End::new(Side::Client), End::new(Side::Worker));
    client.sent.push_back(client.flow.open());
    for Step { worker: acts, action } in &steps {
        match acts {
            true => worker.act(action, &mut client),
            false => client.act(action, &mut worker),
        }
        for (end, peer) in [(&client, &worker), (&worker, &client)] {
            assert!(end.is_forged || end.read <= peer.written, "a byte that no one sent");
        }
    }
}
