//! Whether what a guest has sent is a poll: without I/O.
//!
//! Only the plainest poll counts as one: version 1.1, no body, nothing that would need a second
//! thought. Everything else, and everything that is wrong, is for hyper to judge, once its head is
//! whole: until then its time runs here.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use metaservice_protocol::Endpoint;

use crate::job::limits::Bounds;

/// The most headers of a poll. Agents send a handful.
const MOST_HEADERS: usize = 32;

/// What there is to say of the bytes that have come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// More has to come.
    Partial,
    Poll(Poll),
    /// Another request, or none that is valid.
    Other,
}

/// A request for the next action.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Poll {
    pub(super) headers: HeaderMap,
    /// Whether the connection ends with the answer.
    pub(super) close: bool,
    /// How many bytes it has.
    pub(super) length: usize,
}

/// Looks for the end of a head, each byte once however slowly they come.
#[derive(Debug, Default)]
pub(super) struct Search {
    looked: usize,
}

impl Search {
    /// Looks at all that has come since the head's beginning.
    pub(super) fn look(&mut self, bytes: &[u8], bounds: &Bounds) -> Head {
        // The last line may have ended before it was known to be the last.
        let new = &bytes[self.looked.saturating_sub(2)..];
        self.looked = bytes.len();
        let ended = new.windows(2).any(|pair| pair == b"\n\n")
            || new.windows(3).any(|three| three == b"\n\r\n");
        match ended.then(|| parse(bytes, bounds)) {
            Some(Ok(Some(poll))) => Head::Poll(poll),
            Some(Err(NotAPoll)) => Head::Other,
            // Hyper refuses it.
            None | Some(Ok(None)) if bytes.len() >= bounds.head => Head::Other,
            None | Some(Ok(None)) => Head::Partial,
        }
    }
}

/// Whether a request begins that may bring much.
pub(super) fn carries(bytes: &[u8]) -> bool {
    bytes.strip_prefix(b"POST ").is_some_and(|rest| {
        [Endpoint::Log, Endpoint::Reply]
            .iter()
            .any(|endpoint| rest.starts_with(endpoint.path().as_bytes()))
    })
}

struct NotAPoll;

fn parse(bytes: &[u8], bounds: &Bounds) -> Result<Option<Poll>, NotAPoll> {
    let mut room = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut room[..MOST_HEADERS.min(bounds.headers)]);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= bounds.head => length,
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

/// The value of a header that is there once; of one that is there more often, a value that means nothing.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    Some(values.next().map_or(first.to_str().unwrap_or_default(), |_second| ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(bytes: &[u8]) -> Head {
        Search::default().look(bytes, &Bounds::default())
    }

    fn with(headers: &str) -> Vec<u8> {
        format!("GET /engine/v1/poll HTTP/1.1\r\nHost: a\r\n{headers}\r\n").into_bytes()
    }

    #[test]
    fn a_poll_is_found_whatever_pieces_it_comes_in() {
        let whole = with("Metaservice-Session: s\r\n");
        for step in [1, 2, 3, 7, whole.len()] {
            let (mut search, mut come) = (Search::default(), Vec::new());
            for piece in whole.chunks(step) {
                come.extend_from_slice(piece);
                let head = search.look(&come, &Bounds::default());
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
    fn what_follows_a_poll_is_not_of_it() {
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
            &"a: b\r\n".repeat(MOST_HEADERS),
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
    fn heads_are_bounded_as_all_are() {
        let mut bounds = Bounds::default();
        (bounds.headers, bounds.head) = (1, 100);
        let look = |bytes: &[u8]| Search::default().look(bytes, &bounds);
        assert!(matches!(look(&with("")), Head::Poll(_)));
        assert_eq!(look(&with("a: b\r\n")), Head::Other);
        assert_eq!(look(&[b'x'; 99]), Head::Partial);
        assert_eq!(look(&[b'x'; 100]), Head::Other);
    }
}
