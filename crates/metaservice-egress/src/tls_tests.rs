use proptest::prelude::*;

use super::*;

fn sized(bytes: usize, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&length[4 - bytes..], content].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &sized(2, content)].concat()
}

fn sni(name: &str) -> Vec<u8> {
    let entry = [&[HOST_NAME][..], &sized(2, name.as_bytes())].concat();
    extension(SERVER_NAME, &sized(2, &entry))
}

/// A handshake message with these extensions.
fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend(sized(1, &[1; 32]));
    body.extend(sized(2, &[0x0a, 0x0a, 0x13, 0x01]));
    body.extend(sized(1, &[0]));
    body.extend(sized(2, &extensions.concat()));
    [&[CLIENT_HELLO][..], &sized(3, &body)].concat()
}

/// The message in records of at most this size.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    let record = |part: &[u8]| [&[HANDSHAKE, 3, 1][..], &sized(2, part)].concat();
    message.chunks(size).flat_map(record).collect()
}

fn complete(name: Option<&str>, encrypted: bool) -> Scan {
    let server_name = name.map(|name| name.parse().unwrap());
    Scan::Complete(ClientHello { server_name, encrypted })
}

#[test]
fn the_name_is_found_wherever_it_is() {
    let key_share = extension(51, &vec![9; 1300]);
    let grease = extension(0x0a0a, &[]);
    for extensions in [
        vec![sni("a.example")],
        vec![grease.clone(), key_share.clone(), sni("a.example")],
        vec![sni("A.Example"), key_share, grease],
    ] {
        let message = message(&extensions);
        for size in [1, 5, 100, MAX_RECORD] {
            let bytes = records(&message, size);
            assert_eq!(ClientHello::scan(&bytes), complete(Some("a.example"), false), "{size}");
        }
    }
}

#[test]
fn each_part_of_it_asks_for_more() {
    let bytes = records(&message(&[sni("a.example")]), 40);
    for length in 0..bytes.len() {
        assert_eq!(ClientHello::scan(&bytes[..length]), Scan::More, "{length}");
    }
}

#[test]
fn a_hidden_or_missing_name_is_reported() {
    let encrypted = extension(ENCRYPTED_CLIENT_HELLO, &[0; 200]);
    let older = extension(ENCRYPTED_SERVER_NAME, &[0; 200]);
    for (extensions, expected) in [
        (vec![], complete(None, false)),
        (vec![sni("cover.example"), encrypted.clone()], complete(Some("cover.example"), true)),
        (vec![encrypted], complete(None, true)),
        (vec![older], complete(None, true)),
    ] {
        let bytes = records(&message(&extensions), MAX_RECORD);
        assert_eq!(ClientHello::scan(&bytes), expected);
    }
}

#[test]
fn what_two_readers_could_read_differently_is_refused() {
    use InvalidHello::*;
    let two_names = {
        let entry = |name: &str| [&[HOST_NAME][..], &sized(2, name.as_bytes())].concat();
        extension(SERVER_NAME, &sized(2, &[entry("a.example"), entry("b.example")].concat()))
    };
    for (extensions, why) in [
        (vec![sni("a.example"), sni("b.example")], Malformed),
        (vec![two_names], Malformed),
        (vec![extension(SERVER_NAME, &[])], Malformed),
        (vec![sni("a.example.")], ServerName),
        (vec![sni("127.0.0.1")], ServerName),
        (vec![sni("a.example\0b")], ServerName),
        (vec![sni("")], ServerName),
    ] {
        let bytes = records(&message(&extensions), MAX_RECORD);
        assert_eq!(ClientHello::scan(&bytes), Scan::Invalid(why));
    }
    let two = [message(&[sni("a.example")]), message(&[sni("b.example")])].concat();
    assert_eq!(ClientHello::scan(&records(&two, MAX_RECORD)), Scan::Invalid(Trailing));
}

#[test]
fn other_protocols_are_not_tls() {
    use InvalidHello::*;
    for (bytes, why) in [
        (&b"GET / HTTP/1.1\r\n"[..], NotTls),
        (b"SSH-2.0-x\r\n", NotTls),
        (&[0x80, 0x2e, 1, 3, 1], NotTls),
        (&[HANDSHAKE, 2], NotTls),
        (&[HANDSHAKE, 3, 1, 0, 0], Malformed),
        (&[HANDSHAKE, 3, 1, 0xff, 0xff], Malformed),
        (&[HANDSHAKE, 3, 1, 0, 1, 2], NotClientHello),
    ] {
        assert_eq!(ClientHello::scan(bytes), Scan::Invalid(why), "{bytes:?}");
    }
}

