//! The name in a TLS ClientHello (RFC 8446, 4.1.2), which the guest sends first on port 443.
//!
//! A ClientHello can be split over records and packets at any byte, and is larger than one packet
//! where the key share is a post-quantum one. [`ClientHello::scan`] looks at all bytes so far and
//! asks for more until it can decide.
//!
//! A client sends a second ClientHello where the server asks for other parameters, also behind a
//! change of cipher or early data. A server may then use the name of the second one. So [`Hellos`]
//! follows the records of a connection, and checks each ClientHello.

use crate::name::DomainName;

/// The largest ClientHello with its record headers, in bytes.
pub const MAX_CLIENT_HELLO: usize = 16 << 10;

/// A record has at most this many bytes (RFC 8446, 5.1).
const MAX_RECORD: usize = 1 << 14;
const RECORD_HEADER: usize = 5;
const HANDSHAKE_HEADER: usize = 4;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const HOST_NAME: u8 = 0;
/// The types of records: change of cipher, alert, handshake, data, heartbeat.
const RECORDS: std::ops::RangeInclusive<u8> = 20..=24;
/// How many bytes of a message tell whether it may be a ClientHello.
const HELLO_START: usize = 6;
/// An encrypted record has at least a tag.
const SHORTEST_ENCRYPTED: usize = 16;

/// Types of extensions (RFC 6066; the encrypted ClientHello, RFC 9849).
const SERVER_NAME: u16 = 0;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
/// The encrypted name, which came before the encrypted ClientHello.
const ENCRYPTED_SERVER_NAME: u16 = 0xffce;

/// What a ClientHello says about its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHello {
    /// The name of the server (SNI), if the message has one.
    pub server_name: Option<DomainName>,
    /// Whether it has an encrypted ClientHello, whose name cannot be read. Clients also send this
    /// with random bytes (GREASE), which cannot be told from a real one.
    pub encrypted: bool,
}

/// The result of a look at the first bytes of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scan {
    /// The bytes so far are the beginning of a ClientHello.
    More,
    /// The ClientHello is complete.
    Complete(ClientHello),
    /// These are other bytes.
    Invalid(InvalidHello),
}

/// Why bytes are no ClientHello.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidHello {
    /// The connection does not begin with a TLS handshake record.
    #[error("the connection does not begin with a TLS handshake")]
    NotTls,
    /// The handshake does not begin with a ClientHello.
    #[error("the TLS handshake does not begin with a ClientHello")]
    NotClientHello,
    /// The message is too large.
    #[error("the ClientHello is larger than 16 KiB")]
    TooLarge,
    /// A length does not fit, or an extension is there twice.
    #[error("the ClientHello is malformed")]
    Malformed,
    /// The name is no valid domain name.
    #[error("the server name in the ClientHello is not a domain name")]
    ServerName,
    /// A second message follows the ClientHello at once.
    #[error("another message follows the ClientHello in the same record")]
    Trailing,
    /// The name is another one.
    #[error("the ClientHello is for {0}, not for the name of the connection")]
    OtherName(DomainName),
    /// There is no name, or an encrypted one.
    #[error("the ClientHello has no name that can be read")]
    NoName,
}

impl ClientHello {
    /// Looks at all bytes of a connection so far. Reads at most [`MAX_CLIENT_HELLO`] of them.
    #[must_use]
    pub fn scan(bytes: &[u8]) -> Scan {
        match scan(bytes) {
            Ok(Some((hello, _))) => Scan::Complete(hello),
            Ok(None) if bytes.len() >= MAX_CLIENT_HELLO => Scan::Invalid(InvalidHello::TooLarge),
            Ok(None) => Scan::More,
            Err(error) => Scan::Invalid(error),
        }
    }
}

/// Follows the records that a client sends on one connection.
#[derive(Debug)]
pub struct Hellos {
    name: DomainName,
    any_name: bool,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing of the first ClientHello was forwarded.
    First,
    /// At the beginning of a record.
    Record,
    /// In a record that is no ClientHello, with this many bytes left.
    Inside(usize),
}

