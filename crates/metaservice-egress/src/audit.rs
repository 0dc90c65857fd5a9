//! The record of what a guest has tried.

use std::net::IpAddr;

use serde::Serialize;

use crate::attempt::Transport;
use crate::class::AddressClass;
use crate::names::NameTable;
use crate::policy::Verdict;
use crate::rule::Rule;

/// One attempt of a guest, as a line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Record {
    /// When the attempt began, in milliseconds since 1970.
    pub time_ms: u64,
    /// Whether it was allowed.
    pub verdict: Decision,
    /// The rule that decided, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<Rule>,
    /// The name, for an attempt by name. A question for a name that no rule can have has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The address that the guest sent to, or that the host connected to for a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The port. A question for a name and an echo request have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The protocol.
    pub protocol: Protocol,
    /// Bytes from the guest.
    pub sent: u64,
    /// Bytes to the guest.
    pub received: u64,
    /// How long it lasted, in milliseconds.
    pub duration_ms: u64,
    /// Why it was denied or has ended.
    pub reason: Reason,
}

impl Record {
    /// A record of an attempt that begins: denied by no rule, without a target and without bytes.
    #[must_use]
    pub fn new(protocol: Protocol, time_ms: u64) -> Self {
        Self {
            time_ms,
            verdict: Decision::Denied,
            rule: None,
            name: None,
            address: None,
            port: None,
            protocol,
            sent: 0,
            received: 0,
            duration_ms: 0,
            reason: Reason::NoRule,
        }
    }
}

/// The protocol of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Protocol {
    /// A TCP connection.
    Tcp,
    /// UDP datagrams between two ends.
    Udp,
    /// ICMP echo requests.
    Icmp,
    /// A question for a name.
    Dns,
}

impl From<Transport> for Protocol {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Tcp => Self::Tcp,
            Transport::Udp => Self::Udp,
        }
    }
}

/// Whether an attempt was allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// It was allowed.
    Allowed,
    /// It was denied.
    Denied,
}

/// Why an attempt was denied, or how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reason {
    /// A rule denies it.
    Rule,
    /// No rule allows it.
    NoRule,
    /// The name resolves only to addresses that are not allowed.
    NotPublic,
    /// The name does not resolve.
    Unresolved,
    /// The name in the connection is another one, or cannot be read.
    WrongName,
    /// The packet has a form that the gateway does not carry: a fragment, IPv4 options, a SYN with
    /// data, a source that is not the guest's, or a destination that is no single host.
    Packet,
    /// A limit is reached.
    Limit,
    /// The peer refused the connection.
    Refused,
    /// The peer did not answer, or cannot be reached.
    Unreachable,
    /// The policy has changed.
    Policy,
    /// A side has cut the connection.
    Reset,
    /// The connection has ended.
    Ended,
}

impl Reason {
    /// The reason of a verdict that denies.
    #[must_use]
    pub fn of(verdict: &Verdict<'_>) -> Self {
        match verdict {
            Verdict::DeniedBy(_) => Self::Rule,
            Verdict::NotPublic(_) => Self::NotPublic,
            Verdict::NoRule => Self::NoRule,
            Verdict::Allowed(_) => Self::Ended,
        }
    }
}

/// How many attempts there were, and the bytes of all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Totals {
    /// Allowed attempts.
    pub allowed: u64,
    /// Denied attempts.
    pub denied: u64,
    /// Bytes from the guest.
    pub sent: u64,
    /// Bytes to the guest.
    pub received: u64,
    /// Attempts without a line in the log, because it has reached its limit or cannot be written.
    pub unrecorded: u64,
}

impl Totals {
    /// Adds an attempt that has ended.
    pub fn add(&mut self, record: &Record) {
        match record.verdict {
            Decision::Allowed => self.allowed += 1,
            Decision::Denied => self.denied += 1,
        }
        self.sent = self.sent.saturating_add(record.sent);
        self.received = self.received.saturating_add(record.received);
    }
}

