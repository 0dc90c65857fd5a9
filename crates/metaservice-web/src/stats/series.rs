//! Points over the life of a job. It does no I/O and has no clock.

use metaservice_protocol::Stats;
use serde::Serialize;

/// The most points. When there are more, two become one.
pub(crate) const MAX_POINTS: usize = 600;

/// What a machine used, over time. All lists have the same length.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Chart {
    /// Whether points are added.
    pub(crate) live: bool,
    /// Why there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
    pub(crate) cpus: u32,
    pub(crate) memory_total: u64,
    pub(crate) root_total: u64,
    /// The end of each point, in milliseconds since 1970.
    pub(crate) times: Vec<u64>,
    /// Percent of all processors.
    pub(crate) cpu: Vec<f64>,
    /// Bytes in use.
    pub(crate) memory: Vec<u64>,
    /// Bytes a second.
    pub(crate) disk_read: Vec<u64>,
    pub(crate) disk_written: Vec<u64>,
    pub(crate) network_received: Vec<u64>,
    pub(crate) network_sent: Vec<u64>,
    /// Free bytes.
    pub(crate) root_free: Vec<u64>,
    pub(crate) processes: Vec<u32>,
}

/// Makes a chart of reports.
#[derive(Debug, Default)]
pub(crate) struct Series {
    chart: Chart,
    last: Option<Stats>,
    /// How many reports become a point.
    stride: u32,
    /// How many reports came since the last point.
    since: u32,
}

impl Series {
    /// The chart so far.
    pub(crate) const fn chart(&self) -> &Chart {
        &self.chart
    }

    /// Says whether reports come.
    pub(crate) fn set_live(&mut self, live: bool, problem: Option<String>) {
        self.chart.live = live;
        self.chart.problem = problem;
    }

    /// Adds a report that arrived at this time, in milliseconds since 1970. The first one, and the
    /// first one after a boot, make no point: rates need two.
    pub(crate) fn push(&mut self, time_ms: u64, report: Stats) {
        self.chart.cpus = report.cpus;
        self.chart.memory_total = report.memory_total;
        self.chart.root_total = report.root_total;
        let Some(last) = self.last.filter(|last| last.uptime_ms < report.uptime_ms) else {
            self.last = Some(report);
            self.since = 0;
            return;
        };
        self.since += 1;
        if self.since < self.stride.max(1) {
            return;
        }
        self.since = 0;
        self.last = Some(report);
        if self.chart.times.len() >= MAX_POINTS {
            self.chart.halve();
            self.stride = self.stride.max(1).saturating_mul(2);
        }
        self.chart.add(time_ms, &last, &report);
    }
}

impl Chart {
    fn add(&mut self, time_ms: u64, last: &Stats, now: &Stats) {
        let elapsed = now.uptime_ms - last.uptime_ms;
        let rate = |last: u64, now: u64| {
            let bytes = u128::from(now.saturating_sub(last));
            u64::try_from(bytes * 1000 / u128::from(elapsed)).unwrap_or(u64::MAX)
        };
        // Both are far below 2^53.
        #[expect(clippy::cast_precision_loss)]
        let share = now.cpu_busy_ms.saturating_sub(last.cpu_busy_ms) as f64 / elapsed as f64;
        let percent = (share / f64::from(now.cpus.max(1)) * 1000.).round() / 10.;
        self.times.push(time_ms);
        self.cpu.push(percent.clamp(0., 100.));
        self.memory.push(now.memory_total.saturating_sub(now.memory_available));
        self.disk_read.push(rate(last.disk_read, now.disk_read));
        self.disk_written.push(rate(last.disk_written, now.disk_written));
        self.network_received.push(rate(last.network_received, now.network_received));
        self.network_sent.push(rate(last.network_sent, now.network_sent));
        self.root_free.push(now.root_free);
        self.processes.push(now.processes);
    }

    /// Two points become one: of rates the mean, of sizes the larger use.
    fn halve(&mut self) {
        pairs(&mut self.times, |_, later| later);
        pairs(&mut self.cpu, |one, other| ((one + other) * 5.).round() / 10.);
        for rates in [
            &mut self.disk_read,
            &mut self.disk_written,
            &mut self.network_received,
            &mut self.network_sent,
        ] {
            pairs(rates, u64::midpoint);
        }
        pairs(&mut self.memory, u64::max);
        pairs(&mut self.root_free, u64::min);
        pairs(&mut self.processes, u32::max);
    }
}

/// Joins each two values. A last one without another stays.
fn pairs<T: Copy>(values: &mut Vec<T>, join: impl Fn(T, T) -> T) {
    let joined = values.chunks(2).filter_map(|pair| match *pair {
        [one, other] => Some(join(one, other)),
        [one] => Some(one),
        _ => None,
    });
    *values = joined.collect();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn report(uptime_ms: u64, busy: u64, read: u64) -> Stats {
        Stats {
            uptime_ms,
            cpus: 2,
            cpu_busy_ms: busy,
            memory_total: 1000,
            memory_available: 600,
            disk_read: read,
            ..Stats::default()
        }
    }

    #[test]
    fn rates_are_of_the_time_of_the_guest() {
        let mut series = Series::default();
        series.push(10_000, report(1_000, 0, 0));
        assert!(series.chart().times.is_empty());
        series.push(12_000, report(3_000, 1_000, 8_000));
        let chart = series.chart();
        assert_eq!((&chart.cpu[..], &chart.disk_read[..]), (&[25.][..], &[4_000][..]));
        assert_eq!((&chart.times[..], &chart.memory[..]), (&[12_000][..], &[400][..]));
        // A boot: the counters begin again.
        series.push(20_000, report(500, 100, 50));
        series.push(21_000, report(1_500, 2_100, 50));
        let chart = series.chart();
        assert_eq!((chart.times.len(), chart.cpu[1], chart.disk_read[1]), (2, 100., 0));
    }

    #[test]
    fn a_long_life_has_the_same_mean_in_fewer_points() {
        let mut series = Series::default();
        for second in 0..10_000_u64 {
            series.push(second * 1_000, report(second * 1_000, second * 500, second * 100));
        }
        let chart = series.chart();
        assert!(chart.times.len() <= MAX_POINTS && chart.times.len() > MAX_POINTS / 2);
        assert!(chart.cpu.iter().all(|percent| (percent - 25.).abs() < 0.2), "{:?}", chart.cpu);
        assert!(chart.disk_read.iter().all(|rate| *rate == 100));
        assert!(chart.times.is_sorted());
    }

    proptest! {
        /// Whatever a guest reports, the chart has a limited size, and its lists go together.
        #[test]
        fn a_guest_that_lies_makes_a_chart(
            reports in prop::collection::vec(
                (any::<u64>(), any::<u32>(), any::<u64>(), any::<u64>()), 0..700,
            ),
        ) {
            let mut series = Series::default();
            for (time, (uptime, cpus, busy, other)) in (0..).zip(reports) {
                series.push(time, Stats {
                    uptime_ms: uptime,
                    cpus,
                    cpu_busy_ms: busy,
                    memory_available: other,
                    network_sent: other,
                    root_free: other,
                    ..Stats::default()
                });
            }
            let chart = series.chart();
            let length = chart.times.len();
            prop_assert!(length <= MAX_POINTS);
            for other in [&chart.memory, &chart.network_sent, &chart.root_free, &chart.disk_read] {
                prop_assert_eq!(other.len(), length);
            }
            prop_assert_eq!((chart.cpu.len(), chart.processes.len()), (length, length));
            prop_assert!(chart.cpu.iter().all(|percent| (0.0..=100.0).contains(percent)));
        }
    }
}
