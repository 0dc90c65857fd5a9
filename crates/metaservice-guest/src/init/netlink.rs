//! The rtnetlink messages that set up the kernel's network.
//!
//! Owns the bytes of the four requests that the init makes, and the parser of the two kinds of
//! replies. There is no socket here.

use std::net::Ipv4Addr;

use super::boot_arguments::Address;

const ERROR: u16 = 2;
const DONE: u16 = 3;
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;

const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
const REPLACE: u16 = 0x100;

const INET: u8 = 2;
const UP: u32 = 0x1;
const ETHERNET: u16 = 1;
const SCOPE_LINK: u8 = 253;
const SCOPE_UNIVERSE: u8 = 0;
const MAIN_TABLE: u8 = 254;
const BY_BOOT: u8 = 3;
const UNICAST: u8 = 1;

const LINK_NAME: u16 = 3;
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
const GATEWAY: u16 = 5;
const OUTGOING: u16 = 4;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) ethernet: bool,
}

/// One message of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NetlinkReply {
    Link(Link),
    /// The end of a dump.
    Done,
    /// 0, or the number of an error.
    Acknowledged(i32),
}

/// A request for all links.
pub(super) fn list_links(sequence: u32) -> Vec<u8> {
    let mut body = Message::default();
    body.bytes(&[0; 16]);
    body.finish(GET_LINK, REQUEST | DUMP, sequence)
}

/// A request that sets a link up.
pub(super) fn turn_on(sequence: u32, index: u32) -> Vec<u8> {
    let mut body = Message::default();
    body.bytes(&[0; 4]);
    body.bytes(&index.to_ne_bytes());
    body.bytes(&UP.to_ne_bytes());
    body.bytes(&UP.to_ne_bytes());
    body.finish(NEW_LINK, REQUEST | ACKNOWLEDGE, sequence)
}

/// A request that adds an address to a link. A link-local address gets the scope of the link, so
/// that the kernel never uses it as the source address on another link.
pub(super) fn add_address(sequence: u32, index: u32, address: Address) -> Vec<u8> {
    let scope = if address.ip.is_link_local() { SCOPE_LINK } else { SCOPE_UNIVERSE };
    let mut body = Message::default();
    body.bytes(&[INET, address.prefix, 0, scope]);
    body.bytes(&index.to_ne_bytes());
    body.attribute(LOCAL, &address.ip.octets());
    body.attribute(ADDRESS, &address.ip.octets());
    body.finish(NEW_ADDRESS, REQUEST | ACKNOWLEDGE | CREATE | REPLACE, sequence)
}

/// A request that adds a default route by a gateway.
pub(super) fn add_default_route(sequence: u32, index: u32, gateway: Ipv4Addr) -> Vec<u8> {
    let mut body = Message::default();
    body.bytes(&[INET, 0, 0, 0, MAIN_TABLE, BY_BOOT, SCOPE_UNIVERSE, UNICAST, 0, 0, 0, 0]);
    body.attribute(GATEWAY, &gateway.octets());
    body.attribute(OUTGOING, &index.to_ne_bytes());
    body.finish(NEW_ROUTE, REQUEST | ACKNOWLEDGE | CREATE, sequence)
}

#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.bytes(&length.to_ne_bytes());
        self.bytes(&kind.to_ne_bytes());
        self.bytes(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn finish(self, kind: u16, flags: u16, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(16 + self.0.len()).unwrap_or(u32::MAX);
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend(sequence.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(self.0);
        message
    }
}

/// Reads the messages of one datagram. Unknown ones are left out.
pub(super) fn parse(mut bytes: &[u8]) -> Vec<NetlinkReply> {
    let mut replies = Vec::new();
    while let (Some(length), Some(kind)) = (u32_at(bytes, 0), u16_at(bytes, 4)) {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(body) = bytes.get(16..length) else { break };
        match kind {
            DONE => replies.push(NetlinkReply::Done),
            ERROR => replies.extend(
                u32_at(body, 0)
                    .map(|code| NetlinkReply::Acknowledged(code.cast_signed().saturating_neg())),
            ),
            NEW_LINK => replies.extend(link(body).map(NetlinkReply::Link)),
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    replies
}

fn link(body: &[u8]) -> Option<Link> {
    let mut link = Link {
        index: u32_at(body, 4)?,
        name: String::new(),
        ethernet: u16_at(body, 2)? == ETHERNET,
    };
    let mut rest = body.get(16..)?;
    while let (Some(length), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let Some(value) = rest.get(4..usize::from(length)) else { break };
        if kind == LINK_NAME {
            link.name = String::from_utf8_lossy(value).trim_end_matches('\0').to_owned();
        }
        rest = rest.get(usize::from(length).next_multiple_of(4)..).unwrap_or_default();
    }
    Some(link)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_have_these_bytes() {
        let address = Address { ip: [169, 254, 1, 2].into(), prefix: 16 };
        let expected = [
            40, 0, 0, 0, 20, 0, 5, 5, 7, 0, 0, 0, 0, 0, 0, 0, // header
            2, 16, 0, 253, 3, 0, 0, 0, // family, prefix, flags, scope, index
            8, 0, 2, 0, 169, 254, 1, 2, 8, 0, 1, 0, 169, 254, 1, 2,
        ];
        assert_eq!(add_address(7, 3, address), expected);
        let expected = [
            32, 0, 0, 0, 16, 0, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0, //
            0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0,
        ];
        assert_eq!(turn_on(1, 2), expected);
        let route = add_default_route(1, 2, [10, 0, 2, 2].into());
        assert_eq!(route[16..28], [2, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0]);
        assert_eq!(route[28..], [8, 0, 5, 0, 10, 0, 2, 2, 8, 0, 4, 0, 2, 0, 0, 0]);
        assert_eq!(list_links(1)[..8], [32, 0, 0, 0, 18, 0, 1, 3]);
    }

    #[test]
    fn links_and_acknowledgements_are_read() {
        let mut link = Message::default();
        link.bytes(&[0, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        link.attribute(LINK_NAME, b"eth0\0");
        link.attribute(99, b"x");
        link.attribute(ADDRESS, &[2, 0, 0, 0, 0, 1]);
        let mut bytes = link.finish(NEW_LINK, 0, 1);
        let mut error = Message::default();
        error.bytes(&(-17i32).to_ne_bytes());
        bytes.extend(error.finish(ERROR, 0, 1));
        bytes.extend(Message(vec![0; 4]).finish(DONE, 0, 1));
        let link = Link { index: 2, name: "eth0".into(), ethernet: true };
        let expected =
            [NetlinkReply::Link(link), NetlinkReply::Acknowledged(17), NetlinkReply::Done];
        assert_eq!(parse(&bytes), expected);
    }

    proptest! {
        #[test]
        fn no_reply_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
            let mut link = Message(bytes).finish(NEW_LINK, 0, 1);
            let _ = parse(&link);
            link.truncate(20);
            let _ = parse(&link);
        }
    }
}
