//! Ways around a policy, of which none passes. Tests in machines have more.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use metaservice_nic::Network;
use metaservice_testing::network::Guest;
use simple_dns::{RCODE, TYPE};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::hello::{hello, message, record, sni};
use crate::world::{TIMEOUT, World, policy, serve};

const PEER: Ipv4Addr = Ipv4Addr::new(93, 184, 216, 34);

/// A world with the allowed name `a.example`, and what its peer gets on port 80 and 443.
async fn world(rules: &[&str]) -> (World, mpsc::UnboundedReceiver<Vec<u8>>) {
    let (seen, sees) = mpsc::unbounded_channel();
    let peer = serve(move |mut stream: TcpStream| {
        let seen = seen.clone();
        async move {
            let mut all = Vec::new();
            let _ = stream.read_to_end(&mut all).await;
            let _ = seen.send(all);
        }
    });
    let peer = peer.await;
    let world = World::new(rules);
    world.outside.name("a.example", &["93.184.216.34"]);
    world.outside.name("b.example", &["93.184.216.34"]);
    for port in [80, 443, 8443] {
        world.outside.peer(&format!("93.184.216.34:{port}"), peer);
    }
    (world, sees)
}

/// Sends these pieces, each in a packet of its own.
async fn send_pieces(world: &mut World, handle: SocketHandle, pieces: &[&[u8]]) {
    for piece in pieces {
        world.send(handle, piece).await;
        world.until(|guest| guest.tcp(handle).send_queue() == 0).await;
    }
}

#[tokio::test]
async fn a_name_never_leads_to_the_host_or_its_networks() {
    for address in [
        "127.0.0.1",
        "0.0.0.0",
        "::1",
        "::",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "fd00:ec2::254",
        "168.63.129.16",
        "100.100.100.200",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "fe80::1",
        "fd00::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::1",
        "198.18.0.5",
    ] {
        for rules in [&["a.example"][..], &["public"]] {
            let mut world = World::new(rules);
            // As after a CNAME to a private name: the host sees only its address.
            world.outside.name("a.example", &[address]);
            let stands = world.resolve("a.example").await;
            let (_, there) = world.connect(stands, 22).await;
            assert!(!there, "{address}");
            assert_eq!(world.outside.dialled(), [] as [&str; 0]);
            assert_eq!(world.outcome().await, ("denied".into(), "not-public".into()), "{address}");
        }
    }
}

#[tokio::test]
async fn a_denial_is_immediate() {
    let mut world = World::new(&["a.example:443"]);
    let stands = world.resolve("a.example").await;
    let mut fastest = Duration::MAX;
    // The tests share the processors: the fastest one tells.
    for _ in 0..10 {
        let begun = Instant::now();
        assert!(!world.connect(stands, 80).await.1);
        fastest = fastest.min(begun.elapsed());
    }
    assert!(fastest < Duration::from_millis(50), "{fastest:?}");
}

#[tokio::test]
async fn of_mixed_addresses_only_the_public_ones_are_dialled() {
    let (mut world, _) = world(&["a.example"]).await;
    world.outside.name("a.example", &["127.0.0.1", "::1", "93.184.216.34", "10.0.0.1"]);
    world.open("a.example", 443).await;
    assert_eq!(world.outside.dialled(), ["93.184.216.34:443"]);
}

#[tokio::test]
async fn a_name_that_changes_its_address_is_checked_each_time() {
    let (mut world, _) = world(&["a.example"]).await;
    let stands = world.resolve("a.example").await;
    assert!(world.connect(stands, 443).await.1);
    world.outside.name("a.example", &["127.0.0.1"]);
    assert!(!world.connect(stands, 443).await.1);
    // Each connection resolves once: what was checked is what is dialled.
    assert_eq!(world.outside.resolved(), ["a.example"; 2]);
    assert_eq!(world.outside.dialled(), ["93.184.216.34:443"]);
}

