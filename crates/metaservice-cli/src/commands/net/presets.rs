//! `metaservice net presets [NAME]`: lists the presets, or prints the file of one.

use std::io::Write;

use anyhow::Result;
use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use metaservice_egress::file::Preset;
use serde_json::json;

use crate::completions;
use crate::hints;
use crate::output::printer::{Printer, json_text};
use crate::output::{self, Output, table};
use crate::status::ExitStatus;

const HELP: &str = "\
Examples:
  metaservice net presets
  metaservice net presets pip > net.toml
  metaservice run --net-policy ./net.toml -- pip install requests

A file uses a preset by its name: include = [\"pip\", \"git\"]";

/// List the presets of policies, or print the file of one.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Presets {
    /// The name of a preset.
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(completions::presets))]
    name: Option<String>,
}

pub(super) fn presets(args: &Presets, printer: Printer) -> Result<ExitStatus> {
    match &args.name {
        Some(name) => print(name)?,
        None => list(printer)?,
    }
    Ok(ExitStatus::SUCCESS)
}

fn print(name: &str) -> Result<()> {
    let names = || Preset::all().iter().map(Preset::name).collect::<Vec<_>>().join(", ");
    let unknown =
        || hints::hinted(format!("one of: {}", names()), format!("there is no preset {name:?}"));
    let preset = Preset::find(name).ok_or_else(unknown)?;
    Ok(Output::lock().write_all(preset.text().as_bytes())?)
}

fn list(printer: Printer) -> Result<()> {
    let presets = Preset::all().iter();
    if printer.is_json() {
        let presets = presets.map(|one| json!({ "name": one.name(), "about": one.about() }));
        output::line(json_text(&json!(presets.collect::<Vec<_>>()).to_string()))?;
    } else if printer.is_quiet() {
        for preset in presets {
            output::line(preset.name())?;
        }
    } else {
        let rows = presets.map(|one| vec![one.name().to_owned(), one.about().to_owned()]);
        for line in table::lines(&rows.collect::<Vec<_>>()) {
            output::line(line)?;
        }
    }
    Ok(())
}