#[test]
fn a_message_that_never_ends_is_too_large() {
    let header = [CLIENT_HELLO, 0, 0xff, 0xff];
    let bytes = records(&[&header[..], &[0; MAX_CLIENT_HELLO]].concat(), 1000);
    assert_eq!(ClientHello::scan(&bytes), Scan::Invalid(InvalidHello::TooLarge));
    let slow = [HANDSHAKE, 3, 1, 0x40, 0].into_iter().chain([CLIENT_HELLO; MAX_CLIENT_HELLO]);
    let slow: Vec<u8> = slow.take(MAX_CLIENT_HELLO).collect();
    assert_eq!(ClientHello::scan(&slow), Scan::Invalid(InvalidHello::TooLarge));
}

proptest! {
    #[test]
    fn a_message_with_one_other_byte_is_no_panic(at: prop::sample::Index, byte: u8, size in 1_usize..400) {
        let mut bytes = records(&message(&[sni("a.example"), extension(51, &[1; 40])]), size);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = ClientHello::scan(&bytes);
    }

    #[test]
    fn no_bytes_are_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = ClientHello::scan(&bytes);
        let _ = ClientHello::scan(&[&[HANDSHAKE, 3, 1, 0, 150][..], &bytes].concat());
    }
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[kind, 3, 3][..], &sized(2, content)].concat()
}

fn hello(name: &str) -> Vec<u8> {
    records(&message(&[sni(name)]), MAX_RECORD)
}

/// What becomes of the bytes, given in pieces of this size: how many are forwarded.
fn follow(any_name: bool, bytes: &[u8], size: usize) -> Result<usize, InvalidHello> {
    let mut hellos = Hellos::new("a.example".parse().unwrap(), any_name);
    let (mut held, mut forwarded) = (Vec::new(), 0);
    for piece in bytes.chunks(size) {
        held.extend_from_slice(piece);
        let count = hellos.scan(&held)?;
        held.drain(..count);
        forwarded += count;
        assert!(held.len() <= MAX_CLIENT_HELLO);
    }
    Ok(forwarded)
}

#[test]
fn each_client_hello_of_a_connection_is_for_the_name() {
    let change = record(20, &[1]);
    let data = record(23, &[CLIENT_HELLO; 50]);
    let finished = record(HANDSHAKE, &[0xc5; 40]);
    let key_exchange = record(HANDSHAKE, &[16, 0, 0, 2, 1, 1]);
    let other = |size| records(&message(&[sni("b.example")]), size);
    for size in [1, 7, 10_000] {
        for good in [
            vec![hello("a.example"), change.clone(), hello("A.example"), data.clone()],
            vec![hello("a.example"), key_exchange.clone(), change.clone(), finished.clone()],
            vec![
                hello("a.example"),
                change.clone(),
                finished.clone(),
                data.clone(),
                record(21, &[1, 0]),
            ],
        ] {
            let bytes = good.concat();
            assert_eq!(follow(false, &bytes, size), Ok(bytes.len()));
        }
        for between in [vec![], change.clone(), data.clone(), [&data[..], &change].concat()] {
            for split in [1, 6, 20, MAX_RECORD] {
                let bytes = [hello("a.example"), between.clone(), other(split)].concat();
                let why = InvalidHello::OtherName("b.example".parse().unwrap());
                assert_eq!(follow(false, &bytes, size), Err(why), "{size} {split}");
            }
        }
        let plain = [&hello("a.example")[..], b"GET / HTTP/1.1"].concat();
        assert_eq!(follow(false, &plain, size), Err(InvalidHello::NotTls));
    }
}

#[test]
fn a_name_that_cannot_be_read_needs_a_rule() {
    let encrypted = extension(ENCRYPTED_CLIENT_HELLO, &[0; 200]);
    let front = records(&message(&[sni("front.example"), encrypted]), MAX_RECORD);
    let none = records(&message(&[]), MAX_RECORD);
    for bytes in [front, none] {
        assert_eq!(follow(false, &bytes, 9), Err(InvalidHello::NoName));
        assert_eq!(follow(true, &bytes, 9), Ok(bytes.len()));
    }
    let why = InvalidHello::OtherName("b.example".parse().unwrap());
    assert_eq!(follow(true, &hello("b.example"), 9), Err(why));
}