impl Hellos {
    /// Follows a connection to this name. `any_name` accepts a ClientHello whose name is missing or
    /// encrypted: see [`Rule::accepts_any_sni`](crate::Rule::accepts_any_sni).
    #[must_use]
    pub fn new(name: DomainName, any_name: bool) -> Self {
        Self { name, any_name, state: State::First }
    }

    /// Looks at the bytes that the guest has sent and that were not forwarded yet. Returns how many
    /// of them can be forwarded.
    ///
    /// Keep the others, and call again when more have come. There are never more than
    /// [`MAX_CLIENT_HELLO`] of them.
    ///
    /// # Errors
    /// When the connection must end: a ClientHello is not for the name, or the bytes are not TLS.
    pub fn scan(&mut self, bytes: &[u8]) -> Result<usize, InvalidHello> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = self.step(rest)?;
            if taken == 0 {
                break;
            }
            rest = &rest[taken..];
        }
        Ok(bytes.len() - rest.len())
    }

    /// Takes bytes from the front. 0: more are needed.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, InvalidHello> {
        match self.state {
            State::First => self.hello(bytes),
            State::Inside(left) => {
                let taken = bytes.len().min(left);
                let left = left - taken;
                self.state = if left == 0 { State::Record } else { State::Inside(left) };
                Ok(taken)
            }
            State::Record => {
                if !RECORDS.contains(&bytes[0]) || bytes.get(1).is_some_and(|major| *major != 3) {
                    return Err(InvalidHello::NotTls);
                }
                let Some(header) = bytes.get(..RECORD_HEADER) else { return Ok(0) };
                let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
                if header[0] == HANDSHAKE {
                    let fragment = &bytes[RECORD_HEADER..];
                    if fragment.len() < length.min(HELLO_START) {
                        return Ok(0);
                    }
                    if may_be_hello(&fragment[..length.min(HELLO_START)], length) {
                        return self.hello(bytes);
                    }
                }
                if length > 0 {
                    self.state = State::Inside(length);
                }
                Ok(RECORD_HEADER)
            }
        }
    }

    /// Takes the records of a ClientHello.
    fn hello(&mut self, bytes: &[u8]) -> Result<usize, InvalidHello> {
        let Some((hello, length)) = scan(bytes)? else {
            let full = bytes.len() >= MAX_CLIENT_HELLO;
            return if full { Err(InvalidHello::TooLarge) } else { Ok(0) };
        };
        match hello.server_name {
            _ if hello.encrypted && !self.any_name => return Err(InvalidHello::NoName),
            None if !self.any_name => return Err(InvalidHello::NoName),
            // The name beside an encrypted one is that of a front.
            Some(name) if name != self.name && !hello.encrypted => {
                return Err(InvalidHello::OtherName(name));
            }
            _ => {}
        }
        self.state = State::Record;
        Ok(length)
    }
}

/// Whether a handshake record, which can be encrypted, may begin a ClientHello. An encrypted one
/// is longer than a cipher's tag, and almost never looks like one.
fn may_be_hello(start: &[u8], length: usize) -> bool {
    match start {
        [] => false,
        [kind, high, rest @ ..] if length >= SHORTEST_ENCRYPTED => {
            // The message's length has three bytes. The version follows.
            *kind == CLIENT_HELLO && *high == 0 && rest.get(2) == Some(&3)
        }
        [kind, ..] => *kind == CLIENT_HELLO,
    }
}

/// The message, and how many bytes its records have.
fn scan(bytes: &[u8]) -> Result<Option<(ClientHello, usize)>, InvalidHello> {
    let mut message = Vec::new();
    let mut rest = bytes;
    loop {
        let Some(fragment) = record(&mut rest)? else {
            // What has come of this record is looked at only when the record is complete.
            return check_start(&message).map(|_| None);
        };
        message.extend_from_slice(fragment);
        let Some(length) = check_start(&message)? else { continue };
        if length > MAX_CLIENT_HELLO {
            return Err(InvalidHello::TooLarge);
        }
        let end = HANDSHAKE_HEADER + length;
        match message.len() {
            have if have < end => {}
            have if have > end => return Err(InvalidHello::Trailing),
            _ => {
                let hello = client_hello(&message[HANDSHAKE_HEADER..])?;
                return Ok(Some((hello, bytes.len() - rest.len())));
            }
        }
    }
}

