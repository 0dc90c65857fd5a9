use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn policy(allow: &[&str], deny: &[&str]) -> Policy {
    let rules = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
    Policy::new(rules(allow), rules(deny))
}

fn gate_with(limits: Limits, allow: &[&str]) -> Gate {
    Gate::new(policy(allow, &[]), limits, Vec::new(), Instant::now())
}

fn gate(allow: &[&str]) -> Gate {
    gate_with(Limits::default(), allow)
}

/// A question of type A, as bytes.
fn question(name: &str) -> Vec<u8> {
    let mut packet = simple_dns::Packet::new_query(9);
    packet.questions.push(simple_dns::Question::new(
        simple_dns::Name::new(name).unwrap(),
        simple_dns::TYPE::A.into(),
        simple_dns::CLASS::IN.into(),
        false,
    ));
    packet.build_bytes_vec().unwrap()
}

/// The address that stands for a name.
fn address(gate: &mut Gate, name: &str) -> Ipv4Addr {
    let Asked::Answered(answer) = gate.ask(&question(name), Instant::now()) else {
        panic!("{name} is refused")
    };
    let answer = simple_dns::Packet::parse(&answer).unwrap();
    match answer.answers[0].rdata {
        simple_dns::rdata::RData::A(ref a) => a.address.into(),
        ref other => panic!("{other:?}"),
    }
}

fn begin(gate: &mut Gate, address: Ipv4Addr, port: u16) -> Result<FlowId, Reason> {
    let begun = gate.begin(SocketAddrV4::new(address, port), Transport::Tcp, Instant::now());
    begun.map(|begun| begun.id).map_err(|denied| denied.reason)
}

fn peer(text: &str) -> Option<Peer> {
    Some(Peer { address: text.parse().unwrap(), own: false })
}

#[test]
fn a_name_is_its_own_address_and_nothing_else_is() {
    let mut gate = gate(&["a.example:443", "b.example"]);
    let (a, b) = (address(&mut gate, "a.example"), address(&mut gate, "B.Example."));
    assert!(begin(&mut gate, a, 443).is_ok());
    assert_eq!(begin(&mut gate, a, 80), Err(Reason::NoRule));
    assert!(begin(&mut gate, b, 80).is_ok());
    let unused = Ipv4Addr::from_bits(b.to_bits() + 1);
    assert_eq!(begin(&mut gate, unused, 443), Err(Reason::NoRule));
    assert_eq!(begin(&mut gate, Ipv4Addr::new(93, 184, 216, 34), 443), Err(Reason::NoRule));
    // Names are for TCP.
    let quic = gate.begin(SocketAddrV4::new(a, 443), Transport::Udp, Instant::now());
    assert_eq!(quic.unwrap_err().reason, Reason::NoRule);
}

#[test]
fn an_unused_address_of_the_names_is_denied_also_by_rules_that_contain_it() {
    let mut gate = gate(&["198.18.0.0/15", "public"]);
    assert_eq!(begin(&mut gate, Ipv4Addr::new(198, 18, 1, 0), 443), Err(Reason::NoRule));
}

#[test]
fn what_was_dialled_is_decided_again() {
    let mut gate = gate(&["a.example", "10.0.0.0/8"]);
    let a = address(&mut gate, "a.example");
    let first = begin(&mut gate, a, 22).unwrap();
    assert_eq!(gate.connected(first, peer("1.1.1.1")), Ok(Inspection::None));
    let private = begin(&mut gate, a, 443).unwrap();
    assert_eq!(gate.connected(private, peer("10.0.0.1")), Ok(Inspection::Tls));
    let metadata = begin(&mut gate, a, 80).unwrap();
    assert_eq!(gate.connected(metadata, peer("169.254.169.254")), Err(Reason::Policy));
    let changed = begin(&mut gate, a, 80).unwrap();
    assert_eq!(gate.set_policy(policy(&["a.example:22"], &[])), [private, metadata, changed]);
    assert_eq!(gate.connected(changed, peer("1.1.1.1")), Err(Reason::Policy));
}

