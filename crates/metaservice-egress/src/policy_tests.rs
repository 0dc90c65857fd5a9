use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;
use crate::audit::{Reason, Record, suggestion};

fn rules(texts: &[&str]) -> Vec<Rule> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn policy(allow: &[&str], deny: &[&str]) -> Policy {
    Policy::new(rules(allow), rules(deny))
}

fn attempt(text: &str) -> Attempt {
    text.parse().unwrap()
}

/// An address that the host does not have.
fn foreign(text: &str) -> Peer {
    Peer { address: text.parse().unwrap(), own: false }
}

#[track_caller]
fn check(policy: &Policy, allowed: &[&str], denied: &[&str]) {
    for text in allowed {
        assert!(policy.decide(&attempt(text)).is_allowed(), "{text} is denied");
    }
    for text in denied {
        assert!(!policy.decide(&attempt(text)).is_allowed(), "{text} is allowed");
    }
}

#[test]
fn without_rules_nothing_is_allowed() {
    check(&Policy::default(), &[], &["a.example:443", "1.1.1.1:443", "host:80", "1.1.1.1:53/udp"]);
}

#[test]
fn a_name_is_allowed_by_its_rules_only() {
    check(
        &policy(&["a.example:443", "*.b.example"], &[]),
        &["a.example:443", "x.b.example:1", "x.y.b.example:65535"],
        &["a.example:80", "b.example:443", "xb.example:443", "a.example:443/udp", "1.1.1.1:443"],
    );
}

#[test]
fn an_address_is_allowed_by_networks_only() {
    check(
        &policy(&["10.0.0.0/8:5432", "1.1.1.1:53/udp", "a.example"], &[]),
        &["10.1.2.3:5432", "[::ffff:10.1.2.3]:5432", "1.1.1.1:53/udp"],
        &["10.1.2.3:5433", "11.1.2.3:5432", "1.1.1.1:53", "10.1.2.3:5432/udp"],
    );
}

#[test]
fn public_is_the_internet_and_nothing_of_the_host() {
    check(
        &policy(&["public"], &[]),
        &["a.example:443", "1.1.1.1:443", "1.1.1.1:123/udp", "[2606:4700::1]:443"],
        &[
            "127.0.0.1:80",
            "10.0.0.1:80",
            "192.168.0.1:53/udp",
            "169.254.169.254:80",
            "100.64.0.1:80",
            "224.0.0.1:80",
            "[::1]:80",
            "[::ffff:10.0.0.1]:80",
            "[64:ff9b::a00:1]:80",
            "[2002:a00:1::1]:80",
            "host:80",
        ],
    );
}

#[test]
fn a_port_of_the_host_is_allowed_by_its_name_only() {
    check(&policy(&["host:5432"], &[]), &["host:5432"], &["host:80", "127.0.0.1:5432"]);
}

#[test]
fn a_rule_that_denies_wins() {
    let policy = policy(&["public", "10.0.0.0/8"], &["*.ads.example", "1.1.1.0/24", "10.9.0.0/16"]);
    check(
        &policy,
        &["a.example:443", "1.1.2.1:443", "10.8.0.1:80"],
        // A denied network is denied for each protocol.
        &["x.ads.example:443", "1.1.1.1:443", "1.1.1.1:53/udp", "10.9.0.1:80"],
    );
}

#[test]
fn a_name_leads_to_public_addresses_or_to_allowed_networks() {
    let policy = policy(&["db.example:5432", "10.1.0.0/16:5432"], &["1.1.1.1"]);
    let attempt = attempt("db.example:5432");
    let decide_peer = |address: &str| policy.decide_peer(&attempt, foreign(address));
    assert!(decide_peer("8.8.8.8").is_allowed());
    assert!(decide_peer("10.1.2.3").is_allowed());
    assert_eq!(decide_peer("10.2.0.1"), Verdict::NotPublic(AddressClass::Private));
    assert_eq!(decide_peer("127.0.0.1"), Verdict::NotPublic(AddressClass::Loopback));
    assert_eq!(decide_peer("169.254.169.254"), Verdict::NotPublic(AddressClass::LinkLocal));
    assert_eq!(decide_peer("::ffff:127.0.0.1"), Verdict::NotPublic(AddressClass::Loopback));
    assert!(matches!(decide_peer("1.1.1.1"), Verdict::DeniedBy(_)));
}

