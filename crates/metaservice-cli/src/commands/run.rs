//! `metaservice run`: run a command in a virtual machine, and exit with its status.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use clap::ValueEnum;
use clap_complete::engine::ArgValueCompleter;
use metaservice_sandbox::Launcher;
use metaservice_sandbox::job::{Job, Network};
use metaservice_sandbox::machine::{Plan, snapshot};
use metaservice_sandbox::spec::{JobSpec, TerminalSpec};

use super::background;
use super::planned::{make_snapshot_later, plan};
use crate::config::{self, Applied};
use crate::description::{self, Description};
use crate::flags::{CloudArgs, JOB, JobArgs, VmArgs};
use crate::foreground;
use crate::hints;
use crate::interrupts::Interrupts;
use crate::output;
use crate::output::events::{self, JobFacts};
use crate::output::printer::{Printer, json_text, printable};
use crate::status::ExitStatus;
use crate::terminal::owner::OwnerInput;
use crate::terminal::stdin::UserInput;
use crate::terminal::{self, Escape};

const HELP: &str = "\
Examples:
  metaservice run -- uname -a
  metaservice run --rootfs / -v .:/src:overlay -w /src -- make test
  metaservice run --rootfs / -e N=3 -- python3 -c 'import os; print(os.environ[\"N\"])'
  metaservice run --copy-in . -w /src --artifact /src/report.xml -- sh check.sh
  metaservice run --artifact '/tmp/*.log:logs/' --artifacts-on failure -- sh -c 'date > /tmp/a.log'
  metaservice run --rootfs / -w /srv -u www-data -- make check
  metaservice run --rootfs / --artifact /tmp/report.xml -- sh -c \"cd $PWD && make test\"
  metaservice run -d --name db --image pg -- postgres
  metaservice run --image debian --cpus 2 --memory 2G --name build -- sleep 1h
  tar c . | metaservice run -i -- sh -c 'tar x && ./check'
  metaservice run -it --image debian -- bash

Exit status:
  that of the command; 124 after --timeout, 125 if metaservice failed, 126 if the
  command cannot be run, 127 if it is not found, 128+N after signal N.";

/// Run a command in a new virtual machine, and exit with its status.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
#[command(mut_arg("command", |arg| arg.required_unless_present_any(["spec", "entrypoint"])))]
pub(crate) struct Run {
    /// Pass standard input to the command. Without this option, it has /dev/null.
    #[arg(short, long, help_heading = JOB)]
    pub(crate) interactive: bool,
    /// Give the command a terminal. Its output is the log.
    ///
    /// The terminal has the size of yours. With -i, it is your terminal: each key goes to the
    /// command, except those of --detach-keys.
    #[arg(short, long, help_heading = JOB)]
    pub(crate) tty: bool,
    /// The keys that leave a job with -it, or "none". The job continues.
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", help_heading = JOB)]
    #[arg(conflicts_with = "spec")]
    pub(crate) detach_keys: String,
    /// Use the options of a profile of the configuration file, before those given here.
    ///
    /// Without this option, the profile "default" is used, if there is one. "metaservice help
    /// config" says how to write the file.
    #[arg(long, value_name = "NAME", help_heading = JOB, conflicts_with = "spec")]
    #[arg(add = ArgValueCompleter::new(config::complete))]
    pub(crate) profile: Option<String>,
    /// The profile, for errors.
    #[arg(skip)]
    pub(crate) applied: Option<Applied>,
    /// Run the job in the background, and print its name when its command has started.
    ///
    /// If it does not start, the errors and the exit status are those of a run in the foreground.
    /// "metaservice logs" shows the log. The messages are in the directory of the job.
    #[arg(short, long, help_heading = JOB)]
    pub(crate) detach: bool,
    /// Keep the machine when the command has failed, for "shell", "exec" and "cp" [default: 30m].
    ///
    /// Ctrl-C or "metaservice kill" ends it earlier. The exit status is that of the command. "wait"
    /// prints it when the machine is kept.
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "30m", help_heading = JOB)]
    pub(crate) keep_on_failure: Option<String>,
    /// Take the description of the job from a file, as --dry-run=json prints it. "-" is stdin.
    ///
    /// It is the whole description: no COMMAND and no other option goes with it, except
    /// --no-snapshot.
    #[arg(long, value_name = "FILE", help_heading = JOB)]
    pub(crate) spec: Option<PathBuf>,
    /// The text of that file, if it has been read. A pipe can be read once.
    #[arg(skip)]
    pub(crate) spec_text: Option<Vec<u8>>,
    /// Print what would be run, and start nothing: the machine in words, or the job as JSON.
    #[arg(long, value_name = "FORM", value_enum, num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "text", help_heading = JOB)]
    pub(crate) dry_run: Option<DryRun>,
    #[command(flatten)]
    pub(crate) job: JobArgs,
    #[command(flatten)]
    pub(crate) vm: VmArgs,
    #[command(flatten)]
    pub(crate) cloud: CloudArgs,
}

