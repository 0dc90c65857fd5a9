//! stats: processor, memory, disk and network use of the guest.
//!
//! Owns the formats of the files in `/proc`. Each parser is a function of a text. If a file is
//! missing or has another format, its numbers are zero.

use std::fs;
use std::time::Duration;

use bytes::Bytes;
use metaservice_protocol::limits::{MAX_STATS_INTERVAL_MS, MIN_STATS_INTERVAL_MS};
use metaservice_protocol::{ActionId, Stats, StatsOptions};
use tokio::time::{MissedTickBehavior, interval};

use crate::client::body::{Body, BodySender, RequestOver};
use crate::client::error::ClientError;
use crate::client::{Client, ReplyBody};
use crate::system::processes;

/// The unit of processor times (`USER_HZ`): 1/100 s on every Linux since 2.6.
const TICK_MS: u64 = 10;

/// The unit of disk counters in bytes, whatever sectors the disk has.
const SECTOR: u64 = 512;

/// Serves a stats action until the host closes the reply. Dropping the future ends it.
pub(super) async fn serve(
    client: &Client,
    id: &ActionId,
    options: StatsOptions,
) -> Result<(), ClientError> {
    let (sender, body) = Body::stream(None);
    let sending = async {
        // If the host closes the reply, the reply's result says so.
        let _ = send_all(&sender, options).await;
        let _ = sender.end().await;
    };
    let (replied, ()) = tokio::join!(client.reply(id, ReplyBody::Lines, body), sending);
    replied
}

async fn send_all(sender: &BodySender, options: StatsOptions) -> Result<(), RequestOver> {
    let Some(milliseconds) = options.interval_ms else { return send(sender).await };
    let milliseconds = milliseconds.clamp(MIN_STATS_INTERVAL_MS, MAX_STATS_INTERVAL_MS);
    let mut ticks = interval(Duration::from_millis(milliseconds.into()));
    // A slow host does not get the samples that it missed.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => send(sender).await?,
            () = sender.over() => return Err(RequestOver),
        }
    }
}

async fn send(sender: &BodySender) -> Result<(), RequestOver> {
    let mut line = serde_json::to_vec(&read()).unwrap_or_default();
    line.push(b'\n');
    sender.send(Bytes::from(line)).await
}

fn read() -> Stats {
    let file = |name: &str| fs::read_to_string(format!("/proc/{name}")).unwrap_or_default();
    let (cpus, cpu_busy_ms) = processors(&file("stat"));
    let (memory_total, memory_available) = memory(&file("meminfo"));
    let (disk_read, disk_written) = disks(&file("diskstats"));
    let (network_received, network_sent) = network(&file("net/dev"));
    let (root_total, root_free) = rustix::fs::statvfs("/")
        .map(|root| (root.f_blocks * root.f_frsize, root.f_bavail * root.f_frsize))
        .unwrap_or_default();
    let processes = processes::all().map_or(0, |all| all.len());
    Stats {
        uptime_ms: uptime(&file("uptime")),
        cpus,
        cpu_busy_ms,
        memory_total,
        memory_available,
        disk_read,
        disk_written,
        root_total,
        root_free,
        network_received,
        network_sent,
        processes: u32::try_from(processes).unwrap_or(u32::MAX),
    }
}

fn uptime(text: &str) -> u64 {
    let seconds = text.split_ascii_whitespace().next().and_then(|number| number.split_once('.'));
    let Some((seconds, hundredths)) = seconds else { return 0 };
    let number = |text: &str| text.parse::<u64>().unwrap_or(0);
    number(seconds).saturating_mul(1000).saturating_add(number(hundredths).saturating_mul(10))
}

