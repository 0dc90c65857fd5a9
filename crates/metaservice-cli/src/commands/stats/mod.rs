//! `metaservice stats [JOB]...`: shows the use of resources of guests, again and again.
//!
//! A rate needs two observations. With `--no-stream`, they are half a second apart. This module
//! owns the tasks that watch the jobs; [`board`] decides which ones.

mod board;
mod gauges;
mod screen;

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Error, Result, ensure};
use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use futures_util::TryStreamExt;
use metaservice::Stats;
use metaservice::control::{Client, ClientError, Code};
use metaservice_sandbox::control;
use metaservice_sandbox::spec::Period;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, timeout};

use self::board::Board;
use self::gauges::Gauges;
use self::screen::Screen;
use super::each::each;
use super::fleet::{MaybeQueue, Reached};
use crate::completions;
use crate::hints;
use crate::interrupts::Interrupts;
use crate::output::Output;
use crate::output::printer::{Printer, json_text};
use crate::status::ExitStatus;

const HELP: &str = "\
Examples:
  metaservice stats
  metaservice stats --no-stream build db
  metaservice stats --json build | jq .memoryUsed
  metaservice stats --queue local 1f2e3d4c5b6a

Without JOB, all jobs are shown: they appear when they start and vanish when they end. With JOB, the
verb ends when these jobs have ended. A job that cannot be observed has \"-\" in its cells.
With --json, each observation is a line.";

/// Show the processor, memory, disk and network use of guests.
///
/// With --queue, JOB is the id of a job of that queue, on whatever host it runs.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct StatsVerb {
    /// Show one observation, and end.
    #[arg(long)]
    pub(crate) no_stream: bool,
    /// Accepted for compatibility: without --no-stream, observations are repeated.
    #[arg(short, long, hide = true, conflicts_with = "no_stream")]
    pub(crate) follow: bool,
    /// The time between two observations: 100ms to 10s.
    #[arg(long, value_name = "DURATION", default_value = "1s", conflicts_with = "no_stream")]
    pub(crate) interval: String,
    /// The names of the jobs [default: all jobs that run].
    #[arg(value_name = "JOB", add = ArgValueCompleter::new(completions::jobs))]
    pub(crate) jobs: Vec<String>,
    #[command(flatten)]
    pub(crate) queue: MaybeQueue,
}

/// The time between the two observations with `--no-stream`.
const MOMENT: Duration = Duration::from_millis(500);

/// How long each job may take to be observed once.
const ONCE_TIMEOUT: Duration = Duration::from_secs(5);

/// How many observations may wait to be shown.
const WAITING: usize = 64;

pub(crate) async fn stats(args: StatsVerb, printer: Printer) -> Result<ExitStatus> {
    let interval = args.interval.parse::<Period>().context("in --interval")?.get();
    let range = Duration::from_millis(100)..=Duration::from_secs(10);
    ensure!(range.contains(&interval), "--interval must be 100ms to 10s");
    let is_of_queue = args.queue.is_named();
    ensure!(!is_of_queue || !args.jobs.is_empty(), "--queue needs the ids of jobs");
    let mut interrupts = Interrupts::listen()?;
    let watching = async {
        match (args.no_stream, args.jobs.is_empty()) {
            (true, true) => {
                let names = control::names().await.map_err(hints::control)?;
                once(names, &args.queue, printer).await
            }
            (true, false) => once(args.jobs, &args.queue, printer).await,
            (false, true) => Watch::new(interval, printer).all().await,
            (false, false) => Watch::new(interval, printer).these(args.jobs, &args.queue).await,
        }
    };
    tokio::select! {
        watched = watching => watched,
        interrupt = interrupts.next() => Ok(ExitStatus::signal(interrupt.number)),
    }
}

/// An observation of a job.
struct Observed {
    name: String,
    gauges: Gauges,
    /// The statistics of the machine's network card. `null` if the host does not know the card.
    card: Value,
}

impl Observed {
    fn json(&self) -> Result<String> {
        let mut line = serde_json::to_value(&self.gauges)?;
        line["name"] = self.name.as_str().into();
        line["card"] = self.card.clone();
        Ok(json_text(&line.to_string()))
    }
}

/// Observes each job once.
async fn once(names: Vec<String>, queue: &MaybeQueue, printer: Printer) -> Result<ExitStatus> {
    let mut board = Board::default();
    board.list(&names);
    let first = async |name: String| {
        let client = queue.reach(&name, printer).await?;
        let (sender, mut receiver) = mpsc::channel(1);
        let observed = async {
            tokio::select! {
                biased;
                observed = receiver.recv() => observed,
                ended = observe(&name, &client, MOMENT, &sender) => return ended.map(|()| None),
            }
            .map_or(Ok(None), |observed| Ok(Some(observed)))
        };
        let cannot = || format!("cannot watch {name}");
        let silent = |_| Error::msg("its guest does not answer");
        let observed =
            timeout(ONCE_TIMEOUT, observed).await.map_err(silent).with_context(cannot)?;
        match observed.with_context(cannot)? {
            Some(observed) => Ok(observed),
            None => Err(Error::msg("the job has ended")).with_context(cannot),
        }
    };
    let status = each(names, printer, first, |observed: Observed| {
        if printer.is_json() {
            writeln!(Output::lock(), "{}", observed.json()?)?;
        }
        board.observe(&observed.name, observed.gauges);
        Ok(())
    });
    let status = status.await?;
    if !printer.is_json() {
        Screen::of_stdout().show(&board.lines(), &mut Output::lock())?;
    }
    Ok(status)
}

