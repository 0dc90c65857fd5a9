use metaservice_egress::Transport;

use super::*;

#[path = "../tests/gateway/hello.rs"]
#[expect(dead_code, reason = "the tests over sockets use the rest")]
mod hello;

use hello::sni;

fn attempt(port: u16) -> Attempt {
    let target = Target::Name("a.example".parse().unwrap());
    Attempt { target, port, transport: Transport::Tcp }
}

fn inspection(rule: &str, port: u16) -> Inspection {
    Inspection::of(&rule.parse().unwrap(), &attempt(port))
}

fn inspector(rule: &str, port: u16) -> Inspector {
    Inspector::new(inspection(rule, port), &attempt(port))
}

/// A ClientHello in one record, with these extensions.
fn hello(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    hello::record(&hello::message(extensions))
}

const ECH: (u16, Vec<u8>) = (0xfe0d, Vec::new());

#[test]
fn only_rules_of_names_check_what_the_guest_sends() {
    assert_eq!(inspection("a.example", 443), Inspection::Tls);
    assert_eq!(inspection("*.example", 80), Inspection::Http);
    assert_eq!(inspection("a.example/any-sni", 443), Inspection::AnyTls);
    assert_eq!(inspection("a.example/any-sni", 80), Inspection::Http);
    for (rule, port) in [("a.example", 22), ("public", 443), ("public", 80), ("host:1-65535", 80)] {
        assert_eq!(inspection(rule, port), Inspection::None, "{rule}");
    }
    assert!(Inspection::Tls.covers(Inspection::AnyTls));
    assert!(!Inspection::AnyTls.covers(Inspection::Tls));
    assert!(!Inspection::None.covers(Inspection::Http));
}

#[test]
fn a_client_hello_must_have_the_name() {
    let strict = |bytes: &[u8]| inspector("a.example", 443).guest(bytes);
    let right = hello(&[sni("A.example")]);
    assert_eq!(strict(&right), Ok(right.len()));
    for wrong in [
        hello(&[sni("b.example")]),
        hello(&[]),
        hello(&[sni("a.example"), ECH]),
        hello(&[sni("a.example"), sni("b.example")]),
        hello(&[sni("a.example.")]),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"SSH-2.0-x\r\n".to_vec(),
    ] {
        assert_eq!(strict(&wrong), Err(WrongName));
    }
}

#[test]
fn a_rule_can_accept_what_cannot_be_read_but_no_other_name() {
    let any = |bytes: &[u8]| inspector("a.example/any-sni", 443).guest(bytes);
    for bytes in [hello(&[]), hello(&[sni("outer.example"), ECH]), b"SSH-2.0-x\r\n".to_vec()] {
        assert_eq!(any(&bytes), Ok(bytes.len()));
    }
    assert_eq!(any(&hello(&[sni("b.example")])), Err(WrongName));
}

#[test]
fn nothing_passes_before_the_name_is_complete() {
    let mut inspector = inspector("a.example", 443);
    let hello = hello(&[sni("a.example")]);
    for end in 1..hello.len() {
        assert_eq!(inspector.guest(&hello[..end]), Ok(0), "{end}");
    }
    // What follows is another record, which the peer decrypts.
    let data = [&[23, 3, 3, 0, 4][..], b"data"].concat();
    let with_more = [&hello[..], &data].concat();
    assert_eq!(inspector.guest(&with_more), Ok(with_more.len()));
    // A server that has asked for another ClientHello may use the name of that.
    assert_eq!(inspector.guest(&[&data[..], &hello].concat()), Ok(data.len() + hello.len()));
    assert_eq!(inspector.guest(&self::hello(&[sni("b.example")])), Err(WrongName));
}

#[test]
fn each_request_must_be_for_the_name() {
    let mut inspector = inspector("a.example", 80);
    let right = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
    assert_eq!(inspector.guest(&right[..10]), Ok(0));
    assert_eq!(inspector.guest(right), Ok(right.len()));
    inspector.peer(b"HTTP/1.1 101 Switching Protocols\r\n\r\n");
    assert_eq!(inspector.guest(right), Ok(right.len()), "nothing was asked to be switched");
    let other = b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n";
    assert_eq!(inspector.guest(other), Err(WrongName));
}

#[test]
fn an_upgrade_waits_for_the_peer() {
    let request = b"GET / HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\n\r\n";
    let smuggled = b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n";
    let mut inspector = inspector("a.example", 80);
    assert_eq!(inspector.guest(request), Ok(request.len()));
    assert!(inspector.awaits_peer());
    assert_eq!(inspector.guest(smuggled), Ok(0));
    inspector.peer(b"HTTP/1.1 1");
    assert!(inspector.awaits_peer());
    let mut refused = Inspector::new(Inspection::Http, &attempt(80));
    refused.guest(request).unwrap();
    refused.peer(b"HTTP/1.1 200 OK\r\n\r\n");
    assert_eq!(refused.guest(smuggled), Err(WrongName));
    inspector.peer(b"01 Switching Protocols\r\nUpgrade: websocket\r\n\r\n");
    assert!(!inspector.awaits_peer());
    assert_eq!(inspector.guest(b"\x81\x00frames"), Ok(8));
}
