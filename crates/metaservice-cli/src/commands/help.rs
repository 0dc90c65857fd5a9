//! `metaservice help [VERB]`, and errors of a command line that cannot be parsed.

use std::io::Write;

use anyhow::{Error, Result};
use clap::Args;
use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use serde_json::json;

use crate::flags::OutputArgs;
use crate::output::Output;
use crate::output::printer::{Hint, Printer};
use crate::similar::similar;
use crate::status::ExitStatus;

/// Show the help of a verb, the list of limits, or how to write a configuration file.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  metaservice help run\n  metaservice help limits\n  metaservice help config"
)]
pub(crate) struct Help {
    /// The verb, "limits" or "config".
    #[arg(value_name = "VERB")]
    pub(crate) verb: Vec<String>,
}

pub(crate) fn help(args: &Help, mut cli: Command) -> Result<ExitStatus> {
    let words = args.verb.as_slice();
    if words == ["limits"] {
        Output::lock().write_all(crate::limits::list().as_bytes())?;
        return Ok(ExitStatus::SUCCESS);
    }
    if words == ["config"] {
        Output::lock().write_all(crate::config::HELP.as_bytes())?;
        return Ok(ExitStatus::SUCCESS);
    }
    cli.build();
    let mut command = &mut cli;
    for word in words {
        let names = verbs(command);
        let path = command.get_bin_name().unwrap_or("metaservice");
        let hint = match similar(word, &names) {
            Some(name) => format!("did you mean {name:?}?"),
            None if names.is_empty() => {
                format!("{path} has no verbs of its own: see `{path} --help`")
            }
            None => format!("one of: {}", names.join(", ")),
        };
        let unknown = || Error::new(Hint(hint)).context(format!("there is no verb {word:?}"));
        command = command.find_subcommand_mut(word).ok_or_else(unknown)?;
    }
    let help = if words.is_empty() { command.render_help() } else { command.render_long_help() };
    let mut output = Output::lock();
    match crate::output::has_colours(&std::io::stdout()) {
        true => write!(output, "{}", help.ansi())?,
        false => write!(output, "{help}")?,
    }
    Ok(ExitStatus::SUCCESS)
}

/// Prints an error of the command line, or the help if that is the request.
pub(crate) fn show(mut error: clap::Error, cli: &Command) -> ExitStatus {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // If standard output fails, there is no better place for the help.
        let _ = error.print();
        return ExitStatus::SUCCESS;
    }
    without_false_tip(&mut error);
    let hint = meant(&error, cli).map(|meant| format!("did you mean {meant:?}?"));
    let hint = hint.or_else(|| spelling(&error).map(str::to_owned));
    // The flags were not parsed. Only this one changes the output.
    let before_command = std::env::args().skip(1).take_while(|word| word != "--");
    if before_command.into_iter().any(|word| word == "--json") {
        let printer = Printer::new(&OutputArgs { json: true, ..OutputArgs::default() });
        let text = error.to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        printer.event("error", json!({ "message": message, "hint": hint }));
        return ExitStatus::FAILED;
    }
    let _ = error.print();
    if let Some(hint) = hint {
        crate::output::stderr::line(&format!("hint: {hint}"));
    }
    ExitStatus::FAILED
}

/// Removes the tip to write an unknown option after "--". There it would become the name of the job
/// or its command.
fn without_false_tip(error: &mut clap::Error) {
    let Some(ContextValue::StyledStrs(mut tips)) = error.remove(ContextKind::Suggested) else {
        return;
    };
    tips.retain(|tip| !tip.to_string().starts_with("to pass "));
    if !tips.is_empty() {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
    }
}

/// The most similar verb, if the error does not name one itself.
fn meant(error: &clap::Error, cli: &Command) -> Option<String> {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else {
        return None;
    };
    if error.get(ContextKind::SuggestedSubcommand).is_some() {
        return None;
    }
    similar(word, &verbs(cli))
}

/// What docker has a short option for, and this tool a long one.
fn spelling(error: &clap::Error) -> Option<&'static str> {
    match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(option)) if option == "-p" => {
            Some("docker's -p is --publish [ADDR:]PORT:GUEST_PORT[/udp] of run")
        }
        _ => None,
    }
}

fn verbs(command: &Command) -> Vec<String> {
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    shown.map(|command| command.get_name().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn a_mistyped_verb_is_recognised() {
        let names = verbs(&Cli::command());
        for (typed, meant) in [("rnu", "run"), ("exce", "exec"), ("lgos", "logs"), ("kil", "kill")]
        {
            assert_eq!(similar(typed, &names).as_deref(), Some(meant));
        }
        for other in ["frobnicate", "", "x", "zz"] {
            assert_eq!(similar(other, &names), None, "{other}");
        }
    }
}
