//! What happens to a guest's network, in words.

use std::net::SocketAddr;

use metaservice_egress::Transport;
use metaservice_egress::audit::{Protocol, Reason};
use metaservice_sandbox::Denial;
use metaservice_sandbox::job::Publish;
use serde_json::json;

use super::printer::Printer;

/// The line for something that is denied for the first time.
pub(super) fn denied(denial: &Denial) -> String {
    let record = &denial.record;
    let to = match (&record.name, &record.address) {
        (Some(name), _) => name.clone(),
        (None, Some(address)) => address.to_string(),
        (None, None) => "a port of the host".to_owned(),
    };
    let port = record.port.map(|port| format!(" port {port}")).unwrap_or_default();
    let what = match record.protocol {
        Protocol::Dns => "the name ",
        Protocol::Udp => "UDP to ",
        Protocol::Icmp => "ping to ",
        _ => "",
    };
    let why = match record.reason {
        Reason::Rule => " by a rule",
        Reason::NotPublic => ": no public address",
        Reason::WrongName => ": the connection is for another name",
        Reason::Packet => ": the packet has no valid form",
        Reason::Limit => ": a limit is reached",
        Reason::Policy => ": the policy has changed",
        _ => "",
    };
    let denied = format!("the guest is denied {what}{to}{port}{why}");
    match &denial.rule {
        Some(rule) => format!("{denied}; to allow it: --allow-net {rule}"),
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
