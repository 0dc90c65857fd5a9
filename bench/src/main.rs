//! Measures ours against what people use today and against what the machine can do.
//!
//! Owns the command line and the order of things: measures are run, their samples kept in the
//! data file, and the page and its plots drawn from that file. Nothing here judges by time: a run
//! fails only when it cannot measure.

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
    /// The data file that is committed; the page and the plots lie beside it.
    #[arg(long, default_value = "docs/performance/data.json")]
    data: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Take samples, put them into the data file and draw the page.
    Run(Choice),
    /// Take fewer and smaller samples, and say what moved by more than 25 % against the data file,
    /// which stays as it is. A measure that is named is taken though it is none of a quick run's.
    Quick(Choice),
    /// Draw the page and the plots from the data file.
    Render,
    /// Name the measures.
    List,
    /// Write so many bytes to the standard output: a part of some measures.
    #[command(hide = true)]
    Source { bytes: u64 },
    /// Host so many jobs: a part of some measures.
    #[command(hide = true)]
    CrowdHost { jobs: usize },
    /// The guest's part of a measure in a machine.
    #[command(subcommand, hide = true)]
    Guest(machine::Part),
}

#[derive(clap::Args)]
struct Choice {
    /// Only these: a group (`loopback`, `machine`), or a measure as `loopback/log`.
    filter: Vec<String>,
    /// The agent as guests get it.
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
        Command::Run(choice) => run(&choice, &file),
        Command::Quick(choice) => quick(&choice, &file),
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

/// An interrupted run leaves nothing; what it has started ends with it.
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

/// A command that writes as fast as it can.
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
    loopback::entries().into_iter().chain(machine::entries()).collect()
}

fn run(choice: &Choice, file: &Path) -> anyhow::Result<()> {
    let setting = choice.setting(false);
    let facts = Facts::gather();
    let mut failed = Vec::new();
    for entry in choice.entries()? {
        match runner::run(&entry, &setting, &facts) {
            // Kept at once: a run of an hour may be interrupted.
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

fn quick(choice: &Choice, file: &Path) -> anyhow::Result<()> {
    let setting = choice.setting(true);
    let facts = Facts::gather();
    let mut now = Data::default();
    let wanted = |entry: &Entry| entry.quick || !choice.filter.is_empty();
    for entry in choice.entries()?.into_iter().filter(wanted) {
        match runner::run(&entry, &setting, &facts) {
            Ok(record) => now.put(record),
            Err(error) => println!("not measured: {error:#}"),
        }
    }
    for record in &now.records {
        for goal in &record.goals {
            println!("{}", page::line(record, goal));
        }
    }
    let moved = compare::compare(&Data::load(file)?, &now);
    match moved.len() {
        0 => println!("nothing moved by more than 25 % against {}", file.display()),
        _ => println!("moved by more than 25 % against {}:", file.display()),
    }
    moved.iter().for_each(|line| println!("  {line}"));
    Ok(())
}

impl Choice {
    fn setting(&self, quick: bool) -> Setting {
        let agent = self.agent.clone().unwrap_or_else(|| {
            let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
            Path::new("target/agent").join(target).join("agent/metaservice-guest")
        });
        Setting { quick, agent, tool: self.tool.clone() }
    }

    /// What the filter lets through; an error when that is nothing.
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
            .context("no measure has such a name: see `metaservice-bench list`")
    }
}
