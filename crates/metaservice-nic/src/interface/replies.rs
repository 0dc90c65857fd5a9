//! What goes to the guest without a connection: datagrams, answers to echo requests, and the
//! answers to SYNs.
//!
//! They wait for room in queues with [limits](crate::Limits). Answers to SYNs have a queue of their
//! own: they wait for no datagram.

use std::net::Ipv4Addr;

use super::{
    device::Link,
    queue::Queue,
    segment::{self, Quote, Segment},
};
use crate::config::Limits;
use crate::frame::Outgoing;
use crate::network::{Datagram, EchoRequest, Unreachable};

pub(super) struct Replies {
    /// What is small, and ends an attempt of the guest.
    pub(super) answers: Queue<Answer>,
    pub(super) messages: Queue<Message>,
}

pub(super) enum Answer {
    Segment(Box<Segment>),
    Unreachable(Unreachable, Quote),
}

pub(super) enum Message {
    Datagram(Datagram),
    /// The answer to this echo request.
    Echo(EchoRequest),
}

impl Replies {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            answers: Queue::new(limits.attempts.max(1), 0),
            messages: Queue::new(limits.datagrams, limits.datagram_bytes),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.answers.is_empty() && self.messages.is_empty()
    }

    /// Sends what waits, as far as there is room. `router` is the address of the card.
    pub(super) fn send(&mut self, router: Ipv4Addr, link: Link<'_>, outgoing: &mut Outgoing) {
        while !outgoing.is_full() {
            if let Some(answer) = self.answers.pop() {
                match answer {
                    Answer::Segment(segment) => segment.send(link, outgoing),
                    Answer::Unreachable(reason, quote) => {
                        segment::unreachable(reason, router, quote, link, outgoing);
                    }
                }
            } else if let Some(message) = self.messages.pop() {
                match message {
                    Message::Datagram(datagram) => segment::datagram(&datagram, link, outgoing),
                    Message::Echo(request) => segment::echo_reply(&request, link, outgoing),
                }
            } else {
                return;
            }
        }
    }
}
