//! stats: the guest's use of its processors, memory, disks and network.

use serde::{Deserialize, Serialize};

/// stats: report now, and then at each interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatsOptions {
    /// Milliseconds between two reports, from
    /// [`MIN_STATS_INTERVAL_MS`](crate::limits::MIN_STATS_INTERVAL_MS) to
    /// [`MAX_STATS_INTERVAL_MS`](crate::limits::MAX_STATS_INTERVAL_MS). `None`: one report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u32>,
}

/// One report: one line of the reply to stats. The numbers count from the boot. The reader computes
/// rates from two reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Stats {
    /// Milliseconds since the boot.
    pub uptime_ms: u64,
    /// Number of processors.
    pub cpus: u32,
    /// Milliseconds during which processors were busy, the sum of all processors.
    pub cpu_busy_ms: u64,
    /// Bytes of memory.
    pub memory_total: u64,
    /// Bytes of memory that are available to programs.
    pub memory_available: u64,
    /// Bytes read from disks.
    pub disk_read: u64,
    /// Bytes written to disks.
    pub disk_written: u64,
    /// Size of the root file system in bytes.
    pub root_total: u64,
    /// Free bytes of the root file system.
    pub root_free: u64,
    /// Bytes received by all network cards except the loopback.
    pub network_received: u64,
    /// Bytes sent by all network cards except the loopback.
    pub network_sent: u64,
    /// Number of processes.
    pub processes: u32,
}
