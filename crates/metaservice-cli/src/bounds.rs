//! What a guest may take of this machine, by the names that the user has for it.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use metaservice_nic::Limits;

use crate::settings::{parse_duration, parse_size};

/// All bounds of one job.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) service: metaservice::Bounds,
    pub(crate) card: Limits,
    /// How long the artifacts may take, all of them, once the command has ended.
    pub(crate) farewell: Duration,
    /// Bytes of the file that the console is written to.
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
    /// The bounds with the changes that the user wants.
    pub(crate) fn parse(words: &[String], log: &str, artifact: &str) -> Result<Self> {
        let mut bounds = Self::default();
        bounds.service.log = parse_size(log).context("in --max-log")?;
        bounds.service.artifact = parse_size(artifact).context("in --max-artifact")?;
        for word in words {
            bounds.set(word).with_context(|| format!("in --bound {word}"))?;
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
            "farewell" => *farewell = time()?,
            "console" => *console = parse_size(value)?,
            "pcap" => *pcap = parse_size(value)?,
            _ => bail!(
                "there is no bound {name:?}; the names are: connections, headers, line, head, \
                 head-time, stall, list, names, streams, storage, buffers, frames, half-open, \
                 farewell, console, pcap"
            ),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;

    use super::*;
    use crate::args::Cli;

    #[test]
    fn the_page_on_limits_has_each_name_and_default() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/limits.md");
        let page = std::fs::read_to_string(path).unwrap();
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
        let rows = rows.filter_map(|(name, rest)| Some((name, rest.split_once(" |")?.0)));
        let (options, limits): (Vec<_>, Vec<_>) = rows.partition(|row| row.0.starts_with("--"));

        let error = format!("{:#}", Bounds::default().set("?=1").unwrap_err());
        let names: BTreeSet<&str> = error.rsplit_once(": ").unwrap().1.split(", ").collect();
        assert_eq!(limits.iter().map(|row| row.0).collect::<BTreeSet<_>>(), names, "{path}");
        assert_eq!(limits.len(), names.len(), "a name is twice in {path}");
        let words: Vec<String> =
            limits.iter().map(|(name, default)| format!("{name}={default}")).collect();
        let option = |name| options.iter().find(|row| row.0 == name).unwrap().1;
        let parsed = Bounds::parse(&words, option("--max-log"), option("--max-artifact"));
        assert_eq!(parsed.unwrap(), Bounds::default(), "{path}");

        for verb in ["run", "serve"] {
            let cli = Cli::command();
            let verb = cli.find_subcommand(verb).unwrap();
            for (name, default) in &options {
                let argument =
                    verb.get_arguments().find(|a| a.get_long() == name.strip_prefix("--"));
                assert_eq!(argument.unwrap().get_default_values(), [*default], "{name} in {path}");
            }
        }
    }

    #[test]
    fn bounds_have_names_and_units() {
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
            "farewell=11m",
            "console=12M",
            "pcap=0",
        ]);
        let mut service = metaservice::Bounds::default();
        (service.log, service.artifact) = (1024, 2048);
        (service.connections, service.headers, service.head) = (1, 2, 3 << 10);
        (service.head_time, service.stall) = (Duration::from_secs(4), Duration::from_secs(5));
        (service.list, service.names, service.streams) = (6 << 20, 7, 8);
        (service.line, service.storage) = (2 << 10, 9 << 30);
        let card = Limits { frames: 10 << 10, half_open: 5, buffers: 3 << 20, ..Limits::default() };
        let farewell = Duration::from_secs(11 * 60);
        let expected = Bounds { service, card, farewell, console: 12 << 20, pcap: 0 };
        assert_eq!(set_all.unwrap(), expected);
        for wrong in
            ["", "list", "list=", "list=0", "list=x", "stall=0", "speed=1", "frames=0", "frames=5G"]
        {
            let error = format!("{:#}", set(&[wrong]).unwrap_err());
            assert!(error.starts_with(&format!("in --bound {wrong}: ")), "{error}");
        }
    }
}
