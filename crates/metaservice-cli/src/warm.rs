//! Machines that were saved before they had a job.
//!
//! Owns what is kept beside one, and how one is made. A guest that goes on
//! has connections with a card that is no more: they are kept as numbers, and reset by the new
//! card first of all, by which the agent learns that it is another machine's now.

use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Error, Result};
use clap::ValueEnum;
use metaservice::{Cloud, Preparation};
use metaservice_nic::{Limits, Observer, StaleConnection};
use metaservice_qemu::{
    Machine, MachineSpec, Snapshot, SnapshotError, SnapshotKey, SnapshotStore, SystemUuid,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::agent::{AGENT, PLATFORM};
use crate::args::HardwareArgs;
use crate::listeners::Card;
use crate::machine::{self, Identity, Plan};

/// How long a machine that is to be saved may take to boot.
const BOOT_PATIENCE: Duration = Duration::from_secs(300);

/// What a machine without a job is called.
const NOBODY: &str = "metaservice";

/// A saved machine, and where it is.
pub(crate) struct Warm {
    pub(crate) saved: Snapshot,
    key: SnapshotKey,
    machines: SnapshotStore,
}

impl Warm {
    /// The guest's connections at the time.
    pub(crate) fn stale_connections(&self) -> Vec<StaleConnection> {
        self.saved.notes().as_array().into_iter().flatten().filter_map(read).collect()
    }

    /// It is of no use.
    pub(crate) fn remove(&self) {
        self.machines.remove(&self.key);
    }
}

/// The saved machine that is as asked for. Blocks.
pub(crate) fn find(plan: &Plan) -> Result<Option<Warm>> {
    let key = key(plan)?;
    let machines = SnapshotStore::of_user()?;
    Ok(machines.find(&key)?.map(|saved| Warm { saved, key, machines }))
}

fn unconnected(plan: &Plan) -> Result<MachineSpec> {
    let (_, card) = UnixStream::pair().context("cannot make the network card's socket")?;
    machine::describe(plan, None, card)
}

fn key(plan: &Plan) -> Result<SnapshotKey> {
    let key = SnapshotKey::of(&unconnected(plan)?)?;
    // A stock image takes the agent in while it boots.
    let brought =
        plan.boots_itself() && plan.image.as_ref().is_some_and(|image| image.prepared().is_none());
    Ok(if brought { key.depending_on(AGENT) } else { key })
}

/// What came of the wish for a saved machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Made {
    /// It is made.
    Now,
    /// It was there already.
    Before,
    /// Somebody else makes one now, and nobody wanted to wait.
    Busy,
}

/// Boots such a machine and saves it when its agent waits for a job. Dropped, it leaves nothing.
pub(crate) async fn make(plan: &Plan, wait: bool) -> Result<Made> {
    let key = tokio::task::block_in_place(|| key(plan))?;
    let machines = SnapshotStore::of_user()?;
    let waiting = machines.clone();
    let lock = tokio::task::spawn_blocking(move || waiting.lock(wait)).await??;
    let Some(lock) = lock else { return Ok(Made::Busy) };
    // Not on another thread: what is begun there would outlive this future, and be left when the
    // process ends.
    let making = tokio::task::block_in_place(|| machines.draft(&key, lock))?;
    let Some(making) = making else { return Ok(Made::Before) };
    let saved = async {
        let idle = boot_idle(plan, |spec| spec.snapshot_to(making.files())).await?;
        let state = idle.machine.save_state().await.context("cannot save the machine")?;
        Ok((idle, state))
    };
    let (idle, state) = match saved.await {
        Ok(saved) => saved,
        // QEMU ends without a word when its memory finds no room.
        Err(error) => return Err(making.check_room().err().map_or(error, Error::from)),
    };
    let stale_connections: Value = idle.observer.connections().iter().map(write).collect();
    idle.machine.kill().await;
    let kept: Result<(), SnapshotError> =
        tokio::task::block_in_place(|| making.keep(&state, &stale_connections));
    kept?;
    Ok(Made::Now)
}

/// A machine whose agent waits for a job, and the tasks of its card.
pub(crate) struct Idle {
    pub(crate) machine: Machine,
    observer: Observer,
    _tasks: JoinSet<()>,
}

/// Boots a machine as far as that; `alter` has the last word about what it is made of.
pub(crate) async fn boot_idle(
    plan: &Plan,
    alter: impl FnOnce(MachineSpec) -> MachineSpec,
) -> Result<Idle> {
    let (ours, theirs) = UnixStream::pair().context("cannot make the network card's socket")?;
    let (nic, driver) = machine::attach(None, Limits::default(), ours, Vec::new())?;
    let observer = nic.observer();
    let mut spec = tokio::task::block_in_place(|| machine::describe(plan, None, theirs))?;
    let mut preparation = Preparation::new();
    if plan.boots_itself() {
        // An instance that is no job's: it brings the agent in.
        let cloud = Identity::of(plan)?.tell(Cloud::new(NOBODY));
        spec = spec.uuid(SystemUuid::from(cloud.system_uuid()));
        preparation = Preparation::cloud(&cloud, PLATFORM, AGENT);
    }
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(driver.run().await) });
    let serving = preparation.clone().serve(Card(nic));
    tasks.spawn(async move { match serving.await {} });
    let machine = Machine::start(alter(spec)).await?;
    tokio::select! {
        waiting = tokio::time::timeout(BOOT_PATIENCE, preparation.waiting()) => {
            let what = "no agent has come to wait for a job";
            waiting.map_err(|_| machine::failure(what, &machine))?;
        }
        exit = machine.wait() => {
            let what = format!("the machine ended: {}", exit.cause);
            return Err(machine::failure(&what, &machine));
        }
    }
    Ok(Idle { machine, observer, _tasks: tasks })
}

/// Has such a machine made by a process of its own, which does not hold up anybody.
pub(crate) fn make_later(hardware: &HardwareArgs) -> std::io::Result<()> {
    let HardwareArgs { cpus, memory, accel } = hardware;
    let accel = accel.to_possible_value();
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["--quiet", "image", "snapshot", "builtin", "--background"])
        .args(["--cpus", &cpus.to_string(), "--memory", memory])
        .args(["--accel", accel.as_ref().map_or("auto", |accel| accel.get_name())])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Whoever waits for our folder, or presses Ctrl-C, does not mean it.
        .current_dir("/")
        .process_group(0);
    // A pipe of the caller's would not end before this process otherwise.
    metaservice_qemu::without_descriptors(&mut command);
    command.spawn().map(drop)
}

fn write(stale: &StaleConnection) -> Value {
    let StaleConnection { hardware, peer, peer_port, port, expected } = stale;
    json!({ "hardware": hardware, "peer": peer, "peerPort": peer_port, "port": port, "expected": expected })
}

fn read(value: &Value) -> Option<StaleConnection> {
    let number = |name: &str| value.get(name).and_then(Value::as_u64);
    Some(StaleConnection {
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
        let stale = StaleConnection {
            hardware: [2, 0, 0, 0, 0, 255],
            peer: [169, 254, 1, 2].into(),
            peer_port: 40000,
            port: 80,
            expected: u32::MAX,
        };
        assert_eq!(read(&write(&stale)), Some(stale));
        assert_eq!(read(&json!({ "peer": "a" })), None);
    }
}
