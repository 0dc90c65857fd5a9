//! DNS messages of a guest: each answer belongs to its question, is short, and has at most one
//! record.

use std::net::Ipv4Addr;

use metaservice_egress::dns::{Answer, InvalidQuery, Query, malformed};

/// Runs the target on one input. It panics if the input shows a fault.
pub fn run(data: &[u8]) {
    let query = match Query::parse(data) {
        Ok(query) => query,
        Err(error) => {
            if error == InvalidQuery::Malformed {
                let answer = malformed(data).expect("there is an identifier");
                assert_eq!((&answer[..2], answer[2] & 0x80), (&data[..2], 0x80));
            }
            return;
        }
    };
    if let Some(name) = query.name() {
        assert_eq!(name.as_str().parse().as_ref(), Ok(name));
        assert!(name.as_str().parse::<std::net::IpAddr>().is_err());
    }
    let address = Answer::Address(Ipv4Addr::new(198, 18, 1, 0));
    for (answer, records, code) in
        [(address, 1, 0), (Answer::Nothing, 0, 0), (Answer::Refused, 0, 5), (Answer::Failed, 0, 2)]
    {
        let bytes = query.answer(answer);
        assert!(bytes.len() <= 512, "it fits into each datagram");
        assert_eq!((&bytes[..2], bytes[2] & 0x80, bytes[3] & 15), (&data[..2], 0x80, code));
        // One question, and at most one record.
        assert_eq!(bytes[4..12], [0, 1, 0, records, 0, 0, 0, 0]);
        // An answer is no question: two resolvers never talk to each other.
        assert_eq!(Query::parse(&bytes).unwrap_err(), InvalidQuery::Answer);
    }
}
