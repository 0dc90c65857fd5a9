//! Machines that were saved before they had a job.
//!
//! Owns which machines may be, what is kept beside one, and how one is made. A guest that goes on
//! has connections with a card that is no more: they are kept as numbers, and reset by the new
//! card first of all, by which the agent learns that it is another machine's now.

use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use metaservice::Preparation;
use metaservice_nic::Orphan;
use metaservice_vm::{Machine, MachineSpec, Saved, SavedError, SavedKey, SavedMachines};
use serde_json::{Value, json};

use crate::args::{Net, VmArgs};
use crate::listeners::Card;
use crate::machine;

/// How long a machine that is to be saved may take to boot.
const BOOT_PATIENCE: Duration = Duration::from_secs(300);

/// A saved machine, and where it is.
pub(crate) struct Warm {
    pub(crate) saved: Saved,
    key: SavedKey,
    machines: SavedMachines,
}

impl Warm {
    /// The guest's connections at the time.
    pub(crate) fn orphans(&self) -> Vec<Orphan> {
        self.saved.words().as_array().into_iter().flatten().filter_map(read).collect()
    }

    /// It is of no use.
    pub(crate) fn remove(&self) {
        self.machines.remove(&self.key);
    }
}

/// Whether a machine as asked for may go on from a saved one.
pub(crate) fn fits(args: &VmArgs) -> bool {
    let VmArgs { image, rootfs, kernel, initrd, console, .. } = args;
    let files = [image, rootfs, kernel, initrd, console];
    let plain = files.into_iter().all(Option::is_none) && args.net == Net::None;
    plain && !args.no_warm && cfg!(target_arch = "x86_64")
}

/// The saved machine that is as asked for. Blocks.
pub(crate) fn find(args: &VmArgs) -> Result<Option<Warm>> {
    let key = SavedKey::of(&unconnected(args)?)?;
    let machines = SavedMachines::of_user()?;
    Ok(machines.find(&key)?.map(|saved| Warm { saved, key, machines }))
}

fn unconnected(args: &VmArgs) -> Result<MachineSpec> {
    let (_, card) = UnixStream::pair().context("cannot make the network card's socket")?;
    machine::describe(args, None, card)
}

/// Boots such a machine and saves it when its agent waits for a job; `false` when there is one,
/// or when somebody else makes one now. Dropped, it leaves nothing.
pub(crate) async fn make(args: &VmArgs) -> Result<bool> {
    let begin = || {
        let key = SavedKey::of(&unconnected(args)?)?;
        anyhow::Ok(SavedMachines::of_user()?.make(&key)?)
    };
    let Some(making) = tokio::task::block_in_place(begin)? else { return Ok(false) };
    let (ours, theirs) = UnixStream::pair().context("cannot make the network card's socket")?;
    let (nic, driver) =
        machine::attach(args, metaservice_nic::Limits::default(), ours, Vec::new())?;
    let observer = nic.observer();
    let preparation = Preparation::new();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { drop(driver.run().await) });
    let serving = preparation.clone().serve(Card(nic));
    tasks.spawn(async move { match serving.await {} });
    let spec = tokio::task::block_in_place(|| machine::describe(args, None, theirs))?;
    let machine = Machine::start(spec.record_memory(making.memory())).await?;
    tokio::select! {
        waiting = tokio::time::timeout(BOOT_PATIENCE, preparation.waiting()) => {
            waiting.context("the guest never asked for a job")?;
        }
        exit = machine.wait() => anyhow::bail!("the machine ended: {}", exit.how),
    }
    let state = machine.save().await.context("cannot save the machine")?;
    let orphans: Value = observer.connections().iter().map(write).collect();
    machine.kill().await;
    let kept: Result<(), SavedError> =
        tokio::task::block_in_place(|| making.keep(&state, &orphans));
    kept?;
    Ok(true)
}

/// Has such a machine made by a process of its own, which does not hold up anybody.
pub(crate) fn make_later(args: &VmArgs) -> std::io::Result<()> {
    let accel = args.accel.to_possible_value();
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["--quiet", "image", "snapshot", "builtin", "--background"])
        .args(["--cpus", &args.cpus.to_string(), "--memory", &args.memory])
        .args(["--accel", accel.as_ref().map_or("auto", |accel| accel.get_name())])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Whoever waits for our folder, or presses Ctrl-C, does not mean it.
        .current_dir("/")
        .process_group(0);
    command.spawn().map(drop)
}

fn write(orphan: &Orphan) -> Value {
    let Orphan { hardware, peer, peer_port, port, expected } = orphan;
    json!({ "hardware": hardware, "peer": peer, "peerPort": peer_port, "port": port, "expected": expected })
}

fn read(value: &Value) -> Option<Orphan> {
    let number = |name: &str| value.get(name).and_then(Value::as_u64);
    Some(Orphan {
        hardware: serde_json::from_value(value.get("hardware")?.clone()).ok()?,
        peer: value.get("peer")?.as_str()?.parse().ok()?,
        peer_port: number("peerPort")?.try_into().ok()?,
        port: number("port")?.try_into().ok()?,
        expected: number("expected")?.try_into().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_read_as_it_was_written() {
        let orphan = Orphan {
            hardware: [2, 0, 0, 0, 0, 255],
            peer: [169, 254, 1, 2].into(),
            peer_port: 40000,
            port: 80,
            expected: u32::MAX,
        };
        assert_eq!(read(&write(&orphan)), Some(orphan));
        assert_eq!(read(&json!({ "peer": "a" })), None);
    }
}
