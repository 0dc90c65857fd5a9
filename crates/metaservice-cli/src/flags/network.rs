//! The flags of a guest's network.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use clap_complete::engine::ArgValueCompleter;

use crate::completions;

/// The heading of these options in the help.
const NETWORK: &str = "Network options";

/// What a guest may connect to.
#[derive(Debug, Default, Clone, Args)]
#[command(next_help_heading = NETWORK)]
pub(crate) struct PolicyArgs {
    /// What the guest reaches besides the service, without a rule [default: none].
    #[arg(long, value_name = "MODE", value_enum)]
    pub(crate) net: Option<Net>,
    /// Let the guest connect to this. Repeatable.
    ///
    /// A RULE is one of these, with PORTS as 443, 80,443 or 8000-8999:
    ///
    /// NAME[:PORTS]: this name, by TCP. *.NAME[:PORTS]: all names below it, but not NAME itself.
    /// CIDR[:PORTS][/udp]: raw addresses, as 10.1.0.0/16 or [2001:db8::/32]:443.
    /// host:PORT: a port of the loopback interface of the host, which is the name "host" in the
    /// guest. public: everything that --net open allows.
    ///
    /// A name that leads to a private address also needs a CIDR rule. On port 443, TLS must name
    /// the same host; NAME:443/any-sni also accepts TLS without a readable name.
    #[arg(long, value_name = "RULE")]
    pub(crate) allow_net: Vec<String>,
    /// Do not let the guest connect to this, whatever allows it. Repeatable.
    #[arg(long, value_name = "RULE")]
    pub(crate) deny_net: Vec<String>,
    /// Add the rules of a file, or of a preset.
    ///
    /// "metaservice net presets" lists the presets, and prints one as an example. A file has a
    /// slash in its path, or the suffix .toml.
    #[arg(long, value_name = "FILE|PRESET", add = ArgValueCompleter::new(completions::policies))]
    pub(crate) net_policy: Option<PathBuf>,
}

/// The network of a machine.
#[derive(Debug, Default, Clone, Args)]
#[command(next_help_heading = NETWORK)]
pub(crate) struct NetworkArgs {
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    /// Write a line of JSON for each attempt of the guest to a file.
    #[arg(long, value_name = "FILE")]
    pub(crate) net_log: Option<PathBuf>,
    /// Publish a port of the guest on the host. Repeatable.
    ///
    /// The form is [ADDR:]PORT:GUEST_PORT[/udp]. Without an address, only this host can connect.
    /// PORT 0 picks a free port.
    #[arg(long, value_name = "SPEC")]
    pub(crate) publish: Vec<String>,
}

/// What a guest reaches without a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Net {
    /// Only the service.
    None,
    /// Public addresses: nothing of this host, and nothing of its private networks.
    Open,
}
