//! The help of `--limit`.
//!
//! This module owns the table of limits: name, default, and what is limited. Tests compare it with
//! the defaults of a job and with `docs/reference/limits.md`.

use std::fmt::Write as _;

/// The limits of `--limit` in the order of the help: name, default, and what is limited.
pub(crate) const LIMITS: [(&str, &str, &str); 29] = [
    ("connections", "1024", "concurrent connections, each with one request at a time"),
    ("half-open", "1024", "incomplete TCP handshakes with the network card"),
    ("buffers", "48M", "memory for the buffers of all connections to the network card"),
    ("frames", "1000000", "network frames per second, averaged over a tenth of a second"),
    ("line", "16K", "size of the path and query of a request"),
    ("head", "16K", "size of the request line and the headers together"),
    ("headers", "64", "headers of a request"),
    ("head-time", "30s", "time for the head of a request, from the start of the connection"),
    ("stall", "30s", "longest time without a byte, sent in a reply or read from an answer"),
    ("agent-lost", "60s", "time without a request of the agent until it is unresponsive"),
    ("agent-dead", "5m", "time without a request of the agent until the job is lost"),
    ("no-guest", "none", "time without any request of a guest until the job is lost"),
    ("history-jobs", "100", "ended jobs that are kept when this one starts"),
    ("history-age", "30d", "time for which an ended job is kept"),
    ("history-size", "2G", "size of all ended jobs together"),
    ("list", "10M", "size of a listing of a version 1 agent"),
    ("names", "1000000", "names in a listing of a version 1 agent"),
    ("streams", "256", "concurrent shells and other streams"),
    ("storage", "128G", "all artifacts of a job in temporary storage together"),
    ("artifact-timeout", "1h", "time for all files of --copy-in, and for all artifacts"),
    ("console", "64M", "size of the file of `--console`"),
    ("pcap", "16G", "size of the file of `--pcap`"),
    ("net-log", "64M", "size of the log of the network"),
    ("net-connections", "2048", "TCP connections of the guest to other hosts"),
    ("net-per-name", "1024", "TCP connections of the guest to one name"),
    ("net-names", "4096", "names that have an address in the guest"),
    ("net-queries", "1000", "DNS questions per second"),
    ("net-udp", "256", "UDP exchanges: pairs of a port of the guest and a destination"),
    ("net-dial", "20s", "time to resolve a name and to connect"),
];

/// Returns the help of the limits.
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use metaservice_sandbox::job::Job;
    use metaservice_sandbox::spec::JobSpec;

    use super::*;
    use crate::cli::Cli;

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
    fn the_defaults_in_the_help_are_those_of_a_job() {
        let usual = Job::try_from(JobSpec::new(["true"])).unwrap();
        let mut spec = JobSpec::new(["true"]);
        spec.limits = LIMITS.map(|(name, value, _)| (name.to_owned(), value.to_owned())).into();
        assert_eq!(Job::try_from(spec).unwrap().limits(), usual.limits());
    }
}
