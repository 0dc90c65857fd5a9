//! What happens to a guest's network, in words.

use std::net::SocketAddr;

use metaservice_egress::Transport;
use metaservice_egress::audit::{Protocol, Reason};
use metaservice_sandbox::Denial;
use metaservice_sandbox::job::Publish;
use serde_json::json;

use super::printer::Printer;

/// The line for something that is denied for the first time, or for a name that does not resolve.
pub(super) fn denied(denial: &Denial) -> String {
    let record = &denial.record;
    let name = record.name.as_deref();
    let to = match (name, &record.address) {
        (Some(name), _) => name.to_owned(),
        (None, Some(address)) => address.to_string(),
        (None, None) => "a port of the host".to_owned(),
    };
    if record.reason == Reason::Unresolved {
        return format!("the host cannot resolve {to}");
    }
    let port = record.port.map(|port| format!(" port {port}")).unwrap_or_default();
    let what = match record.protocol {
        Protocol::Dns => "the name ",
        Protocol::Udp => "UDP to ",
        Protocol::Icmp => "ping to ",
        _ => "",
    };
    let why = match (record.reason, &record.rule, &record.address) {
        (Reason::Rule, Some(rule), _) => format!(" by the rule {rule}"),
        (Reason::Rule, None, _) => " by a rule".to_owned(),
        (Reason::NotPublic, _, Some(address)) if name.is_some() => {
            format!(": its address {address} is not public")
        }
        (Reason::NotPublic, ..) => ": no public address".to_owned(),
        (Reason::WrongName, ..) => ": the connection is for another name".to_owned(),
        (Reason::Packet, ..) => ": the packet has no valid form".to_owned(),
        (Reason::Limit, ..) => ": a limit is reached".to_owned(),
        (Reason::Policy, ..) => ": the policy has changed".to_owned(),
        _ => String::new(),
    };
    let denied = format!("the guest is denied {what}{to}{port}{why}");
    match &denial.rule {
        Some(rule) => format!("{denied}; to allow it: --allow-net {rule}"),
        None if record.reason == Reason::NoRule && name == Some("host") => {
            format!("{denied}; to allow a port of this host: --allow-net host:PORT")
        }
        None => denied,
    }
}

/// Says that a port leads into the guest. The user knows one that the description names.
pub(super) fn published(publish: &Publish, address: SocketAddr, printer: Printer) {
    let protocol = if publish.transport == Transport::Udp { "/udp" } else { "" };
    let guest = format!("{}{protocol}", publish.guest_port);
    if publish.listen.port() == 0 {
        printer.note(&format!("{address} leads to port {guest} of the guest"));
    }
    printer.event("published", json!({ "address": address.to_string(), "guestPort": guest }));
}
