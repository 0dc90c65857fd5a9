//! Each attempt is one line, and the first denial of a name is reported with its rule.

use std::net::Ipv4Addr;

use metaservice_nic::Network;
use metaservice_testing::network::ipv4_frame;
use simple_dns::TYPE;
use smoltcp::socket::raw;
use smoltcp::wire::IpProtocol;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::world::{World, echo, packets, serve};

#[tokio::test]
async fn each_attempt_is_one_line_also_what_is_open_at_the_end() {
    let mut world = World::new(&["*.example:22"]);
    world.outside.name("a.example", &["93.184.216.34"]);
    world.outside.peer("93.184.216.34:22", serve(echo).await);
    let (mut allowed, mut denied) = (0, 0);
    for round in 0..20 {
        let stands = world.resolve("a.example").await;
        for port in [22, 23] {
            let (_, there) = world.connect(stands, port).await;
            assert_eq!(there, port == 22);
        }
        world.connect(Ipv4Addr::new(93, 184, 216, 34), 22).await;
        world.query(Network::default().router, &format!("n{round}.test"), TYPE::A).await;
        (allowed, denied) = (allowed + 1, denied + 3);
    }
    let (lines, totals) = world.stop().await;
    let count = |verdict: &str| lines.iter().filter(|line| line["verdict"] == verdict).count();
    assert_eq!((count("allowed"), count("denied")), (allowed, denied));
    assert_eq!((totals.allowed, totals.denied), (allowed as u64, denied as u64));
    assert_eq!(totals.unrecorded, 0);
    let names = lines.iter().filter(|line| line["protocol"] == "dns").count();
    assert_eq!(names, 20);
}

#[tokio::test]
async fn a_packet_whose_form_is_wrong_is_an_attempt_too() {
    let mut world = World::new(&["93.184.216.34:53/udp"]);
    let socket = packets(&mut world.machine.guest, IpProtocol::Udp);
    let datagram = [0x17, 0x70, 0, 123, 0, 9, 0, 0, b'x'];
    let forged = ipv4_frame([10, 0, 2, 99].into(), [93, 184, 216, 34].into(), 17, &datagram);
    let guest = &mut world.machine.guest;
    guest.sockets.get_mut::<raw::Socket>(socket).send_slice(&forged[14..]).unwrap();
    world.lines(1).await;
    let (lines, totals) = world.stop().await;
    assert_eq!((lines.len(), totals.denied, totals.unrecorded), (1, 1, 0));
    let line = &lines[0];
    assert_eq!(line["port"], 123);
    assert_eq!((&line["verdict"], &line["reason"]), (&"denied".into(), &"packet".into()));
    assert_eq!((&line["address"], &line["protocol"]), (&"93.184.216.34".into(), &"udp".into()));
}

#[tokio::test]
async fn the_first_denial_says_which_rule_would_allow_it() {
    let mut world = World::new(&["a.example:22", "!b.example"]);
    let router = Network::default().router;
    for _ in 0..3 {
        world.query(router, "pypi.org", TYPE::A).await;
        world.query(router, "pypi.org", TYPE::AAAA).await;
    }
    let stands = world.resolve("a.example").await;
    world.connect(stands, 443).await;
    world.connect(Ipv4Addr::new(10, 1, 2, 3), 5432).await;
    let mut rules = Vec::new();
    for _ in 0..3 {
        let denial = world.gateway.denial().await.unwrap();
        rules.push(denial.rule.unwrap());
    }
    assert_eq!(rules, ["pypi.org", "a.example:443", "10.1.2.3:5432"]);
    // Each of them is a rule that allows what it is for.
    for rule in &rules {
        assert!(rule.parse::<metaservice_egress::Rule>().is_ok());
    }
}

#[tokio::test]
async fn a_gateway_that_is_stopped_ends_its_connections() {
    let mut world = World::new(&["a.example"]);
    world.outside.name("a.example", &["93.184.216.34"]);
    let (seen, mut errors) = mpsc::channel(1);
    let peer = serve(move |mut stream: TcpStream| {
        let seen = seen.clone();
        async move {
            let error = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
            seen.send(error.kind()).await.unwrap();
        }
    });
    world.outside.peer("93.184.216.34:22", peer.await);
    let handle = world.open("a.example", 22).await;
    world.send(handle, b"a part of an upload").await;
    world.until(|guest| guest.tcp(handle).send_queue() == 0).await;
    let control = world.control.clone();
    let (lines, _) = world.stop().await;
    assert_eq!(lines.len(), 1);
    // The peer does not take the part for all.
    assert_eq!(errors.recv().await, Some(std::io::ErrorKind::ConnectionReset));
    // A handle that is left can still be asked.
    assert_eq!(control.totals().allowed, 1);
    assert_eq!(control.names().len(), 1);
}

#[tokio::test]
async fn a_log_that_is_full_ends_with_a_whole_line_and_the_rest_is_counted() {
    let file = tempfile::tempfile().unwrap();
    let mut read = file.try_clone().unwrap();
    let mut world = World::with(&["a.example"], |config| {
        config.log = Some(metaservice_gateway::LogFile::new(file, 1000));
    });
    for number in 0..30 {
        world.query(Network::default().router, &format!("n{number}.test"), TYPE::A).await;
    }
    let (lines, totals) = world.stop().await;
    let mut text = String::new();
    std::io::Seek::rewind(&mut read).unwrap();
    std::io::Read::read_to_string(&mut read, &mut text).unwrap();
    assert!(text.len() <= 1000 && text.ends_with("}\n"), "{text}");
    assert_eq!((text.lines().count(), totals.denied), (lines.len(), 30));
    assert_eq!(totals.unrecorded, 30 - lines.len() as u64);
    assert!(!lines.is_empty() && totals.unrecorded > 0);
}
