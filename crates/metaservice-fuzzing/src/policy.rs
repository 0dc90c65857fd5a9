//! Policy files and rules: each that is read is written as it was read, and decides without a
//! fault. Without a rule of addresses, no address passes that is not public.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use metaservice_egress::file::{Source, Text, read};
use metaservice_egress::{AddressClass, Attempt, Peer, Policy, Rule, Target, Transport, Verdict};

/// Runs the target on one input. It panics if the input shows a fault.
pub fn run(input: &[u8]) {
    // The last bytes are a port and two addresses.
    let Some((text, numbers)) = input.split_last_chunk::<22>() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let (port, four, six) = (&numbers[..2], &numbers[2..6], &numbers[6..]);
    let port = u16::from_be_bytes(port.try_into().expect("two bytes"));
    let four = u32::from_be_bytes(four.try_into().expect("four bytes"));
    let six = u128::from_be_bytes(six.try_into().expect("sixteen bytes"));
    if let Ok(rule) = text.parse::<Rule>() {
        assert_eq!(rule.to_string().parse().as_ref(), Ok(&rule));
        decide(&Policy::new([rule.clone()], []), port, four, six);
        decide(&Policy::new(["public".parse().expect("a rule")], [rule]), port, four, six);
    }
    let source = Source::File("policy.toml".into());
    let policy = read(&source, |path| {
        if path != Path::new("policy.toml") {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Text { canonical: path.to_owned(), text: text.to_owned() })
    });
    if let Ok(policy) = policy {
        decide(&policy, port, four, six);
    }
}

fn decide(policy: &Policy, port: u16, four: u32, six: u128) {
    let name: Target = "a.example".parse().map(Target::Name).expect("a name");
    for address in [IpAddr::from(Ipv4Addr::from(four)), Ipv6Addr::from(six).into()] {
        for transport in [Transport::Tcp, Transport::Udp] {
            let raw = Attempt { target: Target::Address(address), port, transport };
            let raw = policy.decide(&raw);
            let named = Attempt { target: name.clone(), port, transport };
            let led = policy.decide_peer(&named, Peer { address, own: false });
            // A name leads to what is public, and to what its address allows.
            let public = AddressClass::of(address).is_public();
            assert!(!led.is_allowed() || public || raw.is_allowed());
            assert!(!(led.is_allowed() && matches!(raw, Verdict::DeniedBy(_))));
        }
    }
}