#[tokio::test]
async fn the_hosts_own_public_address_is_the_host() {
    for rules in [&["a.example"][..], &["public"]] {
        let (mut world, _) = world(rules).await;
        world.outside.own("93.184.216.34");
        let stands = world.resolve("a.example").await;
        assert!(!world.connect(stands, 443).await.1);
        assert!(!world.connect(PEER, 443).await.1);
        assert_eq!(world.outside.dialled(), [] as [&str; 0]);
    }
}

#[tokio::test]
async fn addresses_are_no_names() {
    let (mut world, _) = world(&["a.example"]).await;
    let stands = world.resolve("a.example").await;
    let next = Ipv4Addr::from_bits(stands.to_bits() + 1);
    for raw in [
        PEER,
        next,
        Ipv4Addr::new(10, 0, 2, 2),
        Ipv4Addr::new(10, 0, 2, 99),
        Ipv4Addr::new(192, 168, 0, 1),
        Ipv4Addr::new(169, 254, 169, 253),
        Ipv4Addr::new(100, 100, 100, 200),
    ] {
        assert!(!world.connect(raw, 443).await.1, "{raw}");
    }
    assert_eq!(world.outside.dialled(), [] as [&str; 0]);
}

#[tokio::test]
async fn under_open_nothing_of_the_host_is_public() {
    let (mut world, _) = world(&["public"]).await;
    assert!(world.connect(PEER, 443).await.1);
    for raw in [[10, 0, 0, 1], [192, 168, 0, 1], [172, 31, 0, 1], [100, 64, 0, 1], [169, 254, 1, 9]]
    {
        assert!(!world.connect(raw.into(), 443).await.1, "{raw:?}");
    }
    let host = world.query(Network::default().router, "host", TYPE::A).await;
    assert_eq!(host.code, RCODE::Refused);
}