#[test]
fn a_new_policy_cuts_exactly_what_it_does_not_allow() {
    let mut gate = gate(&["public", "10.0.0.0/8"]);
    let a = address(&mut gate, "a.example");
    let open = |gate: &mut Gate, to: Ipv4Addr, port, at: &str| {
        let id = begin(gate, to, port).unwrap();
        gate.connected(id, peer(at)).unwrap();
        id
    };
    let ssh = open(&mut gate, a, 22, "1.1.1.1");
    let tls = open(&mut gate, a, 443, "1.1.1.1");
    let to_private = open(&mut gate, a, 22, "10.0.0.1");
    let raw = open(&mut gate, Ipv4Addr::new(9, 9, 9, 9), 443, "9.9.9.9");
    assert!(gate.set_policy(policy(&["public", "10.0.0.0/8"], &[])).is_empty());
    // The ClientHello of `tls` was not read, because no rule of names allowed it.
    let cut = gate.set_policy(policy(&["a.example"], &[]));
    assert_eq!(cut, [tls, to_private, raw]);
    for id in cut {
        gate.end(id, Instant::now());
    }
    assert_eq!(gate.set_policy(policy(&["a.example"], &["1.1.1.0/24"])), [ssh]);
}

#[test]
fn an_own_address_of_the_host_needs_a_rule_of_addresses() {
    let own = |text: &str| Some(Peer { address: text.parse().unwrap(), own: true });
    let attempt = |target| Attempt { target, port: 443, transport: Transport::Tcp };
    let name = || attempt(Target::Name("a.example".parse().unwrap()));
    let raw = |text: &str| attempt(Target::Address(text.parse().unwrap()));
    let open = policy(&["public", "a.example"], &[]);
    assert!(allows_peer(&open, &name(), peer("1.1.1.1")).is_ok());
    assert_eq!(allows_peer(&open, &name(), own("1.1.1.1")), Err(Reason::NotPublic));
    assert_eq!(allows_peer(&open, &raw("1.1.1.1"), own("1.1.1.1")), Err(Reason::NotPublic));
    let explicit = policy(&["1.1.1.1", "a.example"], &[]);
    assert!(allows_peer(&explicit, &name(), own("1.1.1.1")).is_ok());
    assert!(allows_peer(&explicit, &raw("1.1.1.1"), own("1.1.1.1")).is_ok());
    let host = policy(&["host:443"], &[]);
    assert!(allows_peer(&host, &attempt(Target::Host), own("127.0.0.1")).is_ok());
}

#[test]
fn each_table_has_its_limit_and_room_again() {
    let mut limits = Limits::default();
    (limits.connections, limits.dialling, limits.per_name, limits.associations) = (4, 2, 3, 1);
    let mut gate = gate_with(limits, &["public"]);
    let (a, b) = (address(&mut gate, "a.example"), address(&mut gate, "b.example"));
    let dial = |gate: &mut Gate, to| begin(gate, to, 443);
    let first = dial(&mut gate, a).unwrap();
    let second = dial(&mut gate, a).unwrap();
    assert_eq!(dial(&mut gate, b), Err(Reason::Limit), "dialling");
    for id in [first, second] {
        gate.connected(id, peer("1.1.1.1")).unwrap();
    }
    let third = dial(&mut gate, a).unwrap();
    gate.connected(third, peer("1.1.1.1")).unwrap();
    assert_eq!(dial(&mut gate, a), Err(Reason::Limit), "one name");
    let fourth = dial(&mut gate, b).unwrap();
    gate.connected(fourth, peer("1.1.1.1")).unwrap();
    assert_eq!(dial(&mut gate, b), Err(Reason::Limit), "connections");
    gate.end(first, Instant::now());
    assert!(dial(&mut gate, a).is_ok());
    let ntp = SocketAddrV4::new(b, 123);
    let associate = |gate: &mut Gate| gate.begin(ntp, Transport::Udp, Instant::now());
    let association = associate(&mut gate).unwrap();
    assert_eq!(associate(&mut gate).unwrap_err().reason, Reason::Limit);
    gate.end(association.id, Instant::now());
    assert!(associate(&mut gate).is_ok());
}

#[test]
fn what_clients_look_for_beside_an_allowed_name_has_no_answer_and_is_no_denial() {
    let (mut gate, now) = (gate_with(Limits::default(), &["a.example"]), Instant::now());
    let beside = gate.ask(&question("_http._tcp.a.example"), now);
    let Asked::Answered(answer) = beside else { panic!("{beside:?}") };
    assert_eq!((answer[3] & 15, &answer[6..8]), (0, &[0, 0][..]));
    for name in ["_http._tcp.evil.test", "_http.b.a.example", "b._tcp.a.example"] {
        let other = gate.ask(&question(name), now);
        assert!(matches!(other, Asked::Denied(..)), "{name}: {other:?}");
    }
}

