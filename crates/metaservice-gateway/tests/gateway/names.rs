//! The resolver, which is at each address.

use std::net::{Ipv4Addr, SocketAddrV4};

use simple_dns::{RCODE, TYPE};
use smoltcp::socket::tcp::State;

use crate::world::{Answer, World, echo, question, serve};

const OTHERS: [Ipv4Addr; 3] =
    [Ipv4Addr::new(10, 0, 2, 2), Ipv4Addr::new(8, 8, 8, 8), Ipv4Addr::new(192, 168, 1, 1)];

#[tokio::test]
async fn a_name_that_is_not_allowed_is_refused_and_never_leaves_the_host() {
    let mut world = World::new(&["a.example", "*.b.example"]);
    for resolver in OTHERS {
        for name in [
            "c.example",
            "b.example",
            "xa.example",
            "a.example.evil.test",
            "c2VjcmV0LWJ5dGVzLW9mLWEtdHVubmVs.evil.test",
            "localhost",
            "host",
            "metadata.google.internal",
            "4.3.2.1.in-addr.arpa",
        ] {
            for kind in [TYPE::A, TYPE::AAAA, TYPE::TXT] {
                let answer = world.query(resolver, name, kind).await;
                assert_eq!(answer, Answer { code: RCODE::Refused, address: None }, "{name}");
            }
        }
    }
    assert_eq!(world.outside.resolved(), [] as [&str; 0]);
}

#[tokio::test]
async fn an_allowed_name_has_one_address_of_its_own() {
    let mut world = World::new(&["a.example", "*.b.example"]);
    let first = world.resolve("a.example").await;
    let second = world.resolve("x.b.example").await;
    assert_ne!(first, second);
    for (resolver, spelling) in OTHERS.into_iter().zip(["a.example", "A.EXAMPLE", "a.Example"]) {
        let answer = world.query(resolver, spelling, TYPE::A).await;
        assert_eq!(answer.address, Some(first));
    }
    for address in [first, second] {
        assert_eq!(address.octets()[..1], [198]);
        assert!(matches!(address.octets()[1], 18 | 19));
    }
    for kind in [TYPE::AAAA, TYPE::HTTPS, TYPE::SVCB, TYPE::TXT, TYPE::MX] {
        let answer = world.query(OTHERS[0], "a.example", kind).await;
        assert_eq!(answer, Answer { code: RCODE::NoError, address: None });
    }
    // The resolver asks no other one.
    assert_eq!(world.outside.resolved(), [] as [&str; 0]);
}

/// Asks by TCP, with several questions on one connection.
#[tokio::test]
async fn tcp_has_the_same_answers() {
    let mut world = World::new(&["a.example"]);
    let by_udp = world.resolve("a.example").await;
    for resolver in OTHERS {
        let (handle, there) = world.connect(resolver, 53).await;
        assert!(there);
        for (name, expected) in [
            ("a.example", Answer { code: RCODE::NoError, address: Some(by_udp) }),
            ("b.example", Answer { code: RCODE::Refused, address: None }),
        ] {
            let question = question(name, TYPE::A);
            let length = u16::try_from(question.len()).unwrap().to_be_bytes();
            // Byte by byte, as a slow client does.
            for byte in length.iter().chain(&question) {
                world.send(handle, &[*byte]).await;
            }
            let head = world.receive(handle, 2).await;
            let length = usize::from(u16::from_be_bytes([head[0], head[1]]));
            let mut answer = head[2..].to_vec();
            if answer.len() < length {
                answer.extend(world.receive(handle, length - answer.len()).await);
            }
            assert_eq!(Answer::read(&answer), expected);
        }
        world.machine.guest.tcp(handle).close();
        assert_eq!(world.receive_all(handle).await, b"");
    }
}

#[tokio::test]
async fn what_is_no_question_ends_the_connection() {
    for bytes in [&[0, 4, 1, 2, 3, 4][..], &[0xff, 0xff, 0], &[0, 0]] {
        let mut world = World::new(&["a.example"]);
        let (handle, _) = world.connect(OTHERS[1], 53).await;
        world.send(handle, bytes).await;
        world.is_reset(handle).await;
    }
}

#[tokio::test]
async fn malformed_questions_have_an_answer_or_none_and_the_resolver_lives() {
    let mut world = World::new(&["a.example"]);
    let guest = &mut world.machine.guest;
    let socket = crate::world::socket(guest, 6000);
    let to = SocketAddrV4::new(OTHERS[0], 53);
    let mut loops = question("a.example", TYPE::A);
    loops.splice(12.., [0xc0, 12, 0, 1, 0, 1]);
    let long = [question("a.example", TYPE::A), vec![0; 1200]].concat();
    for bytes in [loops, long] {
        let answer = world.ask(socket, to, &bytes).await;
        assert_eq!((answer[2] & 0x80, answer[3] & 0x0f), (0x80, 1));
    }
    let guest = &mut world.machine.guest;
    let udp = guest.sockets.get_mut::<smoltcp::socket::udp::Socket>(socket);
    udp.send_slice(b"short", to).unwrap();
    world.resolve("a.example").await;
}

#[tokio::test]
async fn a_question_for_a_name_that_no_rule_can_have_is_recorded_and_not_reported() {
    let mut world = World::new(&["public"]);
    for name in ["127.1", "0x7f", "a b.example"] {
        let answer = world.query(OTHERS[0], name, TYPE::A).await;
        assert_eq!((answer.code, answer.address), (RCODE::Refused, None), "{name}");
    }
    world.query(OTHERS[0], "a.localhost", TYPE::A).await;
    let first = world.gateway.denial().await.unwrap();
    assert_eq!(first.record.name.as_deref(), Some("a.localhost"));
    let (lines, totals) = world.stop().await;
    assert_eq!((lines.len(), totals.denied, totals.unrecorded), (4, 4, 0));
    assert!(lines[..3].iter().all(|line| line["name"].is_null() && line["protocol"] == "dns"));
}

#[tokio::test]
async fn under_open_each_name_has_an_address_too() {
    let mut world = World::new(&["public", "!*.ads.example"]);
    world.outside.name("www.example", &["93.184.216.34"]);
    world.outside.peer("93.184.216.34:22", serve(echo).await);
    world.open("www.example", 22).await;
    let denied = world.query(OTHERS[0], "x.ads.example", TYPE::A).await;
    assert_eq!(denied.code, RCODE::Refused);
}

#[tokio::test]
async fn a_restored_guest_has_its_names() {
    let mut before = World::new(&["a.example"]);
    let stands = before.resolve("a.example").await;
    let names = before.control.names();
    assert_eq!(names.len(), 1);
    let mut after = World::with(&["a.example"], |config| config.names = names);
    after.outside.name("a.example", &["93.184.216.34"]);
    after.outside.peer("93.184.216.34:22", serve(echo).await);
    // The guest has cached the address.
    let (handle, there) = after.connect(stands, 22).await;
    assert!(there);
    assert_eq!(after.machine.guest.state(handle), State::Established);
}
