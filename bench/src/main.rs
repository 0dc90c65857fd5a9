//! Measures metaservice against its peers and against the limits of the machine.
//!
//! Owns the command line and the order of the steps: run the measures, store their samples in the
//! data file, and draw the page and its plots from that file. A slow result is not an error: a run
//! fails only if it cannot measure.

#![forbid(unsafe_code)]

mod compare;
mod data;
mod facts;
mod judge;
mod loopback;
mod machine;
mod measure;
mod page;
mod plot;
mod queue;
mod runner;
mod statistics;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::data::Data;
use crate::facts::Facts;
use crate::measure::{Entry, Setting};

/// Measures metaservice, its peers and the limits of the machine.
#[derive(Parser)]
struct Arguments {
    /// The data file. The page and the plots are written beside it.
    #[arg(long, default_value = "docs/performance/data.json")]
    data: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Take samples, add them to the data file and draw the page.
    Run(Selection),
    /// Take fewer and smaller samples, and report what moved by more than 25 % against the data
    /// file. The data file does not change. A measure that you name is always taken, even if it
    /// is not part of the quick run.
    Quick(Selection),
    /// Draw the page and the plots from the data file.
    Render,
    /// List the measures.
    List,
    /// Write this number of bytes to standard output (used by some measures).
    #[command(hide = true)]
    Source { bytes: u64 },
    /// Host this number of jobs (used by some measures).
    #[command(hide = true)]
    CrowdHost { jobs: usize },
    /// Do the guest's part of a measure in a machine (used by some measures).
    #[command(subcommand, hide = true)]
    Guest(machine::Part),
}

#[derive(clap::Args)]
struct Selection {
    /// Take only these: a group (`loopback`, `machine`, `queue`), or a measure such as
    /// `loopback/log`.
    filter: Vec<String>,
    /// The agent, built as for guests.
    #[arg(long)]
    agent: Option<PathBuf>,
    /// The command line tool.
    #[arg(long, default_value = "target/release/metaservice")]
    tool: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let Arguments { data: file, command } = Arguments::parse();
    if matches!(command, Command::Run(_) | Command::Quick(_)) {
        clean_up_when_interrupted()?;
    }
    match command {
        Command::Run(selection) => run(&selection, &file),
        Command::Quick(selection) => quick(&selection, &file),
        Command::Guest(part) => machine::play(&part),
        Command::Render => page::render(&Data::load(&file)?, &file),
        Command::List => {
            for entry in entries() {
                println!(
                    "{}/{}{}",
                    entry.group,
                    entry.id,
                    if entry.quick { "" } else { " (not quick)" }
                );
            }
            Ok(())
        }
        Command::Source { bytes } => source(bytes),
        Command::CrowdHost { jobs } => loopback::crowd_host(jobs),
    }
}

/// Removes temporary files when the run is interrupted. The processes it started end with it.
fn clean_up_when_interrupted() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut terminate = {
        let _inside = runtime.enter();
        signal(SignalKind::terminate())?
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        });
        machine::remove_scratch();
        std::process::exit(130);
    });
    Ok(())
}

/// Writes as fast as possible.
fn source(bytes: u64) -> anyhow::Result<()> {
    let mut output = std::io::stdout().lock();
    let block = vec![b'x'; 256 * 1024];
    let mut left = bytes;
    while left > 0 {
        let count = block.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        output.write_all(&block[..count])?;
        left -= count as u64;
    }
    Ok(())
}

/// All measures, in the order of the page.
fn entries() -> Vec<Entry> {
    let groups = [loopback::entries(), machine::entries(), queue::entries()];
    groups.into_iter().flatten().collect()
}

fn run(selection: &Selection, file: &Path) -> anyhow::Result<()> {
    let setting = selection.setting(false);
    let facts = Facts::gather();
    let mut failed = Vec::new();
    for entry in selection.entries()? {
        match runner::run(&entry, &setting, &facts) {
            // Stored after each measure, because a long run can be interrupted.
            Ok(record) => {
                let mut data = Data::load(file)?;
                data.put(record);
                let entries = entries();
                let order: Vec<_> = entries.iter().map(|entry| (entry.group, entry.id)).collect();
                data.arrange(&order);
                data.save(file)?;
            }
            Err(error) => {
                eprintln!("error: {error:#}");
                failed.push(entry.id);
            }
        }
    }
    page::render(&Data::load(file)?, file)?;
    anyhow::ensure!(failed.is_empty(), "not measured: {}", failed.join(", "));
    Ok(())
}

fn quick(selection: &Selection, file: &Path) -> anyhow::Result<()> {
    let setting = selection.setting(true);
    let facts = Facts::gather();
    let mut now = Data::default();
    let wanted = |entry: &Entry| entry.quick || !selection.filter.is_empty();
    for entry in selection.entries()?.into_iter().filter(wanted) {
        match runner::run(&entry, &setting, &facts) {
            Ok(record) => now.put(record),
            Err(error) => println!("not measured: {error:#}"),
        }
    }
    for record in &now.records {
        page::lines(record).iter().for_each(|line| println!("{line}"));
    }
    let moved = compare::compare(&Data::load(file)?, &now);
    match moved.len() {
        0 => println!("nothing moved by more than 25 % against {}", file.display()),
        _ => println!("moved by more than 25 % against {}:", file.display()),
    }
    moved.iter().for_each(|line| println!("  {line}"));
    Ok(())
}

impl Selection {
    fn setting(&self, quick: bool) -> Setting {
        let agent = self.agent.clone().unwrap_or_else(|| {
            let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
            Path::new("target/agent").join(target).join("agent/metaservice-guest")
        });
        Setting { quick, agent, tool: self.tool.clone() }
    }

    /// The measures that match the filter. No match is an error.
    fn entries(&self) -> anyhow::Result<Vec<Entry>> {
        let wanted = |entry: &Entry| {
            let group = entry.group.to_string();
            let name = format!("{group}/{}", entry.id);
            self.filter.is_empty()
                || self
                    .filter
                    .iter()
                    .any(|word| *word == group || *word == name || *word == entry.id)
        };
        let entries: Vec<Entry> = entries().into_iter().filter(wanted).collect();
        (!entries.is_empty())
            .then_some(entries)
            .context("no measure has this name: see `metaservice-bench list`")
    }
}