#[test]
fn a_question_that_a_rule_denies_names_the_rule() {
    let mut gate = gate(&["public"]);
    gate.set_policy(policy(&["public"], &["*.evil.test"]));
    let asked = gate.ask(&question("www.evil.test"), Instant::now());
    let Asked::Denied(denied) = asked else { panic!("{asked:?}") };
    assert_eq!(denied.rule.unwrap().to_string(), "*.evil.test");
    assert_eq!(denied.reason, Reason::Rule);
}

#[test]
fn questions_are_answered_by_the_policy() {
    let mut limits = Limits::default();
    (limits.queries, limits.names) = (3, 1);
    let (mut gate, now) = (gate_with(limits, &["*.example", "host:80"]), Instant::now());
    assert!(matches!(gate.ask(&question("a.example"), now), Asked::Answered(_)));
    let Asked::Denied(denied) = gate.ask(&question("evil.test"), now) else { panic!() };
    assert_eq!((denied.name.unwrap().as_str(), denied.rule), ("evil.test", None));
    assert_eq!(denied.reason, Reason::NoRule);
    assert_eq!(denied.answer[3] & 0x0f, 5, "REFUSED");
    // The one address is taken by a connection.
    let host = address(&mut gate, "host");
    let connection = begin(&mut gate, host, 80).unwrap();
    let full = gate.ask(&question("b.example"), now);
    let Asked::Denied(full) = full else { panic!("{full:?}") };
    assert_eq!(full.reason, Reason::Limit);
    gate.end(connection, now);
    assert!(matches!(gate.ask(&question("b.example"), now), Asked::Answered(_)));
    assert_eq!(begin(&mut gate, host, 80), Err(Reason::NoRule), "its name is gone");
    assert!(matches!(gate.ask(&question("c.example"), now), Asked::Answered(_)));
    assert!(matches!(gate.ask(&question("c.example"), now), Asked::TooMany(_)));
    assert_eq!(gate.ask(b"short", now), Asked::Ignored);
    let later = now + Duration::from_secs(60);
    assert!(matches!(gate.ask(&question("c.example"), later), Asked::Answered(_)));
}

#[test]
fn names_travel_with_a_snapshot() {
    let mut before = gate(&["a.example"]);
    let a = address(&mut before, "a.example");
    let policy = policy(&["a.example"], &[]);
    let mut after = Gate::new(policy, Limits::default(), before.names(), Instant::now());
    assert!(begin(&mut after, a, 443).is_ok());
}

proptest! {
    #[test]
    fn counts_are_those_of_the_open_flows(
        steps in prop::collection::vec((0_u8..5, 0_usize..8), 0..200),
    ) {
        let mut limits = Limits::default();
        (limits.connections, limits.dialling, limits.per_name, limits.associations) = (6, 3, 4, 2);
        limits.queries = 1_000_000;
        let mut gate = gate_with(limits, &["public"]);
        let mut open = Vec::new();
        for (kind, number) in steps {
            let name = address(&mut gate, &format!("n{}.example", number % 3));
            let to = SocketAddrV4::new(name, 443);
            match kind {
                0 | 1 => {
                    let transport = if kind == 0 { Transport::Tcp } else { Transport::Udp };
                    open.extend(gate.begin(to, transport, Instant::now()).ok().map(|it| it.id));
                }
                2 if !open.is_empty() => {
                    let id = open[number % open.len()];
                    let _ = gate.connected(id, peer("1.1.1.1"));
                }
                3 if !open.is_empty() => {
                    gate.end(open.swap_remove(number % open.len()), Instant::now());
                }
                _ => prop_assert!(gate.set_policy(policy(&["public"], &[])).is_empty()),
            }
            let flows = || gate.flows.values();
            let tcp = |flow: &&Flow| flow.attempt.transport == Transport::Tcp;
            prop_assert_eq!(gate.connections, flows().filter(tcp).count());
            let dialling = flows().filter(tcp).filter(|flow| flow.phase == Phase::Dialling);
            prop_assert_eq!(gate.dialling, dialling.count());
            prop_assert_eq!(gate.associations, gate.flows.len() - gate.connections);
            prop_assert_eq!(gate.per_name.values().sum::<usize>(), gate.connections);
            prop_assert!(gate.connections <= 6 && gate.dialling <= 3 && gate.associations <= 2);
            prop_assert!(gate.per_name.values().all(|count| (1..=4).contains(count)));
        }
    }
}