#[test]
fn a_resolver_answers_for_names_that_are_allowed_at_some_port() {
    let policy = policy(&["*.example:443"], &["no.example", "part.example:80"]);
    let resolves = |name: &str| policy.decide_name(&name.parse().unwrap()).is_allowed();
    assert!(resolves("a.example"));
    assert!(resolves("part.example"));
    assert!(!resolves("no.example"));
    let denied = policy.decide_name(&"no.example".parse().unwrap());
    assert_eq!(denied, Verdict::DeniedBy(&rules(&["no.example"])[0]));
    assert!(!resolves("example"));
    assert!(!resolves("a.other"));
}

#[test]
fn the_name_of_the_host_itself_is_no_name_of_the_internet() {
    let policy = policy(&["public", "*.example"], &[]);
    for name in ["localhost", "a.localhost", "LOCALHOST."] {
        let verdict = policy.decide(&attempt(&format!("{name}:80")));
        assert_eq!(verdict, Verdict::NotPublic(AddressClass::Loopback), "{name}");
        assert!(!policy.decide_name(&name.parse().unwrap()).is_allowed(), "{name}");
    }
}

#[test]
fn no_network_contains_the_loopback_interface() {
    let policy = policy(&["0.0.0.0/1", "::/1"], &[]);
    check(
        &policy,
        &["10.0.0.1:80", "[::ffff:10.0.0.1]:80"],
        &["127.0.0.1:80", "0.0.0.0:80", "[::1]:80", "[::]:80", "[::ffff:127.0.0.1]:80"],
    );
}

#[test]
fn a_denied_network_is_denied_in_each_form_of_its_addresses() {
    check(
        &policy(&["public"], &["1.1.1.0/24:443", "::ffff:9.0.0.0/104"]),
        &["1.1.1.1:80", "[64:ff9b::1.1.2.1]:443"],
        &[
            "1.1.1.1:443",
            "[::ffff:1.1.1.1]:443",
            "[64:ff9b::1.1.1.1]:443",
            "[2002:101:101::1]:443",
            "9.9.9.9:1",
        ],
    );
}

#[test]
fn an_address_of_the_host_is_not_public() {
    let own = |text: &str| Peer { address: text.parse().unwrap(), own: true };
    let open = policy(&["public"], &[]);
    let listed = policy(&["public", "a.example", "1.1.1.1:22"], &[]);
    for target in ["1.1.1.1:22", "a.example:22"] {
        let target = attempt(target);
        assert!(open.decide_peer(&target, foreign("1.1.1.1")).is_allowed(), "{target}");
        let denied = Verdict::NotPublic(AddressClass::Own);
        assert_eq!(open.decide_peer(&target, own("1.1.1.1")), denied, "{target}");
        assert!(listed.decide_peer(&target, own("1.1.1.1")).is_allowed(), "{target}");
        assert!(!listed.decide_peer(&target, own("2606:4700::1")).is_allowed(), "{target}");
    }
    let host = policy(&["host:22"], &[]);
    assert!(host.decide_peer(&attempt("host:22"), own("127.0.0.1")).is_allowed());
}

/// What `public` never contains: the special-purpose registries of IANA, and metadata services.
const NOT_PUBLIC: [&str; 38] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "255.255.255.255/32",
    "168.63.129.16/32",
    "100.100.100.200/32",
    "::/128",
    "::1/128",
    "::/96",
    "::ffff:0:0:0/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/23",
    "2001:db8::/32",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
    "fd00:ec2::254/128",
    "fd20:ce::254/128",
    "4000::/2",
    "8000::/1",
    "2001:10::/28",
    "2001:20::/28",
];

/// A network of the list, and an address in it.
fn not_public() -> impl Strategy<Value = (IpNet, IpAddr)> {
    let network = prop::sample::select(NOT_PUBLIC.to_vec());
    (network, any::<u128>()).prop_map(|(network, bits)| {
        let network: IpNet = network.parse().unwrap();
        let address = match network {
            IpNet::V4(network) => {
                let inside = bits & u128::from(network.hostmask().to_bits());
                let inside = u32::try_from(inside).unwrap();
                Ipv4Addr::from_bits(network.addr().to_bits() | inside).into()
            }
            IpNet::V6(network) => {
                let inside = bits & network.hostmask().to_bits();
                Ipv6Addr::from_bits(network.addr().to_bits() | inside).into()
            }
        };
        (network, address)
    })
}

/// All forms in which an address can be written or delivered.
fn all_forms(address: IpAddr) -> Vec<IpAddr> {
    let IpAddr::V4(v4) = address else { return vec![address] };
    let bits = u128::from(v4.to_bits());
    let of = |prefix: u128| IpAddr::V6(Ipv6Addr::from_bits(prefix | bits));
    vec![
        address,
        of(0xffff << 32),
        of(0x0064_ff9b << 96),
        of(0xffff << 48),
        of(0x0064_ff9b_0001 << 80),
        Ipv6Addr::from_bits(0x2002 << 112 | bits << 80 | 1).into(),
    ]
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let text = prop_oneof![
        Just("public".to_owned()),
        "(\\*\\.)?[ab]\\.example(:(80|443|80-443))?",
        "(10|1)\\.0\\.0\\.0/(8|16)(:(80|443))?(/udp)?",
        "host:(80|443)",
    ];
    text.prop_map(|text| text.parse().unwrap())
}