/// The number of processors, and their busy time in total.
fn processors(text: &str) -> (u32, u64) {
    let (mut count, mut busy) = (0, 0u64);
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace();
        let Some(name) = fields.next().and_then(|name| name.strip_prefix("cpu")) else { continue };
        if !name.is_empty() {
            count += 1;
            continue;
        }
        // user, nice, system, idle, iowait, irq, softirq, steal. Guest time is part of user.
        for (n, field) in fields.take(8).enumerate() {
            if n != 3 && n != 4 {
                busy = busy.saturating_add(field.parse().unwrap_or(0));
            }
        }
    }
    (count, busy.saturating_mul(TICK_MS))
}

/// The total and the available memory in bytes.
fn memory(text: &str) -> (u64, u64) {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or(0).saturating_mul(1024)
    };
    (field("MemTotal:"), field("MemAvailable:"))
}

/// Bytes read from and written to whole disks. Partitions and stacked devices do not count again.
fn disks(text: &str) -> (u64, u64) {
    let (mut read, mut written) = (0u64, 0u64);
    for line in text.lines() {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let Some(name) = fields.get(2) else { continue };
        let sectors = |n: usize| fields.get(n).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
        if is_whole_disk(name) {
            read = read.saturating_add(sectors(5));
            written = written.saturating_add(sectors(9));
        }
    }
    (read.saturating_mul(SECTOR), written.saturating_mul(SECTOR))
}

fn is_whole_disk(name: &str) -> bool {
    let lettered = ["vd", "sd", "hd", "xvd"].iter().any(|kind| {
        let letters = name.strip_prefix(kind);
        letters.is_some_and(|l| !l.is_empty() && l.bytes().all(|c| c.is_ascii_lowercase()))
    });
    lettered || (name.starts_with("nvme") || name.starts_with("mmcblk")) && !name.contains('p')
}

/// Bytes received and sent by all network cards except the loopback.
fn network(text: &str) -> (u64, u64) {
    let (mut received, mut sent) = (0u64, 0u64);
    for line in text.lines() {
        let Some((name, numbers)) = line.split_once(':') else { continue };
        if name.trim() == "lo" {
            continue;
        }
        let number = |n| numbers.split_ascii_whitespace().nth(n).and_then(|f| f.parse().ok());
        received = received.saturating_add(number(0).unwrap_or(0));
        sent = sent.saturating_add(number(8).unwrap_or(0));
    }
    (received, sent)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        assert_eq!(uptime("12.34 20.00\n"), 12_340);
        let stat = "cpu  10 1 20 500 30 2 3 4 9 9\ncpu0 5 0 10 250 15 1 1 2 0 0\n\
                    cpu1 5 1 10 250 15 1 2 2 0 0\nintr 1 2 3\n";
        assert_eq!(processors(stat), (2, 400));
        let meminfo = "MemTotal:        2048 kB\nMemFree:  1 kB\nMemAvailable:    1024 kB\n";
        assert_eq!(memory(meminfo), (2 << 20, 1 << 20));
        let disk = " 254 0 vda 10 0 8 1 20 0 16 2 0 3 4\n 254 1 vda1 10 0 8 1 20 0 16 2 0 3 4\n\
                    253 0 dm-0 1 0 8 1 1 0 8 1 0 0 0\n 259 0 nvme0n1 1 0 2 0 1 0 4 0 0 0 0\n";
        assert_eq!(disks(disk), (10 * 512, 20 * 512));
        let net = "Inter-| Receive\n face |bytes\n    lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n\
                   eth0: 100 2 0 0 0 0 0 0 200 3 0 0 0 0 0 0\n  eth1:1 2 0 0 0 0 0 0 2 3 0\n";
        assert_eq!(network(net), (101, 202));
    }

    #[test]
    fn this_machine_has_numbers() {
        let stats = read();
        assert!(stats.cpus > 0 && stats.memory_total > stats.memory_available);
        assert!(stats.uptime_ms > 0 && stats.root_total > 0 && stats.processes > 0);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a-z0-9:. \n-]{0,200}") {
            let _ = (uptime(&text), processors(&text), memory(&text), disks(&text), network(&text));
        }
    }
}