impl Run {
    /// Whether the command has the user's terminal, with keys that leave it.
    pub(crate) fn may_leave(&self) -> bool {
        let Self { interactive, tty, detach, dry_run, detach_keys, .. } = self;
        let has_terminal = *interactive && *tty && rustix::termios::isatty(std::io::stdin());
        has_terminal && detach_keys != "none" && !detach && dry_run.is_none()
    }
}

/// What a dry run prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DryRun {
    /// What the machine would be made of, in words.
    Text,
    /// The description of the job, for --spec.
    Json,
}

pub(crate) async fn run(mut args: Run, printer: Printer) -> Result<ExitStatus> {
    let profile = args.applied.take();
    start(args, printer).await.map_err(|error| match profile {
        Some(profile) => profile.explain(error),
        None => error,
    })
}

async fn start(args: Run, printer: Printer) -> Result<ExitStatus> {
    let (dry_run, keep, detach) = (args.dry_run, !args.job.rm, args.detach);
    let escape = Escape::parse(&args.detach_keys)?;
    let description = describe(args)?;
    if dry_run == Some(DryRun::Json) {
        return print_description(description);
    }
    if detach && dry_run.is_none() {
        return background::start(description, keep, printer).await;
    }
    let (job, plan) = plan(description)?;
    if dry_run.is_some() {
        return print_plan(&job, &plan);
    }
    let input = owner_input(&job, escape)?;
    let mut interrupts = Interrupts::listen()?;
    output::warn_of_closed(&job, printer);
    let facts = JobFacts::of(&job, Some(plan.boot_timeout()), None);
    let summary = plan.summary();
    let answers = job.stdin() && job.has_terminal();
    let launcher = output::log_of(Launcher::new(job), answers, printer);
    let launching = launcher.history(keep).launch(plan);
    // A FIFO that gets the log opens when its reader comes.
    let sandbox = tokio::select! {
        launched = launching => launched.map_err(hints::launch)?,
        interrupt = interrupts.next() => return Ok(ExitStatus::signal(interrupt.number)),
    };
    let report = events::follow(sandbox, &mut interrupts, &facts, input, printer).await;
    let wants_snapshot = report.wants_snapshot;
    let status = events::conclude(report, &facts, printer)?;
    if wants_snapshot {
        make_snapshot_later(&summary);
    }
    Ok(status)
}

/// What the command gets of standard input, and of the user's terminal.
fn owner_input(job: &Job, escape: Escape) -> Result<OwnerInput> {
    let (interactive, tty) = (job.stdin(), job.has_terminal());
    let escape = Some(escape).filter(|_| foreground::can_leave());
    let input = match interactive || tty {
        true => OwnerInput::feeding(UserInput::of_run(interactive, tty, escape)?),
        false => OwnerInput::default(),
    };
    Ok(if interactive { input } else { input.noticing() })
}

/// Refuses a duration in front of the command: in `--keep-on-failure 5m -- make`, it would be the
/// command.
fn refuse_period(command: &[String]) -> Result<()> {
    match command {
        [word, dashes, ..] if dashes == "--" && description::period(Some(word), "").is_ok() => {
            Err(hints::hinted(
                format!("write --keep-on-failure={word}"),
                format!(
                    "--keep-on-failure takes its duration after '=', and {word} is not a command"
                ),
            ))
        }
        _ => Ok(()),
    }
}

/// The description that the flags make, or that a file has.
fn describe(args: Run) -> Result<Description> {
    let Run { interactive, tty, keep_on_failure, spec: file, spec_text: text, .. } = args;
    let Run { job, vm, cloud, .. } = args;
    let mut description = Description::of_job(job)?.with_cloud(cloud);
    description.spec.stdin = interactive;
    let keep = description::period(keep_on_failure.as_deref(), "--keep-on-failure")?;
    if keep.is_some() {
        refuse_period(&description.spec.command)?;
    }
    description.spec.keep_on_failure = keep;
    if tty {
        let size = terminal::size().unwrap_or(terminal::USUAL_SIZE);
        let (columns, rows) = (size.columns, size.rows);
        description.spec.terminal = Some(TerminalSpec { columns, rows });
        terminal::tell_type(&mut description.spec.env);
    }
    description.spec.machine = description::machine(vm)?;
    let Some(file) = file else { return Ok(description) };
    // --no-snapshot has a variable, which is for each run. It also goes with a file.
    let snapshot = std::mem::replace(&mut description.spec.machine.snapshot, true);
    ensure!(
        description.spec == JobSpec::new(Vec::<String>::new()),
        "--spec {} is the whole description of the job: no other option or command goes with it",
        file.display()
    );
    let mut description = Description::of_file(&file, text, description.secrets)?;
    description.spec.machine.snapshot &= snapshot;
    Ok(description)
}

