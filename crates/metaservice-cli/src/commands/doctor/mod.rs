//! `metaservice doctor`: checks dependencies, suggests fixes, and installs what is missing.

mod cloud;
mod nats;

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use clap::Args;
use metaservice_qemu::{Accelerator, Arch, Boundary, Finding, Report};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use self::cloud::Cloud;
use self::nats::NatsServer;
use crate::config::Config;
use crate::output;
use crate::output::printer::{Printer, printable};
use crate::status::ExitStatus;

/// Check dependencies and suggest fixes.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Install what is missing (Debian and Ubuntu).
    #[arg(long)]
    pub(crate) install: bool,
}

/// The script of `--install`. `make setup` runs it too.
const SETUP: &str = include_str!("../../../setup.sh");

pub(crate) async fn doctor(
    args: &Doctor,
    cli: &clap::Command,
    printer: Printer,
) -> Result<ExitStatus> {
    if args.install {
        install().await?;
    }
    let report = tokio::task::block_in_place(metaservice_qemu::check);
    let boundary = tokio::task::block_in_place(Boundary::of_host);
    let cloud = tokio::task::block_in_place(Cloud::of_host);
    let nats = tokio::task::block_in_place(NatsServer::of_host);
    let accelerator = Accelerator::Auto.choose(Arch::HOST)?;
    let missing = report.require().err();
    let config = Config::of_user().and_then(|config| match config {
        Some(config) => check_config(cli, &config).map(|()| Some(config)),
        None => Ok(None),
    });
    let shown = if printer.is_json() {
        let mut shown = as_json(&report, &accelerator.to_string(), boundary, &config, cloud);
        shown["nats-server"] = entry(&nats);
        output::line(shown)
    } else {
        let advice = missing.as_ref().map(|missing| format!("\n\nTo mend this: {}", missing.hint));
        let advice = advice.unwrap_or_default();
        let state = if boundary.is_complete() { "ok" } else { "weak" };
        let speed = format_args!("ok       {:<9} {accelerator}", "speed");
        let boundary = format_args!("{state:<8} {:<9} {boundary}", "boundary");
        let (config, cloud, nats) = (config_line(&config), cloud_line(cloud), nats_line(&nats));
        output::line(format_args!("{report}{nats}\n{speed}\n{boundary}\n{cloud}\n{config}{advice}"))
    };
    // If the reader has closed standard output, the exit status still has the result.
    if let Err(error) = shown.map_err(anyhow::Error::from)
        && !output::is_closed(&error)
    {
        return Err(error);
    }
    Ok(if missing.is_none() && config.is_ok() { ExitStatus::SUCCESS } else { ExitStatus::MISSING })
}

/// The configuration file, if there is one, or what is wrong with it.
type Configured = Result<Option<Config>>;

fn check_config(cli: &clap::Command, config: &Config) -> Result<()> {
    let mut cli = cli.clone();
    cli.build();
    let run = cli.find_subcommand("run").context("there is no verb run")?;
    config.check(run)
}

fn config_line(config: &Configured) -> String {
    let (state, text) = match config {
        Ok(None) => ("ok", "no configuration file".to_owned()),
        Ok(Some(config)) => {
            let names: Vec<_> = config.names().collect();
            let profiles = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            ("ok", format!("{}; profiles: {profiles}", config.path().display()))
        }
        Err(error) => ("wrong", format!("{error:#}")),
    };
    format!("{state:<8} {:<9} {}", "config", printable(&text))
}

/// The metadata service of a cloud can give out credentials of the host.
fn cloud_line(cloud: Option<Cloud>) -> String {
    let (state, text) = match cloud {
        None => ("ok", "this host does not look like an instance in a cloud".to_owned()),
        Some(cloud) => {
            let text = "a guest must not reach its metadata service: write no CIDR rule for it";
            ("warn", format!("{cloud}; {text}"))
        }
    };
    format!("{state:<8} {:<9} {text}", "cloud")
}

/// A host without it runs machines, and jobs of a queue on other hosts.
fn nats_line(nats: &Finding<NatsServer>) -> String {
    let (state, text) = match nats {
        Finding::Found(server) => ("ok", server.to_string()),
        Finding::Missing { problem, hint } => ("optional", format!("{problem}: {hint}")),
    };
    format!("{state:<8} {:<9} {}", "nats", printable(&text))
}

async fn install() -> Result<()> {
    let mut shell = Command::new("sh");
    shell.args(["-s"]).stdin(Stdio::piped()).kill_on_drop(true);
    // Some installers examine each possible descriptor, which is slow with a high limit.
    metaservice_qemu::without_descriptors(shell.as_std_mut());
    let mut shell = shell.spawn().context("cannot run sh")?;
    let mut stdin = shell.stdin.take().context("sh has no stdin")?;
    stdin.write_all(SETUP.as_bytes()).await.context("cannot hand the script to sh")?;
    drop(stdin);
    let status = shell.wait().await?;
    if !status.success() {
        bail!("the installation failed, see above");
    }
    Ok(())
}

fn entry<T: std::fmt::Display>(finding: &Finding<T>) -> Value {
    match finding {
        Finding::Found(thing) => json!({ "found": thing.to_string() }),
        Finding::Missing { problem, hint } => json!({ "missing": problem, "hint": hint }),
    }
}

fn as_json(
    report: &Report,
    accelerator: &str,
    boundary: Boundary,
    config: &Configured,
    cloud: Option<Cloud>,
) -> Value {
    fn path(finding: &Finding<std::path::PathBuf>) -> Value {
        match finding {
            Finding::Found(path) => json!({ "found": path }),
            Finding::Missing { problem, hint } => json!({ "missing": problem, "hint": hint }),
        }
    }
    json!({
        "qemu": entry(&report.qemu),
        "kernel": entry(&report.kernel),
        "busybox": path(&report.busybox),
        "qemu-img": path(&report.qemu_img),
        "accelerator": accelerator,
        "config": match config {
            Ok(config) => json!({ "found": config.as_ref().map(Config::path) }),
            Err(error) => json!({ "wrong": format!("{error:#}") }),
        },
        "cloud": cloud.map(|cloud| cloud.to_string()),
        "boundary": { "complete": boundary.is_complete(), "text": boundary.to_string() },
    })
}