/// The rule that would allow an attempt, for a person who reads that it was denied. `None`: none
/// would, a rule denies it, or no policy should have it.
#[must_use]
pub fn suggestion(record: &Record) -> Option<String> {
    let Record { name, address, port, protocol, .. } = record;
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    match (record.reason, name, address) {
        (Reason::NoRule, Some(name), _) => {
            // UDP to a name is allowed by `public` only. Names of addresses are looked up by
            // programs that only print them.
            let rule = format!("{name}{port}");
            let is_reverse = name.ends_with(".arpa");
            let is_rule = *protocol != Protocol::Udp && rule.parse::<Rule>().is_ok();
            (is_rule && !is_reverse).then_some(rule)
        }
        (Reason::NoRule | Reason::NotPublic, _, Some(address)) if is_suggested(*address) => {
            let address = match address.to_canonical() {
                IpAddr::V4(address) => address.to_string(),
                IpAddr::V6(address) => format!("[{address}]"),
            };
            let protocol = if *protocol == Protocol::Udp { "/udp" } else { "" };
            Some(format!("{address}{port}{protocol}"))
        }
        _ => None,
    }
}

/// Whether a rule of this address can make sense. Nothing of the host itself is allowed by its
/// address, no address of a name is, and metadata services are for the host.
fn is_suggested(address: IpAddr) -> bool {
    let of_name =
        matches!(address.to_canonical(), IpAddr::V4(address) if NameTable::contains(address));
    let never = [
        AddressClass::Loopback,
        AddressClass::LinkLocal,
        AddressClass::Metadata,
        AddressClass::Multicast,
    ];
    !of_name && !never.contains(&AddressClass::of(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied(reason: Reason) -> Record {
        let new = Record::new(Protocol::Tcp, 0);
        Record { port: Some(443), sent: 1, received: 2, reason, ..new }
    }

    #[test]
    fn a_record_is_a_line_of_json() {
        let record = Record { name: Some("a.example".into()), ..denied(Reason::NoRule) };
        assert_eq!(
            serde_json::to_string(&record).unwrap(),
            r#"{"timeMs":0,"verdict":"denied","name":"a.example","port":443,"protocol":"tcp","sent":1,"received":2,"durationMs":0,"reason":"no-rule"}"#
        );
    }

    #[test]
    fn a_suggestion_is_a_rule_that_allows() {
        let by_name = Record { name: Some("a.example".into()), ..denied(Reason::NoRule) };
        let by_address = |address: &str| Record {
            address: Some(address.parse().unwrap()),
            protocol: Protocol::Udp,
            ..denied(Reason::NotPublic)
        };
        let asked = Record { port: None, protocol: Protocol::Dns, ..by_name.clone() };
        for (record, rule) in [
            (by_name, "a.example:443"),
            (asked, "a.example"),
            (by_address("10.0.0.1"), "10.0.0.1:443/udp"),
            (by_address("fd00::1"), "[fd00::1]:443/udp"),
        ] {
            assert_eq!(suggestion(&record).unwrap(), rule);
            assert!(rule.parse::<Rule>().is_ok(), "{rule}");
        }
        for address in ["198.18.1.0", "127.0.0.1", "169.254.169.254", "224.0.0.1"] {
            assert_eq!(suggestion(&by_address(address)), None, "{address}");
        }
        let private = Record { name: Some("db.example".into()), ..by_address("10.0.0.1") };
        let private = Record { protocol: Protocol::Tcp, ..private };
        assert_eq!(suggestion(&private).unwrap(), "10.0.0.1:443");
        let reverse =
            Record { name: Some("1.0.0.10.in-addr.arpa".into()), ..denied(Reason::NoRule) };
        assert_eq!(suggestion(&reverse), None);
        assert_eq!(suggestion(&denied(Reason::Rule)), None);
    }

    #[test]
    fn totals_count_each_attempt_once() {
        let mut totals = Totals::default();
        totals.add(&denied(Reason::NoRule));
        totals.add(&Record { verdict: Decision::Allowed, ..denied(Reason::Ended) });
        let expected = Totals { allowed: 1, denied: 1, sent: 2, received: 4, unrecorded: 0 };
        assert_eq!(totals, expected);
    }
}
