//! The resolver's part of DNS: read a question, write an answer (RFC 1035).
//!
//! The resolver asks no other one. It answers `A` questions with the address that stands for the
//! name, and refuses names that are not allowed. Other types have no answer: without `AAAA` a guest
//! uses IPv4, and without `HTTPS` and `SVCB` it gets no key for an encrypted ClientHello.

use std::net::Ipv4Addr;

use simple_dns::rdata::{A, RData};
use simple_dns::{
    CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE,
};

use crate::name::DomainName;

/// The largest question, in bytes. Questions of clients have one name and at most a few options.
pub const MAX_QUERY: usize = 1 << 10;

/// How long a client may keep an address, in seconds. The address of a name stays the same while
/// it is used.
const TTL: u32 = 60;

/// A question of the guest.
#[derive(Debug, Clone)]
pub struct Query {
    id: u16,
    recursion_desired: bool,
    question: Question<'static>,
    /// The name, or `None` for one that no rule can match.
    name: Option<DomainName>,
    kind: Kind,
}

/// The type of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// An IPv4 address.
    A,
    /// An IPv6 address.
    Aaaa,
    /// Any other type.
    Other,
}

/// What the resolver answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// The address of the name.
    Address(Ipv4Addr),
    /// The name exists, and has nothing of this type.
    Nothing,
    /// The policy does not allow the name.
    Refused,
    /// The resolver cannot answer now.
    Failed,
}

/// Why bytes are no question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidQuery {
    /// There is not even an identifier that an answer could have.
    #[error("the message is too short")]
    TooShort,
    /// The message is an answer, and must not be answered.
    #[error("the message is an answer")]
    Answer,
    /// The message has another operation, more or less than one question, or is malformed.
    #[error("the message is not a question")]
    Malformed,
}

impl Query {
    /// Reads a message.
    ///
    /// # Errors
    /// When it is no question. [`malformed`] answers it, unless the message is an answer or too
    /// short.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidQuery> {
        let header = bytes.get(..12).ok_or(InvalidQuery::TooShort)?;
        if header[2] & 0x80 != 0 {
            return Err(InvalidQuery::Answer);
        }
        // Counts that no question has would make the parser do work for nothing.
        let counts = [&header[4..6], &header[6..8], &header[8..10]];
        if bytes.len() > MAX_QUERY || counts != [[0, 1], [0, 0], [0, 0]] {
            return Err(InvalidQuery::Malformed);
        }
        let packet = Packet::parse(bytes).map_err(|_| InvalidQuery::Malformed)?;
        let [question] = &packet.questions[..] else { return Err(InvalidQuery::Malformed) };
        if packet.opcode() != OPCODE::StandardQuery || question.unicast_response {
            return Err(InvalidQuery::Malformed);
        }
        let internet = matches!(question.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY);
        let kind = match question.qtype {
            _ if !internet => Kind::Other,
            QTYPE::TYPE(TYPE::A) => Kind::A,
            QTYPE::TYPE(TYPE::AAAA) => Kind::Aaaa,
            _ => Kind::Other,
        };
        Ok(Self {
            id: packet.id(),
            recursion_desired: packet.has_flags(PacketFlag::RECURSION_DESIRED),
            name: name(&question.qname),
            question: question.clone().into_owned(),
            kind,
        })
    }

    /// The name, in the form that rules have. `None`: no rule can match it.
    #[must_use]
    pub fn name(&self) -> Option<&DomainName> {
        self.name.as_ref()
    }

    /// The type.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The bytes of an answer.
    #[must_use]
    pub fn answer(&self, answer: Answer) -> Vec<u8> {
        let mut packet = Packet::new_reply(self.id);
        packet.set_flags(PacketFlag::RECURSION_AVAILABLE);
        if self.recursion_desired {
            packet.set_flags(PacketFlag::RECURSION_DESIRED);
        }
        packet.questions.push(self.question.clone());
        match answer {
            Answer::Address(address) => {
                let name = self.question.qname.clone();
                let data = RData::A(A { address: address.to_bits() });
                packet.answers.push(ResourceRecord::new(name, CLASS::IN, TTL, data));
            }
            Answer::Nothing => {}
            Answer::Refused => *packet.rcode_mut() = RCODE::Refused,
            Answer::Failed => *packet.rcode_mut() = RCODE::ServerFailure,
        }
        // An answer has one question and at most one record: it is never truncated.
        packet.build_bytes_vec_compressed().unwrap_or_default()
    }
}