/// Takes the next record. `None`: it is not complete.
fn record<'a>(bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>, InvalidHello> {
    match bytes.first() {
        Some(&HANDSHAKE) | None => {}
        Some(_) => return Err(InvalidHello::NotTls),
    }
    if bytes.get(1).is_some_and(|major| *major != 3) {
        return Err(InvalidHello::NotTls);
    }
    let Some(header) = bytes.get(..RECORD_HEADER) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
    if length == 0 || length > MAX_RECORD {
        return Err(InvalidHello::Malformed);
    }
    let Some(fragment) = bytes.get(RECORD_HEADER..RECORD_HEADER + length) else { return Ok(None) };
    *bytes = &bytes[RECORD_HEADER + length..];
    Ok(Some(fragment))
}

/// The length of the message, once its header is there.
fn check_start(message: &[u8]) -> Result<Option<usize>, InvalidHello> {
    match message {
        [kind, ..] if *kind != CLIENT_HELLO => Err(InvalidHello::NotClientHello),
        [_, a, b, c, ..] => Ok(Some(u32::from_be_bytes([0, *a, *b, *c]) as usize)),
        _ => Ok(None),
    }
}

/// Reads the fields of a message without its header.
fn client_hello(body: &[u8]) -> Result<ClientHello, InvalidHello> {
    let mut reader = Reader(body);
    let (_version, _random) = (reader.take(2)?, reader.take(32)?);
    let _session = reader.vector(1)?;
    let _suites = reader.vector(2)?;
    let _compression = reader.vector(1)?;
    let mut hello = ClientHello { server_name: None, encrypted: false };
    if reader.is_empty() {
        return Ok(hello);
    }
    let mut extensions = Reader(reader.vector(2)?);
    if !reader.is_empty() {
        return Err(InvalidHello::Malformed);
    }
    let mut named = false;
    while !extensions.is_empty() {
        let kind = extensions.number(2)?;
        let content = extensions.vector(2)?;
        match u16::try_from(kind).unwrap_or_default() {
            // A peer might read the other one of two.
            SERVER_NAME if named => return Err(InvalidHello::Malformed),
            SERVER_NAME => {
                named = true;
                hello.server_name = Some(server_name(content)?);
            }
            ENCRYPTED_CLIENT_HELLO | ENCRYPTED_SERVER_NAME => hello.encrypted = true,
            _ => {}
        }
    }
    Ok(hello)
}

/// The one host name of the extension (RFC 6066, 3).
fn server_name(content: &[u8]) -> Result<DomainName, InvalidHello> {
    let mut reader = Reader(content);
    let mut list = Reader(reader.vector(2)?);
    let kind = list.number(1)?;
    let name = list.vector(2)?;
    if !reader.is_empty() || !list.is_empty() || kind != usize::from(HOST_NAME) {
        return Err(InvalidHello::Malformed);
    }
    let name = std::str::from_utf8(name).map_err(|_| InvalidHello::ServerName)?;
    // SNI has no final dot (RFC 6066, 3).
    if name.ends_with('.') {
        return Err(InvalidHello::ServerName);
    }
    name.parse().map_err(|_| InvalidHello::ServerName)
}

/// A reader of fields whose length comes first.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], InvalidHello> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(InvalidHello::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    /// A big-endian number of at most four bytes.
    fn number(&mut self, bytes: usize) -> Result<usize, InvalidHello> {
        Ok(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// Bytes after their length.
    fn vector(&mut self, bytes: usize) -> Result<&'a [u8], InvalidHello> {
        let length = self.number(bytes)?;
        self.take(length)
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