fn any_attempt() -> impl Strategy<Value = Attempt> {
    let target = prop_oneof![
        "[abc]\\.example",
        "[ab]\\.[ab]\\.example",
        "host",
        "(1|10|127)\\.0\\.[01]\\.1"
    ];
    (target, prop_oneof![Just(80), Just(443), any::<u16>()], any::<bool>()).prop_map(
        |(target, port, udp)| attempt(&format!("{target}:{port}{}", if udp { "/udp" } else { "" })),
    )
}

proptest! {
    #[test]
    fn what_is_not_public_is_denied_in_each_form_and_behind_each_name(
        (network, address) in not_public(),
        port in 1..=u16::MAX,
        udp: bool,
    ) {
        let policy = policy(&["public", "*.example"], &[]);
        let transport = if udp { Transport::Udp } else { Transport::Tcp };
        let name = Attempt { target: Target::Name("a.example".parse().unwrap()), port, transport };
        for form in all_forms(address) {
            let direct = Attempt { target: Target::Address(form), port, transport };
            prop_assert!(!policy.decide(&direct).is_allowed(), "{form} of {network}");
            let peer = Peer { address: form, own: false };
            prop_assert!(!policy.decide_peer(&name, peer).is_allowed(), "{form} of {network}");
        }
    }

    #[test]
    fn the_rule_that_is_suggested_for_an_attempt_allows_it_and_nothing_else(
        attempt in any_attempt(),
        other in any_attempt(),
    ) {
        let mut record = Record::new(attempt.transport.into(), 0);
        record.reason = Reason::of(&Policy::default().decide(&attempt));
        record.port = Some(attempt.port);
        match &attempt.target {
            Target::Address(address) => record.address = Some(*address),
            name => record.name = Some(name.to_string()),
        }
        let Some(rule) = suggestion(&record) else { return Ok(()) };
        let policy = Policy::new([rule.parse().unwrap()], []);
        prop_assert!(policy.decide(&attempt).is_allowed());
        prop_assert_eq!(policy.decide(&other).is_allowed(), other == attempt);
    }

    #[test]
    fn a_rule_that_denies_never_allows(
        allow in prop::collection::vec(any_rule(), 0..4),
        deny in prop::collection::vec(any_rule(), 0..4),
        attempt in any_attempt(),
    ) {
        let policy = Policy::new(allow.clone(), deny.clone());
        let allowed = policy.decide(&attempt).is_allowed();
        // More rules that deny allow nothing more; more rules that allow deny nothing more.
        let open = Policy::new(allow.clone(), []);
        prop_assert!(!allowed || open.decide(&attempt).is_allowed());
        for rule in &deny {
            let one = Policy::new([rule.clone()], []);
            prop_assert!(!(allowed && one.decide(&attempt).is_allowed()));
        }
        // A destination that is allowed is allowed by one of the rules alone.
        let alone = allow.iter().any(|rule| Policy::new([rule.clone()], deny.clone()).decide(&attempt).is_allowed());
        prop_assert_eq!(allowed, alone);
    }

    #[test]
    fn no_name_rule_allows_an_address_of_the_host(address: u32, port in 1..=u16::MAX) {
        let policy = policy(&["a.example", "*.example", "public"], &[]);
        let attempt = Attempt { target: Target::Name("a.example".parse().unwrap()), port, transport: Transport::Tcp };
        let address = IpAddr::from(Ipv4Addr::from_bits(address));
        let led = policy.decide_peer(&attempt, Peer { address, own: false }).is_allowed();
        prop_assert_eq!(led, AddressClass::of(address).is_public());
    }
}

#[test]
fn the_host_has_names_of_its_own() {
    let name = |text: &str| text.parse::<DomainName>().unwrap();
    for text in ["host", "HOST.", "host.internal"] {
        assert_eq!(Target::from(name(text)), Target::Host);
        assert!(policy(&["host:80"], &[]).decide_name(&name(text)).is_allowed());
        assert!(!policy(&["public", "*.internal"], &[]).decide_name(&name(text)).is_allowed());
    }
    let other = name("host.example");
    assert_eq!(Target::from(other.clone()), Target::Name(other));
}