/// Sends observations of a job until it ends.
async fn observe(
    name: &str,
    client: &Client,
    interval: Duration,
    to: &mpsc::Sender<Observed>,
) -> Result<()> {
    let mut lines = client.stats(Some(interval)).await?;
    let mut last: Option<Stats> = None;
    while let Some(stats) = lines.try_next().await? {
        if let Some(last) = last {
            let card = client
                .job()
                .await
                .map_or(Value::Null, |job| job.machine.get("card").cloned().unwrap_or_default());
            let gauges = Gauges::between(&last, &stats);
            if to.send(Observed { name: name.to_owned(), gauges, card }).await.is_err() {
                break;
            }
        }
        last = Some(stats);
    }
    Ok(())
}

/// Returns whether the job has ended: it has a status, or its process has ended.
async fn has_ended(client: &Client) -> bool {
    match client.job().await {
        Ok(job) => job.status.is_some(),
        Err(error) => matches!(error, ClientError::Unreachable(..) | ClientError::Connection(_)),
    }
}

/// Why a job is no longer observed.
enum Parting {
    Ended,
    Failed(Error),
}

/// The watched jobs, and the tasks that observe them.
struct Watch {
    interval: Duration,
    printer: Printer,
    board: Board,
    screen: Screen,
    tasks: JoinSet<(String, Parting)>,
    sender: mpsc::Sender<Observed>,
    receiver: mpsc::Receiver<Observed>,
    status: ExitStatus,
}

impl Watch {
    fn new(interval: Duration, printer: Printer) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        Self {
            interval,
            printer,
            board: Board::default(),
            screen: Screen::of_stdout(),
            tasks: JoinSet::new(),
            sender,
            receiver,
            status: ExitStatus::SUCCESS,
        }
    }

    /// Watches all jobs, until the user interrupts it.
    async fn all(mut self) -> Result<ExitStatus> {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    self.begin_new().await?;
                    self.show()?;
                }
                Some(observed) = self.receiver.recv() => self.take(observed)?,
                Some(Ok((name, parting))) = self.tasks.join_next() => match parting {
                    Parting::Ended => self.board.end(&name),
                    Parting::Failed(error) => {
                        let code = error.downcast_ref::<ClientError>().and_then(ClientError::code);
                        self.board.fail(&name, code != Some(Code::Unsupported));
                    }
                },
            }
        }
    }

    async fn begin_new(&mut self) -> Result<()> {
        let running = control::all().await.map_err(hints::control)?;
        let names: Vec<String> = running.iter().map(|running| running.name.clone()).collect();
        let new = self.board.list(&names);
        for running in running.into_iter().filter(|running| new.contains(&running.name)) {
            self.begin(running.name, Reached::here(running.client));
        }
        Ok(())
    }

    /// Watches these jobs, until they have ended.
    async fn these(mut self, names: Vec<String>, queue: &MaybeQueue) -> Result<ExitStatus> {
        let is_alone = names.len() == 1;
        self.board.list(&names);
        for name in names {
            match queue.reach(&name, self.printer).await {
                Ok(client) => self.begin(name, client),
                Err(error) if is_alone => return Err(error),
                Err(error) => self.fail(&name, &error),
            }
        }
        // The first observation needs this time. A job that cannot be observed shows no table.
        let mut ticks = tokio::time::interval_at(Instant::now() + self.interval, self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.board.is_empty() {
            tokio::select! {
                _ = ticks.tick() => self.show()?,
                Some(observed) = self.receiver.recv() => self.take(observed)?,
                Some(Ok((name, parting))) = self.tasks.join_next() => match parting {
                    Parting::Ended => self.board.end(&name),
                    Parting::Failed(error) => {
                        let error = error.context(format!("cannot watch {name}"));
                        if is_alone {
                            return Err(error);
                        }
                        self.fail(&name, &error);
                    }
                },
            }
        }
        Ok(self.status)
    }

    fn begin(&mut self, name: String, client: Reached) {
        let (interval, sender) = (self.interval, self.sender.clone());
        self.tasks.spawn(async move {
            let parting = match observe(&name, &client, interval, &sender).await {
                // The machine ends with the job, which cuts off the reply.
                Err(error) if !has_ended(&client).await => Parting::Failed(error),
                _ => Parting::Ended,
            };
            (name, parting)
        });
    }

    fn fail(&mut self, name: &str, error: &Error) {
        self.printer.error(error);
        self.status = ExitStatus::FAILED;
        self.board.end(name);
    }

    fn take(&mut self, observed: Observed) -> Result<()> {
        if self.printer.is_json() {
            let mut stdout = Output::lock();
            writeln!(stdout, "{}", observed.json()?)?;
            stdout.flush()?;
        }
        self.board.observe(&observed.name, observed.gauges);
        Ok(())
    }

    fn show(&mut self) -> Result<()> {
        if !self.printer.is_json() {
            self.screen.show(&self.board.lines(), &mut Output::lock())?;
        }
        Ok(())
    }
}
