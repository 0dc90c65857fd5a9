//! The top of the command line: the options of all verbs, and the verb.
//!
//! This module owns the parser and the help of the tool itself. Each verb owns its own flags.

use std::fmt::Write as _;

use clap::builder::StyledStr;
use clap::builder::styling::{AnsiColor, Styles};
use clap::{Parser, Subcommand};

use crate::commands::{Command, GROUPS};
use crate::flags::{GENERAL, OutputArgs};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const ROOT_HELP: &str = "\
Examples:
  metaservice run -- uname -a
  metaservice help run           all options of a verb
  metaservice doctor --install   install what is missing";

/// Run a command inside a virtual machine.
#[derive(Debug, Parser)]
#[command(name = "metaservice", version, styles = STYLES, after_help = ROOT_HELP)]
#[command(propagate_version = true, disable_help_subcommand = true)]
#[command(disable_help_flag = true, disable_version_flag = true)]
#[command(help_template = root_template())]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Builds the help of the tool, with its verbs in groups. clap supports only one list of verbs.
fn root_template() -> StyledStr {
    let verbs = Command::augment_subcommands(clap::Command::new(""));
    let (header, literal) = (STYLES.get_header(), STYLES.get_literal());
    let mut template = "{about}\n\n{usage-heading} {usage}\n".to_owned();
    for (title, names) in GROUPS {
        let _ = writeln!(template, "\n{header}{title}:{header:#}");
        for name in names {
            let about = verbs.find_subcommand(name).and_then(clap::Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(template, "  {literal}{name:<12}{literal:#} {about}");
        }
    }
    let _ = write!(template, "\n{header}{GENERAL}:{header:#}\n{{options}}{{after-help}}");
    template.into()
}
