//! The authority of each HTTP/1 request that a guest sends on a connection (RFC 9112).
//!
//! A server decides by the `Host` header for whom a request is, also for a later request on the
//! same connection. So [`Requests`] reads each head, and follows each body to its end. Whatever two
//! readers could read differently is an error: such a request is a way around the check.
//!
//! ```text
//!            head is complete, authority is right
//!   ┌─► Head ──────────────────┬───────────────────┬──────────────────────┐
//!   │                          ▼                   ▼                      ▼
//!   │                    Body (length)      Chunked ─► Trailer       Upgrade: waits for the
//!   │                          │                        │            status of the response
//!   └──────── end of body ─────┴────────────────────────┘              │ 101          │ other
//!   └───────────────────────────────────────────────────◄──────────────┼──────────────┘
//!                                                                      ▼
//!                                                                   Opaque
//! ```

use crate::name::DomainName;

/// The largest head of a request, in bytes.
pub const MAX_HEAD: usize = 32 << 10;
/// The most header fields of a request.
const MAX_HEADERS: usize = 128;
/// The longest line of a chunk's size or of a trailer, in bytes.
const MAX_LINE: usize = 4 << 10;
/// The largest trailer of a chunked body, in bytes.
const MAX_TRAILER: usize = 16 << 10;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRequest {
    /// The bytes are no HTTP/1 request.
    #[error("the connection does not carry HTTP/1 requests")]
    NotHttp,
    /// The head is too large.
    #[error("the head of the request is larger than 32 KiB")]
    TooLarge,
    /// `CONNECT`.
    #[error("the request asks for a tunnel (CONNECT)")]
    Connect,
    /// There is no `Host`, or more than one.
    #[error("the request does not have exactly one Host header")]
    Host,
    /// The authority is another one.
    #[error("the request is for {0:?}, not for the name of the connection")]
    OtherAuthority(String),
    /// The end of the body cannot be known.
    #[error("the length of the request's body is ambiguous")]
    Framing,
    /// `Upgrade` to another protocol than a websocket. HTTP/2 and TLS would name a server again.
    #[error("only an upgrade to a websocket can be checked")]
    Upgrade,
    /// `Upgrade` in a request that is not the first one of its connection.
    #[error("only the first request of a connection can ask for an upgrade")]
    LateUpgrade,
}

/// How far bytes may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// This many bytes from the front can be forwarded.
    pub forward: usize,
}

/// Follows the requests of one connection.
#[derive(Debug)]
pub struct Requests {
    name: DomainName,
    port: u16,
    first: bool,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the beginning of a request.
    Head,
    /// In a body, with this many bytes left.
    Body(u64),
    /// At the size of a chunk.
    ChunkSize,
    /// In a chunk, with this many bytes left, and its line end.
    Chunk(u64),
    /// In the trailer of a chunked body, of which this many bytes were read.
    Trailer(usize),
    /// After a request for another protocol. The response decides.
    Upgrade,
    /// The connection has another protocol.
    Opaque,
}

/// What a head says about its body.
enum Body {
    Length(u64),
    Chunked,
}

impl Requests {
    /// Follows a connection to this name and port.
    #[must_use]
    pub fn new(name: DomainName, port: u16) -> Self {
        Self { name, port, first: true, state: State::Head }
    }