#[tokio::test]
async fn tls_for_another_name_never_reaches_the_peer() {
    let ech = || (0xfe0d, vec![0; 4]);
    let whole = message(&[sni("b.example")]);
    let (front, back) = whole.split_at(60);
    let two_hellos = [message(&[sni("a.example")]), message(&[sni("b.example")])].concat();
    let right = hello("a.example");
    for (what, pieces) in [
        ("another name", vec![hello("b.example")]),
        ("a name below", vec![hello("x.a.example")]),
        ("a final dot", vec![hello("a.example.")]),
        ("an address", vec![hello("93.184.216.34")]),
        ("no name", vec![record(&message(&[]))]),
        ("an encrypted one", vec![record(&message(&[sni("a.example"), ech()]))]),
        ("two names", vec![record(&message(&[sni("a.example"), sni("b.example")]))]),
        ("split records", vec![record(front), record(back)]),
        ("split packets", hello("b.example").chunks(7).map(<[u8]>::to_vec).collect()),
        ("two hellos", vec![record(&two_hellos)]),
        ("a late name", vec![record(&message(&[(21, vec![0; 9000]), sni("b.example")]))]),
        ("too large", vec![record(&message(&[(21, vec![0; 16_000])])), record(&[0; 900])]),
        ("an alert first", vec![vec![21, 3, 3, 0, 2, 1, 0], right.clone()]),
        ("no tls", vec![b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n".to_vec()]),
        ("a tunnel", vec![b"CONNECT b.example:443 HTTP/1.1\r\n\r\n".to_vec()]),
    ] {
        let (mut world, mut sees) = world(&["a.example"]).await;
        let handle = world.open("a.example", 443).await;
        let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        let sends = async {
            for piece in &pieces {
                world.machine.guest.send(handle, piece);
                let gone = |guest: &mut Guest| {
                    guest.tcp(handle).send_queue() == 0 || guest.state(handle) == State::Closed
                };
                world.machine.run_until(gone).await;
            }
        };
        tokio::time::timeout(TIMEOUT, sends).await.expect(what);
        world.is_reset(handle).await;
        assert_eq!(world.outcome().await, ("denied".into(), "wrong-name".into()), "{what}");
        let passed = world.while_running(sees.recv()).await.unwrap();
        assert_eq!(passed, b"", "{what}");
    }
}

#[tokio::test]
async fn tls_for_the_name_passes_whole_however_it_is_cut() {
    let small = hello("A.Example");
    let large = record(&message(&[(51, vec![9; 1800]), sni("A.Example")]));
    for (hello, size) in [(&small, 1), (&large, 100), (&large, 1400), (&large, 9000)] {
        let (mut world, mut sees) = world(&["a.example"]).await;
        let handle = world.open("a.example", 443).await;
        let pieces: Vec<_> = hello.chunks(size).collect();
        send_pieces(&mut world, handle, &pieces).await;
        world.machine.guest.tcp(handle).close();
        let passed = world.while_running(sees.recv()).await.unwrap();
        assert!(passed == *hello, "{size}");
    }
}

/// A server that has asked for other parameters may use the name of the second ClientHello.
#[tokio::test]
async fn a_later_hello_for_another_name_never_reaches_the_peer() {
    let right = hello("a.example");
    let change = vec![20, 3, 3, 0, 1, 1];
    let early_data = [&[23, 3, 3, 0, 9][..], b"encrypted"].concat();
    let alert = vec![21, 3, 3, 0, 2, 1, 90];
    let whole = message(&[sni("b.example")]);
    for (what, between, wrong) in [
        ("at once", vec![], hello("b.example")),
        ("after a change of cipher", change.clone(), hello("b.example")),
        ("after early data", early_data.clone(), hello("b.example")),
        ("after an alert", alert, hello("b.example")),
        ("after all of them", [change, early_data].concat(), hello("b.example")),
        ("in two records", vec![], [record(&whole[..1]), record(&whole[1..])].concat()),
        ("without a name", vec![], record(&message(&[]))),
        ("not encrypted at all", vec![], b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n".to_vec()),
    ] {
        let (mut world, mut sees) = world(&["a.example"]).await;
        let handle = world.open("a.example", 443).await;
        let before = [&right[..], &between].concat();
        send_pieces(&mut world, handle, &[&before]).await;
        world.send(handle, &wrong).await;
        world.is_reset(handle).await;
        assert_eq!(world.outcome().await, ("denied".into(), "wrong-name".into()), "{what}");
        let passed = world.while_running(sees.recv()).await.unwrap();
        assert!(before.starts_with(&passed), "{what}: {passed:?}");
    }
    // A second one with the name, as after a retry of the server, passes.
    let (mut world, mut sees) = world(&["a.example"]).await;
    let handle = world.open("a.example", 443).await;
    let twice = [&right[..], &[20, 3, 3, 0, 1, 1], &right].concat();
    world.send(handle, &twice).await;
    world.machine.guest.tcp(handle).close();
    assert_eq!(world.while_running(sees.recv()).await.unwrap(), twice);
}

#[tokio::test]
async fn requests_for_another_name_never_reach_the_peer() {
    let right = b"GET /1 HTTP/1.1\r\nHost: a.example\r\n\r\n";
    let post = b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello";
    for (what, first, wrong) in [
        ("another host", &b""[..], &b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n"[..]),
        ("a later request", right, b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n"),
        ("after a body", post, b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n"),
        ("absolute form", right, b"GET http://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n"),
        ("both", right, b"GET http://a.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n"),
        ("a tunnel", right, b"CONNECT a.example:80 HTTP/1.1\r\nHost: a.example\r\n\r\n"),
        ("two hosts", b"", b"GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n"),
        ("no host", b"", b"GET / HTTP/1.0\r\n\r\n"),
        ("an address", b"", b"GET / HTTP/1.1\r\nHost: 93.184.216.34\r\n\r\n"),
        ("brackets", b"", b"GET / HTTP/1.1\r\nHost: [::ffff:93.184.216.34]\r\n\r\n"),
        ("another port", b"", b"GET / HTTP/1.1\r\nHost: a.example:8080\r\n\r\n"),
        ("punycode", b"", b"GET / HTTP/1.1\r\nHost: xn--a-ecp.example\r\n\r\n"),
        ("a fold", b"", b"GET / HTTP/1.1\r\nHost: a.example\r\n b.example\r\n\r\n"),
        (
            "http/2 by an upgrade",
            b"",
            b"GET / HTTP/1.1\r\nHost: a.example\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
        ),
        ("http/2", b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (
            "two lengths",
            b"",
            b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            "a late upgrade",
            right,
            b"GET / HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\n\r\n",
        ),
    ] {
        let (mut world, mut sees) = world(&["a.example"]).await;
        let handle = world.open("a.example", 80).await;
        world.send(handle, first).await;
        if !first.is_empty() {
            world.until(|guest| guest.tcp(handle).send_queue() == 0).await;
        }
        world.send(handle, wrong).await;
        world.is_reset(handle).await;
        assert_eq!(world.outcome().await, ("denied".into(), "wrong-name".into()), "{what}");
        let passed = world.while_running(sees.recv()).await.unwrap();
        assert!(passed.is_empty() || passed == first, "{what}: {passed:?}");
    }
}

#[tokio::test]
async fn requests_for_the_name_pass_in_all_its_spellings() {
    let requests = b"GET / HTTP/1.1\r\nHost: A.example\r\n\r\n\
        GET http://a.EXAMPLE/x HTTP/1.1\r\nHost: a.example:80\r\n\r\n\
        GET / HTTP/1.1\r\nHost: a.example.\r\n\r\n";
    let (mut world, mut sees) = world(&["a.example"]).await;
    let handle = world.open("A.Example.", 80).await;
    world.send(handle, requests).await;
    world.machine.guest.tcp(handle).close();
    assert_eq!(world.while_running(sees.recv()).await.unwrap(), requests);
}

#[tokio::test]
async fn a_rule_accepts_what_cannot_be_read_only_if_it_says_so() {
    let unreadable = record(&message(&[]));
    let (mut world, mut sees) = world(&["a.example/any-sni"]).await;
    let handle = world.open("a.example", 443).await;
    world.send(handle, &unreadable).await;
    world.machine.guest.tcp(handle).close();
    assert_eq!(world.while_running(sees.recv()).await.unwrap(), unreadable);
    let other = world.open("a.example", 443).await;
    world.send(other, &hello("b.example")).await;
    world.is_reset(other).await;
}

#[tokio::test]
async fn a_new_policy_cuts_what_it_does_not_allow() {
    let (mut world, mut sees) = world(&["a.example", "b.example"]).await;
    let cut = world.open("a.example", 8443).await;
    let kept = world.open("b.example", 8443).await;
    for handle in [cut, kept] {
        world.send(handle, b"before").await;
        world.until(|guest| guest.tcp(handle).send_queue() == 0).await;
    }
    let stands = world.resolve("a.example").await;
    world.control.set_policy(policy(&["b.example"]));
    world.is_reset(cut).await;
    assert_eq!(world.outcome().await, ("allowed".into(), "policy".into()));
    world.while_running(sees.recv()).await.unwrap();
    assert!(!world.connect(stands, 8443).await.1);
    let answer = world.query(Network::default().router, "a.example", TYPE::A).await;
    assert_eq!(answer.code, RCODE::Refused);
    world.send(kept, b" and after").await;
    world.machine.guest.tcp(kept).close();
    assert_eq!(world.while_running(sees.recv()).await.unwrap(), b"before and after");
}

#[tokio::test]
async fn a_new_policy_ends_what_is_being_dialled() {
    let mut world = World::new(&["a.example"]);
    world.outside.name("a.example", &["93.184.216.34"]);
    world.outside.silent("93.184.216.34:443");
    let stands = world.resolve("a.example").await;
    let to = std::net::SocketAddrV4::new(stands, 443);
    let handle = world.machine.guest.connect_to(to);
    let outside = world.outside.clone();
    world.until(|_| !outside.dialled().is_empty()).await;
    world.control.set_policy(policy(&[]));
    world.is_reset(handle).await;
    assert_eq!(world.outcome().await, ("denied".into(), "policy".into()));
}