/// The answer to a message that is [malformed](InvalidQuery::Malformed): its header, with an error.
#[must_use]
pub fn malformed(bytes: &[u8]) -> Option<Vec<u8>> {
    let id = [*bytes.first()?, *bytes.get(1)?];
    // QR, and the code 'format error'.
    Some([&id[..], &[0x80, 0x01], &[0; 8]].concat())
}

fn name(name: &Name<'_>) -> Option<DomainName> {
    // A label of DNS can contain a dot, which would be another name as text.
    let label = |label: &[u8]| !label.contains(&b'.');
    if !name.as_bytes().all(label) {
        return None;
    }
    name.to_string().parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn query(name: &str, kind: TYPE) -> Vec<u8> {
        let mut packet = Packet::new_query(7);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        let name = Name::new(name).unwrap();
        packet.questions.push(Question::new(name, kind.into(), CLASS::IN.into(), false));
        packet.build_bytes_vec().unwrap()
    }

    #[test]
    fn an_answer_belongs_to_its_question() {
        let query = Query::parse(&query("A.Example", TYPE::A)).unwrap();
        assert_eq!(query.name().unwrap().as_str(), "a.example");
        assert_eq!(query.kind(), Kind::A);
        let bytes = query.answer(Answer::Address(Ipv4Addr::new(198, 18, 1, 0)));
        let answer = Packet::parse(&bytes).unwrap();
        assert_eq!((answer.id(), answer.rcode()), (7, RCODE::NoError));
        // Clients compare the name with the one that they sent, in the same letters.
        assert_eq!(answer.questions[0].qname.to_string(), "A.Example");
        let [record] = &answer.answers[..] else { panic!() };
        assert_eq!(record.rdata, RData::A(A { address: 0xc612_0100 }));
    }

    #[test]
    fn other_answers_have_no_record() {
        for (answer, code) in [
            (Answer::Nothing, RCODE::NoError),
            (Answer::Refused, RCODE::Refused),
            (Answer::Failed, RCODE::ServerFailure),
        ] {
            let bytes = Query::parse(&query("a.example", TYPE::AAAA)).unwrap().answer(answer);
            let packet = Packet::parse(&bytes).unwrap();
            assert_eq!((packet.rcode(), packet.answers.len()), (code, 0));
        }
    }

    #[test]
    fn names_that_no_rule_has_are_none() {
        let with = |labels: &[u8]| {
            let mut bytes = query("x", TYPE::A);
            bytes.splice(12..15, labels.iter().copied());
            Query::parse(&bytes).map(|query| query.name)
        };
        assert_eq!(with(b"\x09a.example\x00"), Ok(None));
        assert_eq!(with(b"\x01\xff\x00"), Ok(None));
        assert_eq!(with(b"\x00"), Ok(None));
        assert_eq!(with(b"\x03127\x010\x010\x011\x00"), Ok(None));
    }

    #[test]
    fn what_is_no_question_is_refused() {
        let good = query("a.example", TYPE::A);
        let changed = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            Query::parse(&bytes).map(drop)
        };
        assert_eq!(Query::parse(&good[..11]).map(drop), Err(InvalidQuery::TooShort));
        assert_eq!(changed(2, 0x80), Err(InvalidQuery::Answer));
        for (at, byte) in [(2, 0x10), (5, 0), (5, 2), (7, 1), (9, 1), (12, 0xc0), (12, 200)] {
            assert_eq!(changed(at, byte), Err(InvalidQuery::Malformed), "{at}");
        }
        // A name that points at itself.
        let mut loops = good.clone();
        loops.splice(12.., [0xc0, 12, 0, 1, 0, 1]);
        assert_eq!(Query::parse(&loops).map(drop), Err(InvalidQuery::Malformed));
        let long = [&good[..], &[0; MAX_QUERY]].concat();
        assert_eq!(Query::parse(&long).map(drop), Err(InvalidQuery::Malformed));
        assert_eq!(malformed(&good).unwrap()[..4], [0, 7, 0x80, 1]);
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), edit: (prop::sample::Index, u8)) {
            let _ = Query::parse(&bytes);
            let mut near = query("a.example", TYPE::A);
            let at = edit.0.index(near.len());
            near[at] = edit.1;
            if let Ok(query) = Query::parse(&near) {
                let answer = query.answer(Answer::Refused);
                prop_assert!(Packet::parse(&answer).is_ok());
            }
        }
    }
}
