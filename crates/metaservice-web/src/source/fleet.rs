//! Who runs the jobs of a queue.

use serde::Serialize;

/// The workers and tenants of a queue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fleet {
    /// The workers, by name.
    pub workers: Vec<FleetWorker>,
    /// The tenants that have jobs or limits, by name.
    pub tenants: Vec<FleetTenant>,
    /// How many jobs waited and ran.
    pub depth: Depth,
}

/// A worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FleetWorker {
    /// Its name.
    pub name: String,
    /// Its state, as `metaservice workers` writes it.
    pub state: String,
    /// How many jobs it runs at a time.
    pub slots: u32,
    /// How many it runs now.
    pub running: u32,
    /// How many of its machines wait for jobs.
    pub warm: u32,
    /// Why it takes no job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its labels, `NAME=VALUE` or `NAME`.
    pub labels: Vec<String>,
}

/// A tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FleetTenant {
    /// Its name.
    pub name: String,
    /// How many of its jobs run.
    pub running: u64,
    /// How many of its jobs wait.
    pub waiting: u64,
    /// The most that may run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_running: Option<u64>,
    /// The most that may wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_waiting: Option<u64>,
}

/// How many jobs waited and ran, at some times.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Depth {
    /// The times, in milliseconds since 1970, the oldest first.
    pub times: Vec<u64>,
    /// How many waited then.
    pub waiting: Vec<u64>,
    /// How many ran then.
    pub running: Vec<u64>,
    /// How many times become one.
    #[serde(skip)]
    stride: u32,
    /// How many came since the last one that is kept.
    #[serde(skip)]
    since: u32,
}

/// The most times that are kept.
const MAX_TIMES: usize = 600;

impl Depth {
    /// Adds a time. Of a long life, fewer times are kept, at equal distances.
    pub fn add(&mut self, time_ms: u64, waiting: u64, running: u64) {
        self.since += 1;
        if self.since < self.stride {
            return;
        }
        self.since = 0;
        if self.times.len() >= MAX_TIMES {
            self.stride = self.stride.max(1).saturating_mul(2);
            for series in [&mut self.times, &mut self.waiting, &mut self.running] {
                let mut keep = false;
                series.retain(|_| {
                    keep = !keep;
                    keep
                });
            }
        }
        self.times.push(time_ms);
        self.waiting.push(waiting);
        self.running.push(running);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_time_is_kept_in_fewer_points() {
        let mut depth = Depth::default();
        for time in 0..5_000 {
            depth.add(time, 2 * time, 1);
            assert!(depth.times.len() <= MAX_TIMES);
        }
        assert_eq!(depth.times.len(), depth.waiting.len());
        assert_eq!(depth.times.len(), depth.running.len());
        assert!(depth.times.is_sorted() && depth.times[0] == 0, "{:?}", &depth.times[..3]);
        assert!(depth.times.windows(2).all(|pair| pair[1] - pair[0] <= 32), "{:?}", depth.times);
        assert!(depth.times.last().unwrap() > &4_980);
        assert!(depth.times.iter().zip(&depth.waiting).all(|(time, waiting)| 2 * time == *waiting));
    }
}
