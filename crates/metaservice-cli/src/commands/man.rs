//! `metaservice man [DIR]`: the manual pages, one for each verb, from the same words as --help.
//! The page `docs/reference/cli.md` is generated here too.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::{Context, Error, Result};
use clap::CommandFactory;

use crate::args::{Cli, ManArgs};
use crate::output::Output;
use crate::printer::Hint;
use crate::status::ExitStatus;

/// The width of the help texts in the Markdown page.
const COLUMNS: usize = 100;

pub(crate) fn man(args: &ManArgs) -> Result<ExitStatus> {
    let mut cli = Cli::command();
    match &args.folder {
        None if args.markdown => Output::lock().write_all(markdown(cli).as_bytes())?,
        None => clap_mangen::Man::new(cli).render(&mut Output::lock())?,
        Some(folder) => {
            let cannot = || format!("cannot write to {}", folder.display());
            make(folder).with_context(cannot)?;
            cli.build();
            clap_mangen::generate_to(cli, folder).with_context(cannot)?;
        }
    }
    Ok(ExitStatus::SUCCESS)
}

/// The help of all verbs as a page: a section for each, with its help as it is printed.
fn markdown(cli: clap::Command) -> String {
    let mut cli = cli.term_width(COLUMNS);
    cli.build();
    let mut page =
        "# Command line\n\nThe help texts of all verbs, as `--help` prints them.\n".to_owned();
    sections(&mut page, &mut cli, "metaservice");
    page
}

fn sections(page: &mut String, command: &mut clap::Command, name: &str) {
    let help = command.render_long_help().to_string();
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    let _ = write!(page, "\n## {name}\n\n```text\n{}\n```\n", lines.join("\n").trim_end());
    for verb in command.get_subcommands_mut().filter(|verb| !verb.is_hide_set()) {
        let name = format!("{name} {}", verb.get_name());
        sections(page, verb, &name);
    }
}

/// Makes the directory in one that is there: a word that is mistyped makes no tree.
fn make(folder: &Path) -> Result<()> {
    match std::fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let hint = Hint(format!("make it first: mkdir -p {}", folder.display()));
            Err(Error::new(hint).context("the directory above it does not exist"))
        }
        made => Ok(made?),
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_page_is_the_help() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/cli.md");
        let committed = std::fs::read_to_string(path).unwrap();
        assert!(
            committed == markdown(Cli::command()),
            "docs/reference/cli.md is not the help any more; renew it: \
             cargo run -p metaservice-cli -- man --markdown > docs/reference/cli.md"
        );
    }
}