    /// Looks at the bytes that the guest has sent and that were not forwarded yet.
    ///
    /// Keep the bytes behind [`Progress::forward`], and call again when more have come, or after
    /// [`response`](Self::response). There are never more than [`MAX_HEAD`] of them, if the caller
    /// stops reading while it waits for a response.
    ///
    /// # Errors
    /// When a request is refused. The connection must end. Nothing of this request was forwarded,
    /// if its head was refused.
    pub fn scan(&mut self, bytes: &[u8]) -> Result<Progress, InvalidRequest> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = self.step(rest)?;
            if taken == 0 {
                break;
            }
            rest = &rest[taken..];
        }
        Ok(Progress { forward: bytes.len() - rest.len() })
    }

    /// Whether the first bytes of the response are awaited: give them to
    /// [`response`](Self::response).
    #[must_use]
    pub fn awaits_response(&self) -> bool {
        self.state == State::Upgrade
    }

    /// Looks at the first bytes that the server has sent on this connection. Returns whether that
    /// was enough.
    pub fn response(&mut self, mut bytes: &[u8]) -> bool {
        while self.awaits_response() {
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut response = httparse::Response::new(&mut headers);
            match (response.parse(bytes), response.code) {
                (_, Some(101)) => self.state = State::Opaque,
                // An interim response. The final one follows.
                (Ok(httparse::Status::Complete(length)), Some(100..=199)) => {
                    bytes = &bytes[length..];
                }
                (Ok(httparse::Status::Partial), None | Some(100..=199))
                    if bytes.len() < MAX_HEAD =>
                {
                    return false;
                }
                // The server continues with HTTP, or with bytes that make no sense.
                _ => self.state = State::Head,
            }
        }
        true
    }

    /// Takes bytes from the front. 0: more are needed.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, InvalidRequest> {
        match self.state {
            State::Head => self.head(bytes),
            State::Body(left) => {
                let taken = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let left = left - taken as u64;
                self.state = if left == 0 { State::Head } else { State::Body(left) };
                Ok(taken)
            }
            State::ChunkSize => {
                let Some((line, length)) = line(bytes)? else { return Ok(0) };
                self.state = match chunk_size(line)? {
                    0 => State::Trailer(0),
                    size => State::Chunk(size + 2),
                };
                Ok(length)
            }
            State::Chunk(left) => chunk(bytes, left).map(|(taken, left)| {
                self.state = if left == 0 { State::ChunkSize } else { State::Chunk(left) };
                taken
            }),
            State::Trailer(read) => {
                let Some((line, length)) = line(bytes)? else { return Ok(0) };
                let read = read + length;
                if read > MAX_TRAILER {
                    return Err(InvalidRequest::TooLarge);
                }
                self.state = if line.is_empty() { State::Head } else { State::Trailer(read) };
                Ok(length)
            }
            State::Upgrade => Ok(0),
            State::Opaque => Ok(bytes.len()),
        }
    }

    fn head(&mut self, bytes: &[u8]) -> Result<usize, InvalidRequest> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let length = match request.parse(bytes) {
            Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
            Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Ok(0),
            Err(httparse::Error::TooManyHeaders) | Ok(_) => return Err(InvalidRequest::TooLarge),
            Err(_) => return Err(InvalidRequest::NotHttp),
        };
        // The parser accepts a bare line feed, and empty lines before the request. Servers differ.
        if !only_crlf(&bytes[..length]) || bytes.starts_with(b"\r\n") {
            return Err(InvalidRequest::NotHttp);
        }
        self.check_authority(&request)?;
        let body = body(request.headers)?;
        let upgrades = upgrades(request.headers)?;
        let first = std::mem::replace(&mut self.first, false);
        self.state = match body {
            _ if upgrades && !first => return Err(InvalidRequest::LateUpgrade),
            // The bytes after the head are the body or the new protocol: nothing tells which.
            Body::Length(1..) | Body::Chunked if upgrades => return Err(InvalidRequest::Framing),
            _ if upgrades => State::Upgrade,
            Body::Length(0) => State::Head,
            Body::Length(length) => State::Body(length),
            Body::Chunked => State::ChunkSize,
        };
        Ok(length)
    }

    fn check_authority(&self, request: &httparse::Request<'_, '_>) -> Result<(), InvalidRequest> {
        if request.method == Some("CONNECT") {
            return Err(InvalidRequest::Connect);
        }
        let target = request.path.unwrap_or_default();
        // Absolute form: `GET http://a.example/ HTTP/1.1`.
        if !target.starts_with('/') && target != "*" {
            let rest = strip_scheme(target).ok_or(InvalidRequest::NotHttp)?;
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            self.check(&rest[..end])?;
        }
        let mut hosts = fields(request.headers, "host");
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return Err(InvalidRequest::Host);
        };
        let host = std::str::from_utf8(host).map_err(|_| InvalidRequest::Host)?;
        self.check(host)
    }

    /// Checks `NAME[:PORT]`.
    fn check(&self, authority: &str) -> Result<(), InvalidRequest> {
        let (name, port) = match authority.split_once(':') {
            // The parser of numbers also takes a sign.
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                (name, port.parse().ok())
            }
            Some((name, _)) => (name, None),
            None => (authority, Some(self.port)),
        };
        let right = name.parse().is_ok_and(|name: DomainName| name == self.name);
        if right && port == Some(self.port) {
            return Ok(());
        }
        Err(InvalidRequest::OtherAuthority(authority.chars().take(260).collect()))
    }
}

