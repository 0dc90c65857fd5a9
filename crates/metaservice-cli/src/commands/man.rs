//! `metaservice man [DIR]`: the manual pages, one for each verb, with the texts of `--help`.
//! The page `docs/reference/cli.md` is generated here too.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::path::PathBuf;

use anyhow::{Context, Error, Result};
use clap::Args;
use clap::Command;

use crate::output::Output;
use crate::output::printer::Hint;
use crate::status::ExitStatus;

/// Write the manual pages.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  metaservice man ~/.local/share/man/man1")]
pub(crate) struct Man {
    /// The directory for the pages.
    ///
    /// It gets one page for each verb. Without it, the main page is printed.
    #[arg(value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
    /// Print the help of all verbs as one page of Markdown.
    #[arg(long, hide = true, conflicts_with = "directory")]
    pub(crate) markdown: bool,
    /// Print the JSON Schema of the file of `run --spec`.
    #[arg(long, hide = true, conflicts_with_all = ["directory", "markdown"])]
    pub(crate) schema: bool,
    /// Print the JSON Schema of what "submit" sends to a queue.
    #[arg(long, hide = true, conflicts_with_all = ["directory", "markdown", "schema"])]
    pub(crate) request_schema: bool,
}

/// The width of the help texts in the Markdown page.
const COLUMNS: usize = 100;

pub(crate) fn man(args: &Man, mut cli: Command) -> Result<ExitStatus> {
    if args.schema {
        Output::lock().write_all(schema()?.as_bytes())?;
        return Ok(ExitStatus::SUCCESS);
    }
    if args.request_schema {
        Output::lock().write_all(request_schema()?.as_bytes())?;
        return Ok(ExitStatus::SUCCESS);
    }
    if args.markdown {
        Output::lock().write_all(markdown(cli).as_bytes())?;
        return Ok(ExitStatus::SUCCESS);
    }
    cli.build();
    let cli = with_synopsis(cli);
    match &args.directory {
        None => clap_mangen::Man::new(cli).render(&mut Output::lock())?,
        Some(directory) => {
            let cannot = || format!("cannot write to {}", directory.display());
            make(directory).with_context(cannot)?;
            clap_mangen::generate_to(cli, directory).with_context(cannot)?;
        }
    }
    Ok(ExitStatus::SUCCESS)
}

/// Sets the synopsis of a verb, and of the verbs below it: each option with its value. That of
/// `clap_mangen` has the options without values.
fn with_synopsis(command: Command) -> Command {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let mut synopsis = name.to_owned();
    let options = command.get_opts().filter(|option| !option.is_hide_set());
    for option in options.filter(|option| !option.is_global_set()) {
        let (open, close) = if option.is_required_set() { ("", "") } else { ("[", "]") };
        let short = option.get_short().map(|letter| format!("-{letter}"));
        let long = option.get_long().map(|word| format!("--{word}"));
        let names: Vec<String> = short.into_iter().chain(long).collect();
        let _ = write!(synopsis, " {open}{}", names.join("|"));
        if option.get_action().takes_values() {
            let values = option.get_value_names().unwrap_or_default();
            values.iter().for_each(|value| _ = write!(synopsis, " {value}"));
        }
        synopsis.push_str(close);
    }
    for positional in command.get_positionals().filter(|argument| !argument.is_hide_set()) {
        let _ = write!(synopsis, " {positional}");
    }
    if command.has_subcommands() {
        synopsis.push_str(" VERB ...");
    }
    command.override_usage(synopsis).mut_subcommands(with_synopsis)
}

/// The JSON Schema of a job's description.
fn schema() -> Result<String> {
    Ok(serde_json::to_string_pretty(&metaservice_sandbox::spec::schema())? + "\n")
}

/// The JSON Schema of a request to a queue.
fn request_schema() -> Result<String> {
    Ok(serde_json::to_string_pretty(&metaservice_fleet::request::schema())? + "\n")
}

/// The help of all verbs as a page, with a section for each.
fn markdown(cli: Command) -> String {
    let mut cli = cli.term_width(COLUMNS);
    cli.build();
    let mut page =
        "# Command line\n\nThe help texts of all verbs, as `--help` prints them.\n".to_owned();
    sections(&mut page, &mut cli, "metaservice");
    page
}

fn sections(page: &mut String, command: &mut Command, name: &str) {
    let help = command.render_long_help().to_string();
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    let _ = write!(page, "\n## {name}\n\n```text\n{}\n```\n", lines.join("\n").trim_end());
    for verb in command.get_subcommands_mut().filter(|verb| !verb.is_hide_set()) {
        let name = format!("{name} {}", verb.get_name());
        sections(page, verb, &name);
    }
}

/// Creates the directory, but not those above it, because the name may be mistyped.
fn make(directory: &Path) -> Result<()> {
    match std::fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let hint = Hint(format!("make it first: mkdir -p {}", directory.display()));
            Err(Error::new(hint).context("the directory above it does not exist"))
        }
        made => Ok(made?),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn a_synopsis_has_the_values_of_options() {
        let mut cli = Cli::command();
        cli.build();
        let cli = with_synopsis(cli);
        let usage = |verb| cli.find_subcommand(verb).unwrap().get_overridden_usage().unwrap();
        let kill = usage("kill").to_string();
        assert!(kill.starts_with("metaservice kill [-s|--signal SIGNAL] [--queue URL]"), "{kill}");
        assert!(kill.ends_with(" <JOB>..."), "{kill}");
        let serve = usage("serve").to_string();
        assert!(serve.starts_with("metaservice serve --listen ADDR [--state DIR]"), "{serve}");
        assert!(serve.ends_with(" [COMMAND]..."), "{serve}");
    }

    #[test]
    fn the_schema_is_that_of_the_description() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/job.schema.json");
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == schema().unwrap(),
            "docs/reference/job.schema.json differs; renew it: \
             cargo run -p metaservice-cli -- man --schema > docs/reference/job.schema.json"
        );
    }

    #[test]
    fn the_schema_of_requests_is_that_of_the_queue() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/request.schema.json");
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == request_schema().unwrap(),
            "docs/reference/request.schema.json differs; renew it: cargo run -p metaservice-cli -- \
             man --request-schema > docs/reference/request.schema.json"
        );
    }

    #[test]
    fn the_command_line_page_is_the_help() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/cli.md");
        let committed = std::fs::read_to_string(path).unwrap();
        assert!(
            committed == markdown(Cli::command()),
            "docs/reference/cli.md differs from the help; renew it: \
             cargo run -p metaservice-cli -- man --markdown > docs/reference/cli.md"
        );
    }
}
