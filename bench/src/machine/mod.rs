//! Measures in a virtual machine.
//!
//! `lab` is the machine with all parts. `peers` are the programs that people use today;
//! `secure_shell` and `guest_agent` are their clients, and `passt` is the process of one. `guest`
//! and `raw` are the two ends of a raw stream. `routes` are the ways from the guest to this host.
//! `timeouts` ends what hangs. The measures are in `streams` (throughput), `network` (the gateway),
//! `turns` (latency), `boot`, and `day` (a whole task).

mod boot;
mod day;
mod guest;
mod guest_agent;
mod lab;
mod network;
mod passt;
mod peers;
mod raw;
mod routes;
mod scratch;
mod secure_shell;
mod streams;
mod tap;
mod timeouts;
mod turns;

pub(crate) use self::guest::{Part, play};
pub(crate) use self::scratch::remove_all as remove_scratch;
use crate::measure::{Entry, Group};

/// All measures of the group, in the order of the page.
pub(crate) fn entries() -> Vec<Entry> {
    let entry = |id, quick, prepare| Entry { group: Group::Machine, id, quick, prepare };
    vec![
        entry("card", false, streams::card as _),
        entry("network", false, network::prepare as _),
        entry("artifact", false, streams::artifact as _),
        entry("file", false, streams::file as _),
        entry("log", false, streams::log as _),
        entry("list", false, turns::list as _),
        entry("exec", false, turns::exec as _),
        entry("run", false, boot::run as _),
        entry("day", false, day::day as _),
        entry("boot", false, boot::ways as _),
    ]
}