/// Prints the description of the job, as `--spec` takes it.
fn print_description(description: Description) -> Result<ExitStatus> {
    let json = serde_json::to_string_pretty(&description.spec)?;
    description.check()?;
    output::line(json_text(&json))?;
    Ok(ExitStatus::SUCCESS)
}

/// Prints what the machine would be made of.
fn print_plan(job: &Job, plan: &Plan) -> Result<ExitStatus> {
    let summary = plan.summary();
    let restores = tokio::task::block_in_place(|| snapshot::exists(plan));
    let restores = restores.map_err(hints::snapshot)?;
    let start = match (restores, summary.snapshot) {
        (true, _) => "restored from a snapshot",
        (false, true) => "booted: there is no snapshot yet",
        (false, false) => "booted: this machine has no snapshot",
    };
    let timeout = humantime::format_duration(plan.boot_timeout());
    let usual = if plan.boots_itself() { "of the image" } else { "builtin" };
    let kernel = summary.kernel.map_or(usual.to_owned(), |path| path.display().to_string());
    let rows = [
        ("job", job.name().to_owned()),
        ("command", job.command().join(" ")),
        ("image", summary.image),
        ("digest", summary.digest.unwrap_or_else(|| "-".to_owned())),
        ("kernel", kernel),
        ("processors", summary.cpus.to_string()),
        ("memory", format!("{} MiB", summary.memory >> 20)),
        ("accelerator", summary.accelerator.to_owned()),
    ];
    let rows = rows.into_iter().chain(network_rows(job.hardware().network(), summary.network));
    let rows = rows.chain([("start", start.to_owned()), ("boot timeout", timeout.to_string())]);
    for (name, value) in rows {
        output::line(format_args!("{name:<13} {}", printable(&value)))?;
    }
    Ok(ExitStatus::SUCCESS)
}

