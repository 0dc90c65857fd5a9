//! The limits on the host's resources that a guest can use, under the names of `--limit`.

use std::collections::BTreeMap;
use std::time::Duration;

use metaservice_gateway::Limits as GatewayLimits;
use metaservice_nic::Limits as CardLimits;

use crate::history::Keep;
use crate::spec::{InvalidPeriod, InvalidSize, Period, Size};

/// The most connections and the like. Each takes some hundred bytes of the host's memory, or more.
const MANY: u64 = 1 << 20;

/// All limits of one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    pub(crate) service: metaservice::Limits,
    pub(crate) card: CardLimits,
    /// Bytes of all artifacts together, at their destinations. It has no name.
    pub(crate) artifacts: u64,
    /// How long all artifacts together may take, once the command has ended.
    pub(crate) artifact_timeout: Duration,
    /// Bytes of the file that the console is written to.
    pub(crate) console: u64,
    /// Bytes of the capture file.
    pub(crate) pcap: u64,
    /// What the guest can use of the host's network.
    pub(crate) network: GatewayLimits,
    /// Bytes of the log of the network.
    pub(crate) network_log: u64,
    /// Which ended jobs are kept when this one starts.
    pub(crate) history: Keep,
}

/// Why a limit is wrong.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidLimit {
    /// It has no value.
    #[error("write NAME=VALUE")]
    Form,
    /// There is no limit of this name.
    #[error("there is no limit {name:?}; the names are: {}", names().join(", "))]
    Name {
        /// The name.
        name: String,
    },
    /// Its value is no size.
    #[error(transparent)]
    Size(#[from] InvalidSize),
    /// Its value is no duration.
    #[error(transparent)]
    Period(#[from] InvalidPeriod),
    /// A guest cannot work with none.
    #[error("a guest needs at least one")]
    Zero,
    /// Its value is more than a host has for one job.
    #[error("{value} is too large: the most is {most}")]
    TooLarge {
        /// The value.
        value: u64,
        /// The largest value of this limit.
        most: u64,
    },
}

/// The limit that a name stands for.
enum Slot<'a> {
    /// A number that is not zero, and the largest: it limits what the job takes of the host's memory.
    Count(&'a mut usize, u64),
    /// The same, per second.
    Rate(&'a mut u32, u64),
    /// Bytes or a number, and zero means none.
    Bytes(&'a mut u64),
    Time(&'a mut Duration),
    /// A time, or `none`.
    OptionalTime(&'a mut Option<Duration>),
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            service: metaservice::Limits::default(),
            card: CardLimits::default(),
            artifacts: u64::MAX,
            artifact_timeout: Duration::from_secs(60 * 60),
            console: 64 << 20,
            pcap: 16 << 30,
            network: GatewayLimits::default(),
            network_log: 64 << 20,
            history: Keep::default(),
        }
    }
}

impl Limits {
    /// How long all artifacts together may take, once the command has ended.
    #[must_use]
    pub fn artifact_timeout(&self) -> Duration {
        self.artifact_timeout
    }

    /// Limits all artifacts together, also in temporary storage.
    pub(crate) fn limit_artifacts(&mut self, bytes: u64) {
        self.artifacts = bytes;
        self.service.artifact = self.service.artifact.min(bytes);
        self.service.storage = self.service.storage.min(bytes);
    }

    /// How long an agent that has polled may send nothing until it is unresponsive.
    #[must_use]
    pub fn agent_lost(&self) -> Duration {
        self.service.agent_lost
    }

    /// How long an agent that has polled may send nothing until the job is lost.
    #[must_use]
    pub fn agent_dead(&self) -> Duration {
        self.service.agent_dead
    }

    /// How long there may be no request of a guest until the job is lost. `None`: for ever.
    #[must_use]
    pub fn no_guest(&self) -> Option<Duration> {
        self.service.no_guest
    }

    /// An error comes with the limit as it is written.
    pub(super) fn resolve(
        changed: &BTreeMap<String, String>,
        log: Size,
        artifact: Size,
    ) -> Result<Self, (String, InvalidLimit)> {
        let mut limits = Self::default();
        limits.service.log = log.0;
        limits.service.artifact = artifact.0;
        for (name, value) in changed {
            limits.set(name, value).map_err(|error| (format!("{name}={value}"), error))?;
        }
        limits.card.connections = limits.card.connections.max(limits.service.connections);
        Ok(limits)
    }

    /// Each limit by its name, in the order of the reference page.
    fn slots(&mut self) -> [(&'static str, Slot<'_>); 29] {
        let Self { service, card, artifact_timeout, console, pcap, network, network_log, .. } =
            self;
        let history = &mut self.history;
        [
            ("connections", Slot::Count(&mut service.connections, MANY)),
            ("headers", Slot::Count(&mut service.headers, 4 << 10)),
            ("line", Slot::Count(&mut service.line, 1 << 20)),
            ("head", Slot::Count(&mut service.head, 1 << 20)),
            ("head-time", Slot::Time(&mut service.head_time)),
            ("stall", Slot::Time(&mut service.stall)),
            ("agent-lost", Slot::Time(&mut service.agent_lost)),
            ("agent-dead", Slot::Time(&mut service.agent_dead)),
            ("no-guest", Slot::OptionalTime(&mut service.no_guest)),
            ("list", Slot::Count(&mut service.list, 1 << 30)),
            ("names", Slot::Count(&mut service.names, 16 << 20)),
            ("streams", Slot::Count(&mut service.streams, 64 << 10)),
            ("storage", Slot::Bytes(&mut service.storage)),
            ("buffers", Slot::Count(&mut card.buffers, 16 << 30)),
            ("frames", Slot::Rate(&mut card.frames, 1 << 30)),
            ("half-open", Slot::Count(&mut card.half_open, MANY)),
            ("artifact-timeout", Slot::Time(artifact_timeout)),
            ("console", Slot::Bytes(console)),
            ("pcap", Slot::Bytes(pcap)),
            ("net-log", Slot::Bytes(network_log)),
            ("net-connections", Slot::Count(&mut network.connections, MANY)),
            ("net-per-name", Slot::Count(&mut network.per_name, MANY)),
            ("net-names", Slot::Count(&mut network.names, MANY)),
            ("net-queries", Slot::Rate(&mut network.queries, 1 << 30)),
            ("net-udp", Slot::Count(&mut network.associations, MANY)),
            ("net-dial", Slot::Time(&mut network.dial)),
            ("history-jobs", Slot::Bytes(&mut history.jobs)),
            ("history-age", Slot::Time(&mut history.age)),
            ("history-size", Slot::Bytes(&mut history.size)),
        ]
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), InvalidLimit> {
        // The name of an earlier release.
        let name = if name == "farewell" { "artifact-timeout" } else { name };
        let found = self.slots().into_iter().find(|(known, _)| *known == name);
        let (_, slot) = found.ok_or_else(|| InvalidLimit::Name { name: name.to_owned() })?;
        match slot {
            Slot::Count(limit, most) => *limit = count(value, most)?,
            Slot::Rate(limit, most) => *limit = count(value, most)?,
            Slot::Bytes(limit) => *limit = value.parse::<Size>()?.0,
            Slot::Time(limit) => *limit = value.parse::<Period>()?.get(),
            Slot::OptionalTime(limit) if value == "none" => *limit = None,
            Slot::OptionalTime(limit) => *limit = Some(value.parse::<Period>()?.get()),
        }
        Ok(())
    }
}

fn count<T: TryFrom<u64>>(value: &str, most: u64) -> Result<T, InvalidLimit> {
    let value = value.parse::<Size>()?.0;
    let too_large = || InvalidLimit::TooLarge { value, most };
    match value {
        0 => Err(InvalidLimit::Zero),
        value if value > most => Err(too_large()),
        value => value.try_into().map_err(|_| too_large()),
    }
}

fn names() -> Vec<&'static str> {
    Limits::default().slots().map(|(name, _)| name).to_vec()
}

/// Reads `NAME=VALUE`.
///
/// # Errors
/// Without an equals sign. Names and values are checked with the job.
pub fn parse_limit(text: &str) -> Result<(String, String), InvalidLimit> {
    let (name, value) = text.split_once('=').ok_or(InvalidLimit::Form)?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(texts: &[&str]) -> Result<Limits, InvalidLimit> {
        let mut limits = Limits::default();
        for text in texts {
            let (name, value) = parse_limit(text)?;
            limits.set(&name, &value)?;
        }
        Ok(limits)
    }

    #[test]
    fn the_page_on_limits_has_each_name_and_default() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/limits.md");
        let page = std::fs::read_to_string(path).unwrap();
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
        let rows = rows.filter_map(|(name, rest)| Some((name, rest.split_once(" |")?.0)));
        let limits: Vec<_> = rows.filter(|row| !row.0.starts_with("--")).collect();
        let sorted = |mut names: Vec<&'static str>| {
            names.sort_unstable();
            names
        };
        let mut listed: Vec<&str> = limits.iter().map(|row| row.0).collect();
        listed.sort_unstable();
        assert_eq!(listed, sorted(names()), "{path}");
        let words: Vec<_> =
            limits.iter().map(|(name, default)| format!("{name}={default}")).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        assert_eq!(set(&words).unwrap(), Limits::default(), "{path}");
    }

    #[test]
    fn what_takes_memory_of_the_host_has_a_most_that_the_page_states() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/limits.md");
        let page = std::fs::read_to_string(path).unwrap();
        let mut stated: Vec<(String, u64)> = Vec::new();
        for line in page.lines() {
            let Some((most, names)) =
                line.strip_prefix("- at most ").and_then(|line| line.split_once(": "))
            else {
                continue;
            };
            let most = most.parse::<Size>().unwrap().0;
            stated.extend(names.split(", ").map(|name| (name.trim_matches('`').to_owned(), most)));
        }
        stated.sort_unstable();
        let mut limits = Limits::default();
        let known = limits.slots().into_iter().filter_map(|(name, slot)| match slot {
            Slot::Count(_, most) | Slot::Rate(_, most) => Some((name.to_owned(), most)),
            Slot::Bytes(_) | Slot::Time(_) | Slot::OptionalTime(_) => None,
        });
        let mut known: Vec<(String, u64)> = known.collect();
        known.sort_unstable();
        assert_eq!(stated, known, "{path}");
        for (name, most) in known {
            assert!(set(&[&format!("{name}={most}")]).is_ok(), "{name}");
            let value = most + 1;
            let wrong = Err(InvalidLimit::TooLarge { value, most });
            assert_eq!(set(&[&format!("{name}={value}")]), wrong, "{name}");
        }
    }

    #[test]
    fn limits_have_names_and_units() {
        let changed = set(&[
            "connections=1",
            "headers=2",
            "line=2K",
            "head=3K",
            "head-time=4",
            "stall=5s",
            "agent-lost=20s",
            "agent-dead=1m",
            "no-guest=1h",
            "list=6M",
            "names=7",
            "streams=8",
            "storage=9G",
            "frames=10K",
            "buffers=3M",
            "half-open=5",
            "artifact-timeout=11m",
            "console=12M",
            "pcap=0",
            "net-log=1M",
            "net-connections=12",
            "net-per-name=13",
            "net-names=14",
            "net-queries=15",
            "net-udp=16",
            "net-dial=17s",
            "history-jobs=0",
            "history-age=7d",
            "history-size=1G",
        ]);
        let mut service = metaservice::Limits::default();
        (service.connections, service.headers, service.head) = (1, 2, 3 << 10);
        (service.head_time, service.stall) = (Duration::from_secs(4), Duration::from_secs(5));
        (service.list, service.names, service.streams) = (6 << 20, 7, 8);
        (service.line, service.storage) = (2 << 10, 9 << 30);
        (service.agent_lost, service.agent_dead) =
            (Duration::from_secs(20), Duration::from_secs(60));
        service.no_guest = Some(Duration::from_secs(3600));
        let mut card = CardLimits::default();
        (card.frames, card.half_open, card.buffers) = (10 << 10, 5, 3 << 20);
        let artifact_timeout = Duration::from_secs(11 * 60);
        let age = Duration::from_secs(7 * 24 * 60 * 60);
        let history = Keep { jobs: 0, age, size: 1 << 30 };
        let console = 12 << 20;
        let mut network = GatewayLimits::default();
        (network.connections, network.per_name, network.names) = (12, 13, 14);
        (network.queries, network.associations) = (15, 16);
        network.dial = Duration::from_secs(17);
        let expected = Limits {
            service,
            card,
            artifacts: u64::MAX,
            artifact_timeout,
            console,
            pcap: 0,
            network,
            network_log: 1 << 20,
            history,
        };
        assert_eq!(changed.unwrap(), expected);
    }

    #[test]
    fn a_limit_without_an_end_is_none() {
        assert_eq!(set(&["no-guest=1m", "no-guest=none"]), set(&[]));
        assert!(matches!(set(&["no-guest=0"]), Err(InvalidLimit::Period(InvalidPeriod::Zero))));
        assert!(matches!(set(&["agent-dead=none"]), Err(InvalidLimit::Period(_))));
    }

    #[test]
    fn the_name_of_an_earlier_release_is_known() {
        assert_eq!(set(&["farewell=9"]), set(&["artifact-timeout=9"]));
    }

    #[test]
    fn wrong_limits_are_refused() {
        let name = |name: &str| InvalidLimit::Name { name: name.to_owned() };
        assert_eq!(set(&[""]), Err(InvalidLimit::Form));
        assert_eq!(set(&["list"]), Err(InvalidLimit::Form));
        assert_eq!(set(&["speed=1"]), Err(name("speed")));
        assert!(name("speed").to_string().contains("half-open, artifact-timeout, console, pcap"));
        assert_eq!(set(&["list=0"]), Err(InvalidLimit::Zero));
        assert_eq!(set(&["frames=0"]), Err(InvalidLimit::Zero));
        assert_eq!(
            set(&["frames=5G"]),
            Err(InvalidLimit::TooLarge { value: 5 << 30, most: 1 << 30 })
        );
        assert!(matches!(set(&["headers=1T"]), Err(InvalidLimit::TooLarge { .. })));
        let long = set(&["stall=18000000000000000000s"]);
        assert_eq!(long, Err(InvalidLimit::Period(InvalidPeriod::TooLong)));
        assert!(matches!(set(&["list="]), Err(InvalidLimit::Size(_))));
        assert!(matches!(set(&["list=x"]), Err(InvalidLimit::Size(_))));
        assert_eq!(set(&["stall=0"]), Err(InvalidLimit::Period(InvalidPeriod::Zero)));
    }
}