fn strip_scheme(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_at_checked("http://".len())?;
    scheme.eq_ignore_ascii_case("http://").then_some(rest)
}

fn fields<'a>(
    headers: &'a [httparse::Header<'a>],
    name: &'static str,
) -> impl Iterator<Item = &'a [u8]> {
    headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|h| h.value)
}

/// Whether a request asks for a websocket (RFC 6455).
fn upgrades(headers: &[httparse::Header<'_>]) -> Result<bool, InvalidRequest> {
    let mut protocols = fields(headers, "upgrade");
    match (protocols.next(), protocols.next()) {
        (None, _) => Ok(false),
        (Some(protocol), None) if protocol.eq_ignore_ascii_case(b"websocket") => Ok(true),
        _ => Err(InvalidRequest::Upgrade),
    }
}

/// The framing of the body (RFC 9112, 6.3).
fn body(headers: &[httparse::Header<'_>]) -> Result<Body, InvalidRequest> {
    let mut codings = fields(headers, "transfer-encoding");
    let mut lengths = fields(headers, "content-length");
    let coding = (codings.next(), codings.next());
    let length = (lengths.next(), lengths.next());
    match (coding, length) {
        ((None, _), (None, _)) => Ok(Body::Length(0)),
        ((None, _), (Some(length), None)) => {
            let digits = length.iter().all(u8::is_ascii_digit) && !length.is_empty();
            let text = std::str::from_utf8(length).ok().filter(|_| digits);
            let length = text.and_then(|text| text.parse().ok());
            length.map(Body::Length).ok_or(InvalidRequest::Framing)
        }
        ((Some(coding), None), (None, _)) if coding.eq_ignore_ascii_case(b"chunked") => {
            Ok(Body::Chunked)
        }
        _ => Err(InvalidRequest::Framing),
    }
}

/// Whether each line feed follows a carriage return, and each carriage return precedes one.
fn only_crlf(bytes: &[u8]) -> bool {
    let mut before = 0;
    for &byte in bytes {
        if (byte == b'\n') != (before == b'\r') {
            return false;
        }
        before = byte;
    }
    true
}

/// The next line without its end, and its length with it. `None`: it is not complete.
fn line(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, InvalidRequest> {
    let window = &bytes[..bytes.len().min(MAX_LINE)];
    match window.iter().position(|byte| *byte == b'\n') {
        Some(end) if only_crlf(&window[..=end]) => Ok(Some((&window[..end - 1], end + 1))),
        Some(_) => Err(InvalidRequest::Framing),
        None if bytes.len() >= MAX_LINE => Err(InvalidRequest::TooLarge),
        None => Ok(None),
    }
}

/// The size of a chunk (RFC 9112, 7.1). Extensions are allowed and ignored.
fn chunk_size(line: &[u8]) -> Result<u64, InvalidRequest> {
    let end = line.iter().position(|byte| *byte == b';').unwrap_or(line.len());
    let digits = line[..end].trim_ascii_end();
    let text = std::str::from_utf8(digits).map_err(|_| InvalidRequest::Framing)?;
    // More digits would be more than any body. A sign is no digit.
    if text.len() > 15 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(InvalidRequest::Framing);
    }
    u64::from_str_radix(text, 16).map_err(|_| InvalidRequest::Framing)
}

/// Takes bytes of a chunk, of which `left` are left with its line end. Returns how many, and how
/// many are left then.
fn chunk(bytes: &[u8], left: u64) -> Result<(usize, u64), InvalidRequest> {
    let data = usize::try_from(left.saturating_sub(2)).unwrap_or(usize::MAX);
    if data > 0 {
        let taken = bytes.len().min(data);
        return Ok((taken, left - taken as u64));
    }
    let expected = if left == 2 { b'\r' } else { b'\n' };
    match bytes.first() {
        Some(byte) if *byte == expected => Ok((1, left - 1)),
        _ => Err(InvalidRequest::Framing),
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
