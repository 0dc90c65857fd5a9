use proptest::prelude::*;

use super::*;

fn requests() -> Requests {
    Requests::new("a.example".parse().unwrap(), 80)
}

/// Feeds bytes in pieces of this size, as a connection does. Returns what was forwarded.
fn feed(requests: &mut Requests, bytes: &[u8], size: usize) -> Result<Vec<u8>, InvalidRequest> {
    let (mut held, mut forwarded) = (Vec::new(), Vec::new());
    for piece in bytes.chunks(size) {
        held.extend_from_slice(piece);
        let Progress { forward } = requests.scan(&held)?;
        forwarded.extend(held.drain(..forward));
    }
    Ok(forwarded)
}

#[track_caller]
fn refused(text: &str, why: InvalidRequest) {
    assert_eq!(feed(&mut requests(), text.as_bytes(), usize::MAX), Err(why), "{text}");
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";

#[test]
fn requests_for_the_name_pass_in_pieces_of_any_size() {
    let text = [
        GET,
        "POST /x HTTP/1.1\r\nhost: A.EXAMPLE:80\r\nContent-Length: 5\r\n\r\nGET /",
        "GET http://a.example/y?z HTTP/1.1\r\nHost: a.example.\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n",
        "5;x=y\r\nGET /\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n",
        GET,
    ]
    .concat();
    for size in [1, 2, 7, 100, text.len()] {
        let forwarded = feed(&mut requests(), text.as_bytes(), size).unwrap();
        assert_eq!(forwarded, text.as_bytes(), "{size}");
    }
}

#[test]
fn nothing_of_a_head_goes_before_it_is_checked() {
    for length in 0..GET.len() {
        let progress = requests().scan(&GET.as_bytes()[..length]).unwrap();
        assert_eq!(progress.forward, 0);
    }
}

#[test]
fn another_authority_is_refused_also_in_a_later_request() {
    let other = |name: &str| InvalidRequest::OtherAuthority(name.to_owned());
    let host = |name: &str| format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n");
    for name in [
        "b.example",
        "a.example:81",
        "b.a.example",
        "[a.example]",
        "127.0.0.1",
        "a.example:",
        "a.example:+80",
    ] {
        refused(&host(name), other(name));
        refused(&[GET, &host(name)].concat(), other(name));
    }
    refused("GET http://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", other("b.example"));
    refused(
        "GET http://a.example@b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
        other("a.example@b.example"),
    );
    let after_body = "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\r\nok";
    refused(&[after_body, &host("b.example")].concat(), other("b.example"));
}

#[test]
fn ambiguous_requests_are_refused() {
    use InvalidRequest::*;
    let with = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n");
    for (fields, why) in [
        ("Host: a.example\r\n", Host),
        ("Host: b.example\r\n", Host),
        ("Content-Length: 1\r\nContent-Length: 1\r\n", Framing),
        ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", Framing),
        ("Content-Length: +1\r\n", Framing),
        ("Content-Length: 1, 1\r\n", Framing),
        ("Content-Length: \r\n", Framing),
        ("Transfer-Encoding: gzip, chunked\r\n", Framing),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Framing),
        ("Transfer-Encoding : chunked\r\n", NotHttp),
        ("X: a\r\n b\r\n", NotHttp),
        ("X: a\nHost: b.example\r\n", NotHttp),
        ("Upgrade: websocket\r\nContent-Length: 1\r\n", Framing),
        ("Upgrade: h2c\r\n", Upgrade),
        ("Upgrade: TLS/1.3\r\n", Upgrade),
        ("Upgrade: websocket, h2c\r\n", Upgrade),
        ("Upgrade: websocket\r\nUpgrade: h2c\r\n", Upgrade),
    ] {
        refused(&with(fields), why);
    }
    refused("GET / HTTP/1.1\r\n\r\n", Host);
    refused("\r\nGET / HTTP/1.1\r\nHost: a.example\r\n\r\n", NotHttp);
    refused("CONNECT a.example:80 HTTP/1.1\r\nHost: a.example:80\r\n\r\n", Connect);
    refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", NotHttp);
    refused("SSH-2.0-x\r\n", NotHttp);
    let chunked = with("Transfer-Encoding: chunked\r\n");
    for (body, why) in [
        ("+1\r\n", Framing),
        ("x\r\n", Framing),
        ("\r\n", Framing),
        ("1\n", Framing),
        ("1\r\nab\r\n", Framing),
        ("fffffffffffffffff\r\n", Framing),
    ] {
        refused(&[&chunked, body].concat(), why);
    }
}

#[test]
fn heads_and_lines_are_limited() {
    let head = format!("GET / HTTP/1.1\r\nHost: a.example\r\nX: {}\r\n\r\n", "x".repeat(MAX_HEAD));
    refused(&head, InvalidRequest::TooLarge);
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(MAX_HEADERS + 1));
    refused(&many, InvalidRequest::TooLarge);
    let chunked = "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n";
    refused(&[chunked, "1;", &"x".repeat(MAX_LINE)].concat(), InvalidRequest::TooLarge);
    let trailer = "X: y\r\n".repeat(MAX_TRAILER / 6 + 1);
    refused(&[chunked, "0\r\n", &trailer].concat(), InvalidRequest::TooLarge);
}

const UPGRADE: &str =
    "GET /ws HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

#[test]
fn after_an_upgrade_the_connection_is_opaque_only_if_the_server_agrees() {
    let mut agreed = requests();
    let text = [UPGRADE, "\x01binary"].concat();
    let forward = agreed.scan(text.as_bytes()).unwrap().forward;
    assert_eq!((forward, agreed.awaits_response()), (UPGRADE.len(), true));
    assert!(!agreed.response(b"HTTP/1.1 "));
    assert!(!agreed.response(b"HTTP/1.1 100 Continue\r\n\r\n"));
    assert!(agreed.response(b"HTTP/1.1 101 Switching Protocols\r\n"));
    assert_eq!(agreed.scan(b"\x01binary").unwrap().forward, 7);

    for answer in ["HTTP/1.1 200 OK\r\n", "HTTP/1.1 426 No\r\n", "nonsense\r\n"] {
        let mut denied = requests();
        denied.scan(UPGRADE.as_bytes()).unwrap();
        assert!(denied.response(answer.as_bytes()), "{answer}");
        assert!(denied.scan(b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n").is_err());
    }
    refused(&[GET, UPGRADE].concat(), InvalidRequest::LateUpgrade);
}

proptest! {
    #[test]
    fn the_size_of_the_pieces_changes_nothing(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        size in 1_usize..40,
    ) {
        let mut bytes = [GET, "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", GET].concat().into_bytes();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let whole = feed(&mut requests(), &bytes, bytes.len());
        let pieces = feed(&mut requests(), &bytes, size);
        prop_assert_eq!(whole, pieces);
    }
}
