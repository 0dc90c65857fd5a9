//! `metaservice ps`: lists the jobs of this user on this host.

mod format;
mod row;

use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::Args;
use metaservice_sandbox::ListedJob;
use serde_json::json;

use self::format::{Field, Format, Template};
use crate::output;
use crate::output::printer::{Printer, json_text};
use crate::output::table;
use crate::status::ExitStatus;

const HELP: &str = "\
Examples:
  metaservice ps -a
  metaservice ps -q | xargs -r metaservice kill
  metaservice ps --format '{{.Name}}\\t{{.State}}'
  metaservice ps --format json | jq .machine

IMAGE, CPU, MEMORY and ACCEL are what the machine has. \"stats\" shows what it uses. They are unknown
for \"serve\".";

/// List the running jobs.
///
/// With -q, print only their names.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Ps {
    /// Also list the jobs that have ended, as far as they are kept.
    ///
    /// A job is lost if the process that ran it was killed.
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Print each job by a template, as a table of templates, or as JSON.
    ///
    /// A template is a text with fields: .Name, .State, .Age, .Image, .CPU, .Memory, .Accel, .PID
    /// and .Command, each in {{ }}. \t is a tab, \n a line break. "table TEMPLATE" prints a table,
    /// with a tab between columns. "json" prints a JSON object for each job, as in --json.
    #[arg(long, value_name = "TEMPLATE|json", value_parser = Format::from_str)]
    pub(crate) format: Option<Format>,
}

pub(crate) async fn ps(args: Ps, printer: Printer) -> Result<ExitStatus> {
    let rows = metaservice_sandbox::list(args.all).await?;
    let format = match (args.format, printer.is_quiet(), printer.is_json()) {
        (Some(format), ..) => format,
        (None, true, _) => Format::names(),
        (None, false, true) => {
            let all: Vec<_> = rows.iter().map(ListedJob::json).collect();
            output::line(json_text(&json!(all).to_string()))?;
            return Ok(ExitStatus::SUCCESS);
        }
        (None, false, false) => Format::usual(),
    };
    for line in lines(&format, &rows, now_ms()) {
        output::line(line)?;
    }
    Ok(ExitStatus::SUCCESS)
}

/// The lines of the list. `now_ms` is the time since 1970.
fn lines(format: &Format, rows: &[ListedJob], now_ms: u64) -> Vec<String> {
    let fill =
        |template: &Template, row: &ListedJob| template.fill(|field| row::cell(row, field, now_ms));
    match format {
        Format::Json => rows.iter().map(|row| json_text(&row.json().to_string())).collect(),
        Format::Lines(template) => rows.iter().map(|row| fill(template, row)).collect(),
        Format::Table(columns) => {
            let head = columns.iter().map(|column| column.fill(Field::heading)).collect();
            let row = |row| columns.iter().map(|column| fill(column, row)).collect();
            let all: Vec<Vec<String>> = std::iter::once(head).chain(rows.iter().map(row)).collect();
            table::lines(&all)
        }
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
