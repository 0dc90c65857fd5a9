//! The limits of `--limit`: what a guest can use of the host.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use metaservice_nic::Limits;

use crate::settings::{parse_duration, parse_size};

/// The limits of `--limit` in the order of the help: name, default, and what is limited.
const LIMITS: [(&str, &str, &str); 16] = [
    ("connections", "1024", "concurrent connections, each with one request at a time"),
    ("half-open", "1024", "incomplete TCP handshakes with the network card"),
    ("buffers", "48M", "memory for the buffers of all connections to the network card"),
    ("frames", "1000000", "network frames per second, averaged over a tenth of a second"),
    ("line", "16K", "size of the path and query of a request"),
    ("head", "16K", "size of the request line and the headers together"),
    ("headers", "64", "headers of a request"),
    ("head-time", "30s", "time for the head of a request, from the start of the connection"),
    ("stall", "30s", "time in which a reply, or a reader of an answer, must make progress"),
    ("list", "10M", "size of a listing of a version 1 agent"),
    ("names", "1000000", "names in a listing of a version 1 agent"),
    ("streams", "256", "concurrent shells and other streams"),
    ("storage", "128G", "all artifacts of a job in temporary storage together"),
    ("artifact-timeout", "1h", "time for all artifacts after the command has ended"),
    ("console", "64M", "size of the file of `--console`"),
    ("pcap", "16G", "size of the file of `--pcap`"),
];

/// The help of the limits.
pub(crate) fn list() -> String {
    let mut text =
        "What a guest can use of the host. Change a limit with --limit NAME=VALUE, which can \
                    be\nrepeated, in \"run\" and \"serve\":\n\n  metaservice run --limit \
                    connections=64 --limit stall=1m -- make test\n\nName, default, and what is \
                    limited:\n\n"
            .to_owned();
    for (name, default, what) in LIMITS {
        let _ = writeln!(text, "  {name:<16}  {default:<7}  {}", what.replace('`', ""));
    }
    text + "\nA size is a number of bytes, or has the suffix K, M, G or T (powers of 1024). A time is a \
            number of\nseconds, or a text such as 90s, 5m or 1h30m.\n\nThe log and the artifacts have \
            their own options: --max-log and --max-artifact, 64G each.\n"
}

/// All limits of one job.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) service: metaservice::Bounds,
    pub(crate) card: Limits,
    /// Time for all artifacts after the command has ended.
    pub(crate) farewell: Duration,
    /// Bytes of the console's file.
    pub(crate) console: u64,
    /// Bytes of the capture file.
    pub(crate) pcap: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            service: metaservice::Bounds::default(),
            card: Limits::default(),
            farewell: Duration::from_secs(60 * 60),
            console: 64 << 20,
            pcap: 16 << 30,
        }
    }
}

impl Bounds {
    /// The defaults with the changes of the user.
    pub(crate) fn parse(words: &[String], log: &str, artifact: &str) -> Result<Self> {
        let mut bounds = Self::default();
        bounds.service.log = parse_size(log).context("in --max-log")?;
        bounds.service.artifact = parse_size(artifact).context("in --max-artifact")?;
        for word in words {
            bounds.set(word).with_context(|| format!("in --limit {word}"))?;
        }
        bounds.card.connections = bounds.card.connections.max(bounds.service.connections);
        Ok(bounds)
    }

    fn set(&mut self, word: &str) -> Result<()> {
        let (name, value) = word.split_once('=').context("write NAME=VALUE")?;
        let count = || {
            let size = usize::try_from(parse_size(value)?)?;
            ensure!(size > 0, "a guest needs at least one");
            Ok(size)
        };
        let time = || {
            let time = parse_duration(value)?;
            ensure!(!time.is_zero(), "a guest needs some time");
            Ok(time)
        };
        let Self { service, card, farewell, console, pcap } = self;
        match name {
            "connections" => service.connections = count()?,
            "headers" => service.headers = count()?,
            "line" => service.line = count()?,
            "head" => service.head = count()?,
            "head-time" => service.head_time = time()?,
            "stall" => service.stall = time()?,
            "list" => service.list = count()?,
            "names" => service.names = count()?,
            "streams" => service.streams = count()?,
            "storage" => service.storage = parse_size(value)?,
            "frames" => card.frames = u32::try_from(count()?)?,
            "buffers" => card.buffers = count()?,
            "half-open" => card.half_open = count()?,
            "artifact-timeout" | "farewell" => *farewell = time()?,
            "console" => *console = parse_size(value)?,
            "pcap" => *pcap = parse_size(value)?,
            _ => {
                let names = LIMITS.map(|limit| limit.0).join(", ");
                bail!("there is no limit {name:?}; the names are: {names}")
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::args::Cli;

    #[test]
    fn the_page_on_limits_has_each_name_and_default() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/limits.md");
        let page = std::fs::read_to_string(path).unwrap();
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
        let rows = rows.filter_map(|(name, rest)| {
            let (default, what) = rest.strip_suffix(" |")?.split_once(" | ")?;
            Some((name, default, what))
        });
        let (options, limits): (Vec<_>, Vec<_>) = rows.partition(|row| row.0.starts_with("--"));

        assert_eq!(limits, LIMITS, "{path}");
        let words: Vec<String> =
            LIMITS.iter().map(|(name, default, _)| format!("{name}={default}")).collect();
        let option = |name| options.iter().find(|row| row.0 == name).unwrap().1;
        let parsed = Bounds::parse(&words, option("--max-log"), option("--max-artifact"));
        assert_eq!(parsed.unwrap(), Bounds::default(), "{path}");

        for verb in ["run", "serve"] {
            let cli = Cli::command();
            let verb = cli.find_subcommand(verb).unwrap();
            for (name, default, _) in &options {
                let argument =
                    verb.get_arguments().find(|a| a.get_long() == name.strip_prefix("--"));
                assert_eq!(argument.unwrap().get_default_values(), [*default], "{name} in {path}");
            }
        }
    }

    #[test]
    fn limits_have_names_and_units() {
        let set = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            Bounds::parse(&words, "1K", "2K")
        };
        let set_all = set(&[
            "connections=1",
            "headers=2",
            "line=2K",
            "head=3K",
            "head-time=4",
            "stall=5s",
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
        ]);
        let mut service = metaservice::Bounds::default();
        (service.log, service.artifact) = (1024, 2048);
        (service.connections, service.headers, service.head) = (1, 2, 3 << 10);
        (service.head_time, service.stall) = (Duration::from_secs(4), Duration::from_secs(5));
        (service.list, service.names, service.streams) = (6 << 20, 7, 8);
        (service.line, service.storage) = (2 << 10, 9 << 30);
        let mut card = Limits::default();
        (card.frames, card.half_open, card.buffers) = (10 << 10, 5, 3 << 20);
        let farewell = Duration::from_secs(11 * 60);
        let expected = Bounds { service, card, farewell, console: 12 << 20, pcap: 0 };
        assert_eq!(set_all.unwrap(), expected);
        for wrong in
            ["", "list", "list=", "list=0", "list=x", "stall=0", "speed=1", "frames=0", "frames=5G"]
        {
            let error = format!("{:#}", set(&[wrong]).unwrap_err());
            assert!(error.starts_with(&format!("in --limit {wrong}: ")), "{error}");
        }
    }
}