/// What the guest may connect to, where that is written, and the ports that lead into the guest.
fn network_rows(network: &Network, mode: &str) -> Vec<(&'static str, String)> {
    let mut rows = vec![("network", mode.to_owned())];
    if mode == "policy" {
        let policy = network.policy();
        rows.push(("allow rules", policy.allow().len().to_string()));
        rows.push(("deny rules", policy.deny().len().to_string()));
    }
    rows.extend(network.log().map(|log| ("network log", log.display().to_string())));
    rows.extend(network.published().iter().map(|publish| ("published", publish.to_string())));
    rows
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::planned::snapshot_arguments;
    use super::*;
    use crate::cli::Cli;
    use crate::commands::Command;

    fn description(words: &[&str]) -> Result<Description> {
        let words = ["metaservice", "run"].into_iter().chain(words.iter().copied());
        match Cli::try_parse_from(words)?.command {
            Command::Run(args) => describe(*args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_and_a_file_describe_the_same_job() {
        let flags = [
            "--name",
            "a",
            "-w",
            "/src",
            "-u",
            "1000:1000",
            "--hostname",
            "db.example",
            "--entrypoint",
            "env",
            "-e",
            "A=1",
            "--timeout",
            "5m",
            "--artifact",
            "/x:y",
            "--cpus",
            "2",
            "--memory",
            "512M",
            "--limit",
            "list=1M",
            "--allow-net",
            "a.example:443",
            "--deny-net",
            "10.0.0.0/8",
            "--net-policy",
            "pip",
            "--net-log",
            "net.jsonl",
            "--publish",
            "0:80",
            "--no-snapshot",
            "--",
            "make",
            "test",
        ];
        let by_flags = description(&flags).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("job.json");
        std::fs::write(&file, serde_json::to_vec(&by_flags.spec).unwrap()).unwrap();
        let by_file = description(&["--spec", file.to_str().unwrap()]).unwrap();
        assert_eq!(by_file.spec, by_flags.spec);
    }

    #[test]
    fn an_entry_point_is_one_word_or_none() {
        let entrypoint = |words: &[&str]| description(words).unwrap().spec.entrypoint;
        assert_eq!(entrypoint(&["--", "true"]), None);
        assert_eq!(entrypoint(&["--entrypoint", "", "--", "true"]), Some(Vec::new()));
        let own = Some(vec!["sh".to_owned()]);
        assert_eq!(entrypoint(&["--entrypoint", "sh"]), own);
        let without = description(&["--entrypoint", ""]).and_then(Description::check);
        assert!(format!("{:#}", without.unwrap_err()).contains("a job needs a command"));
    }

    #[test]
    fn a_file_is_the_whole_description_except_for_snapshots() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("job.json");
        std::fs::write(&file, r#"{"version":1,"command":["true"]}"#).unwrap();
        let file = file.to_str().unwrap();
        for more in [&["--", "true"][..], &["--cpus", "2"], &["--tty"]] {
            let words: Vec<&str> =
                ["--spec", file].into_iter().chain(more.iter().copied()).collect();
            let refused = description(&words).unwrap_err().to_string();
            assert!(refused.contains("is the whole description"), "{refused}");
        }
        assert!(description(&["--spec", "/no/such/file"]).is_err());
        let without = description(&["--spec", file, "--no-snapshot"]).unwrap();
        assert!(!without.spec.machine.snapshot);
    }

    #[test]
    fn a_wrong_file_is_refused_by_its_name_and_field() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("job.json");
        let words = ["--spec", file.to_str().unwrap()];
        for (text, says) in [
            ("{", "EOF while parsing"),
            (r#"{"version":2,"command":["true"]}"#, "version 2"),
            (r#"{"version":1,"command":[]}"#, "a job needs a command"),
            (r#"{"version":1,"command":["true"],"machine":{"cpus":0}}"#, "in machine.cpus: "),
            (r#"{"version":1,"command":["true"],"volume":1}"#, "unknown field `volume`"),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = description(&words).and_then(Description::check).unwrap_err();
            let error = format!("{error:#}");
            assert!(error.starts_with(&format!("in --spec {}: ", file.display())), "{error}");
            assert!(error.contains(says), "{error}");
        }
        let endless = description(&["--spec", "/dev/zero"]).unwrap_err();
        assert!(format!("{endless:#}").contains("larger than 8 MiB"), "{endless:#}");
    }

    #[test]
    fn the_snapshot_for_the_next_run_is_of_the_same_machine() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("job.json");
        let machine = r#"{"cpus":3,"memory":"1.5G","accel":"tcg"}"#;
        std::fs::write(&file, format!(r#"{{"version":1,"command":["true"],"machine":{machine}}}"#))
            .unwrap();
        let by_file = ["--spec", file.to_str().unwrap()];
        let by_flags = ["--cpus", "3", "--memory", "1.5G", "--accel", "tcg", "--", "true"];
        for words in [&by_file[..], &by_flags] {
            let job = description(words).unwrap().check().unwrap();
            let summary = Plan::resolve(&job).unwrap().summary();
            let arguments = snapshot_arguments(&summary).join(" ");
            assert!(arguments.ends_with("--cpus 3 --memory 1536M --accel tcg"), "{arguments}");
        }
    }

    #[test]
    fn a_wrong_value_is_refused_by_its_flag() {
        let refused = |words: &[&str]| {
            let words: Vec<&str> = words.iter().copied().chain(["--", "true"]).collect();
            let refused = description(&words).and_then(Description::check);
            format!("{:#}", refused.unwrap_err())
        };
        for (flag, value) in [
            ("--name", "a b"),
            ("--timeout", "soon"),
            ("--max-log", "x"),
            ("--memory", "1X"),
            ("--boot-timeout", "0"),
            ("--workdir", "src"),
            ("--user", "a:"),
            ("--hostname", "a_b"),
        ] {
            let error = refused(&[flag, value]);
            assert!(error.starts_with(&format!("in {flag}: ")), "{error}");
        }
        for (flag, value) in [
            ("--limit", "list=0"),
            ("--artifact", "/a["),
            ("--copy-in", "/no/such"),
            ("--volume", "src"),
            ("--volume", ".:src"),
            ("--volume", ".:/"),
            ("--volume", ".:/x:w"),
            ("--volume", "/no/such:/x"),
        ] {
            let error = refused(&[flag, value]);
            assert!(error.starts_with(&format!("in {flag} {value}: ")), "{error}");
        }
        for (flag, value) in [("--allow-net", "*"), ("--deny-net", "host")] {
            let error = refused(&[flag, value]);
            assert!(error.starts_with(&format!("in {flag} {value}: ")), "{error}");
        }
        assert!(refused(&["--publish", "1:"]).starts_with("in --publish: "));
        let policy = refused(&["--net-policy", "none"]);
        assert!(policy.starts_with("in --net-policy: there is no preset \"none\""), "{policy}");
        let none = refused(&["--net", "none", "--allow-net", "a.example"]);
        assert!(none.starts_with("--net none goes without --allow-net"), "{none}");
        let nothing = refused(&["--deny-net", "a.example"]);
        assert!(nothing.starts_with("--deny-net denies what is denied without it"), "{nothing}");
        let same = refused(&["--artifact", "/a/x", "--log", "x"]);
        assert!(same.starts_with("--artifact /a/x and --log would both write"), "{same}");
    }
}
