//! Values computed from two observations of a guest, as a line of a table or of JSON.
//!
//! The numbers come from the guest. The code must not assume that they grow, or that they are
//! consistent.

use indicatif::HumanBytes;
use metaservice::Stats;
use serde::Serialize;

/// The use of resources between two observations.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Gauges {
    /// In percent of one processor: two busy processors are 200.
    pub(crate) cpu_percent: f64,
    pub(crate) cpus: u32,
    /// Bytes that are not available to programs.
    pub(crate) memory_used: u64,
    pub(crate) memory_total: u64,
    /// Bytes of the root file system.
    pub(crate) root_used: u64,
    pub(crate) root_total: u64,
    /// Bytes per second.
    pub(crate) disk_read_rate: u64,
    pub(crate) disk_write_rate: u64,
    pub(crate) network_receive_rate: u64,
    pub(crate) network_send_rate: u64,
    /// Bytes since the boot.
    pub(crate) disk_read: u64,
    pub(crate) disk_written: u64,
    pub(crate) network_received: u64,
    pub(crate) network_sent: u64,
    pub(crate) processes: u32,
    pub(crate) uptime_ms: u64,
}

impl Gauges {
    /// The headings of the cells.
    pub(crate) const HEADINGS: [&str; 6] =
        ["CPU %", "MEMORY", "ROOT", "DISK READ/WRITE", "NET IN/OUT", "PROCESSES"];

    /// The cells of a row in a table.
    pub(crate) fn cells(&self) -> [String; 6] {
        let of = |a: u64, b: u64| format!("{} / {}", short(a), short(b));
        [
            format!("{:.1}%", self.cpu_percent),
            of(self.memory_used, self.memory_total),
            of(self.root_used, self.root_total),
            of(self.disk_read_rate, self.disk_write_rate) + "/s",
            of(self.network_receive_rate, self.network_send_rate) + "/s",
            self.processes.to_string(),
        ]
    }

    pub(crate) fn between(before: &Stats, after: &Stats) -> Self {
        let elapsed = after.uptime_ms.saturating_sub(before.uptime_ms).max(1);
        let rate = |from: u64, to: u64| {
            let bytes = u128::from(to.saturating_sub(from));
            u64::try_from(bytes * 1000 / u128::from(elapsed)).unwrap_or(u64::MAX)
        };
        let busy = after.cpu_busy_ms.saturating_sub(before.cpu_busy_ms);
        // An integer number of hundredths, so that no value of the guest gives NaN or infinity.
        let share = u128::from(busy) * 10_000 / u128::from(elapsed);
        let most = u128::from(after.cpus.max(1)) * 10_000;
        let share = u32::try_from(share.min(most)).unwrap_or(u32::MAX);
        Self {
            cpu_percent: f64::from(share) / 100.0,
            cpus: after.cpus,
            memory_used: after.memory_total.saturating_sub(after.memory_available),
            memory_total: after.memory_total,
            root_used: after.root_total.saturating_sub(after.root_free),
            root_total: after.root_total,
            disk_read_rate: rate(before.disk_read, after.disk_read),
            disk_write_rate: rate(before.disk_written, after.disk_written),
            network_receive_rate: rate(before.network_received, after.network_received),
            network_send_rate: rate(before.network_sent, after.network_sent),
            disk_read: after.disk_read,
            disk_written: after.disk_written,
            network_received: after.network_received,
            network_sent: after.network_sent,
            processes: after.processes,
            uptime_ms: after.uptime_ms,
        }
    }
}

/// Formats a size like `12.3M`.
fn short(bytes: u64) -> String {
    let text = HumanBytes(bytes).to_string();
    let (number, unit) = text.split_once(' ').unwrap_or((&text, ""));
    let number = number.split_once('.').map_or_else(
        || number.to_owned(),
        |(whole, part)| format!("{whole}.{}", &part[..1.min(part.len())]),
    );
    format!("{number}{}", unit.trim_end_matches('B').trim_end_matches('i'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_differences_in_time() {
        let before = Stats { uptime_ms: 1000, cpus: 2, cpu_busy_ms: 100, ..Stats::default() };
        let after = Stats {
            uptime_ms: 3000,
            cpu_busy_ms: 3100,
            network_sent: 4096,
            memory_total: 100,
            memory_available: 40,
            ..before
        };
        let gauges = Gauges::between(&before, &after);
        assert_eq!(gauges.cpu_percent, 150.0);
        assert_eq!((gauges.network_send_rate, gauges.memory_used), (2048, 60));
        assert_eq!(gauges.cells()[0], "150.0%");
    }

    #[test]
    fn wild_numbers_do_no_harm() {
        let wild = Stats {
            cpu_busy_ms: u64::MAX,
            disk_read: u64::MAX,
            memory_available: u64::MAX,
            ..Stats::default()
        };
        for (before, after) in [(Stats::default(), wild), (wild, Stats::default())] {
            let gauges = Gauges::between(&before, &after);
            assert!(
                gauges.cpu_percent <= 100.0 && gauges.cells().iter().all(|cell| !cell.is_empty())
            );
        }
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!([0, 1023, 1536, 3 << 30].map(short), ["0", "1023", "1.5K", "3.0G"]);
    }
}
