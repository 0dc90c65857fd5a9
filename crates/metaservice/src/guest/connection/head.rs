//! Decides whether bytes from the guest are a poll. It does no I/O.
//!
//! Only the plainest poll counts: HTTP/1.1, no body, no header that changes how the request is
//! read. Everything else goes to hyper, valid or not, as soon as its head is complete.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use metaservice_protocol::Endpoint;

use crate::job::limits::Limits;

/// The largest number of headers of a poll. Agents send about five.
const MAX_HEADERS: usize = 32;

/// What the bytes are, as far as they have arrived.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// The head is not complete.
    Partial,
    Poll(Poll),
    /// Another request, or an invalid one.
    Other,
}

/// A request for the next action.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Poll {
    pub(super) headers: HeaderMap,
    /// Whether the client wants the connection closed after the answer.
    pub(super) close: bool,
    /// Its length in bytes.
    pub(super) length: usize,
}

/// Finds the end of a head. It looks at each byte once, however small the pieces are.
#[derive(Debug, Default)]
pub(super) struct Search {
    looked: usize,
}

impl Search {
    /// Looks at all bytes since the beginning of the head.
    pub(super) fn look(&mut self, bytes: &[u8], limits: &Limits) -> Head {
        // The end of the head may overlap with bytes that were looked at before.
        let new = &bytes[self.looked.saturating_sub(2)..];
        self.looked = bytes.len();
        let ended = new.windows(2).any(|pair| pair == b"\n\n")
            || new.windows(3).any(|three| three == b"\n\r\n");
        match ended.then(|| parse(bytes, limits)) {
            Some(Ok(Some(poll))) => Head::Poll(poll),
            Some(Err(NotAPoll)) => Head::Other,
            // Too long: hyper answers with the error.
            None | Some(Ok(None)) if bytes.len() >= limits.head => Head::Other,
            None | Some(Ok(None)) => Head::Partial,
        }
    }
}

/// Whether the bytes begin a request that may have a large body.
pub(super) fn has_large_body(bytes: &[u8]) -> bool {
    bytes.strip_prefix(b"POST ").is_some_and(|rest| {
        [Endpoint::Log, Endpoint::Reply]
            .iter()
            .any(|endpoint| rest.starts_with(endpoint.path().as_bytes()))
    })
}

struct NotAPoll;

fn parse(bytes: &[u8], limits: &Limits) -> Result<Option<Poll>, NotAPoll> {
    let mut room = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut room[..MAX_HEADERS.min(limits.headers)]);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= limits.head => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        _ => return Err(NotAPoll),
    };
    let asked = (request.method, request.path, request.version);
    if asked != (Some("GET"), Some(Endpoint::Poll.path()), Some(1)) {
        return Err(NotAPoll);
    }
    let mut headers = HeaderMap::with_capacity(request.headers.len());
    for header in request.headers {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| NotAPoll)?;
        let value = HeaderValue::from_bytes(header.value).map_err(|_| NotAPoll)?;
        headers.append(name, value);
    }
    let body = [header::TRANSFER_ENCODING, header::EXPECT, header::UPGRADE];
    if body.iter().any(|name| headers.contains_key(name))
        || only(&headers, &header::CONTENT_LENGTH).is_some_and(|length| length != "0")
    {
        return Err(NotAPoll);
    }
    let close = match only(&headers, &header::CONNECTION) {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("keep-alive") => false,
        Some(word) if word.eq_ignore_ascii_case("close") => true,
        Some(_) => return Err(NotAPoll),
    };
    Ok(Some(Poll { headers, close, length }))
}

/// The value of a header that occurs once. If it occurs twice, an empty value, which is invalid.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    Some(values.next().map_or(first.to_str().unwrap_or_default(), |_second| ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(bytes: &[u8]) -> Head {
        Search::default().look(bytes, &Limits::default())
    }

    fn with(headers: &str) -> Vec<u8> {
        format!("GET /engine/v1/poll HTTP/1.1\r\nHost: a\r\n{headers}\r\n").into_bytes()
    }

    #[test]
    fn a_poll_is_found_in_pieces_of_any_size() {
        let whole = with("Metaservice-Session: s\r\n");
        for step in [1, 2, 3, 7, whole.len()] {
            let (mut search, mut come) = (Search::default(), Vec::new());
            for piece in whole.chunks(step) {
                come.extend_from_slice(piece);
                let head = search.look(&come, &Limits::default());
                match head {
                    Head::Partial => assert!(come.len() < whole.len()),
                    Head::Poll(poll) => {
                        assert_eq!((poll.length, poll.close), (whole.len(), false));
                        assert_eq!(poll.headers["metaservice-session"], "s");
                    }
                    Head::Other => panic!("{}", come.len()),
                }
            }
            assert_eq!(come.len(), whole.len());
        }
    }

    #[test]
    fn bytes_after_a_poll_are_left() {
        let mut bytes = with("Content-Length: 0\r\nConnection: Close\r\n");
        let length = bytes.len();
        bytes.extend_from_slice(b"POST /");
        match look(&bytes) {
            Head::Poll(poll) => assert_eq!((poll.length, poll.close), (length, true)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_the_plainest_poll_is_one() {
        for headers in [
            "Content-Length: 1\r\n",
            "Content-Length: 0\r\nContent-Length: 0\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Expect: 100-continue\r\n",
            "Connection: upgrade\r\nUpgrade: websocket\r\n",
            "Connection: close, te\r\n",
            "Connection: close\r\nConnection: keep-alive\r\n",
            "no colon\r\n",
            &"a: b\r\n".repeat(MAX_HEADERS),
        ] {
            assert_eq!(look(&with(headers)), Head::Other, "{headers}");
        }
        for line in [
            "HEAD /engine/v1/poll HTTP/1.1",
            "GET /engine/v1/poll HTTP/1.0",
            "GET /engine/v1/poll?a HTTP/1.1",
            "GET /engine/v1/ping HTTP/1.1",
            "nonsense",
        ] {
            assert_eq!(look(format!("{line}\r\n\r\n").as_bytes()), Head::Other, "{line}");
        }
    }

    #[test]
    fn heads_have_the_limits_of_all_requests() {
        let mut limits = Limits::default();
        (limits.headers, limits.head) = (1, 100);
        let look = |bytes: &[u8]| Search::default().look(bytes, &limits);
        assert!(matches!(look(&with("")), Head::Poll(_)));
        assert_eq!(look(&with("a: b\r\n")), Head::Other);
        assert_eq!(look(&[b'x'; 99]), Head::Partial);
        assert_eq!(look(&[b'x'; 100]), Head::Other);
    }
}
