//! How long it takes until an answer is there: a folder's listing, a command's end.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use super::guest_agent::GuestAgent;
use super::lab::{Lab, command};
use crate::measure::{Better, Goal, Measure, Role, Setting, Values};
use crate::statistics::percentile;

/// The folder that is listed.
const FOLDER: &str = "/run/one";

type Turn = Box<dyn FnMut(&Lab) -> anyhow::Result<()>>;

/// Takes so many turns after one that does not count, and their median and 99th percentile.
fn turns(
    lab: &Rc<RefCell<Lab>>,
    count: usize,
    mut turn: Turn,
) -> impl FnMut() -> anyhow::Result<Values> + use<> {
    let lab = Rc::clone(lab);
    move || {
        let lab = lab.borrow();
        turn(&lab)?;
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let begun = Instant::now();
            turn(&lab)?;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        let mut of = |rank| percentile(&mut times, rank).unwrap_or(f64::NAN);
        Ok([("p50", 0.5), ("p99", 0.99)].map(|(name, rank)| (name, of(rank))).to_vec())
    }
}

fn measure(title: &'static str, how: String) -> Measure {
    Measure::new(title, how).quantity("p50", "ms", Better::Less).quantity("p99", "ms", Better::Less)
}

fn over_ssh(words: &'static [&'static str], reused: bool) -> Turn {
    Box::new(move |lab| lab.secure_shell()?.run(words, reused))
}

fn over_guest_agent(path: &'static str, words: &'static [&'static str]) -> Turn {
    let mut agent = None;
    Box::new(move |lab| {
        let agent = match &mut agent {
            Some(agent) => agent,
            None => agent.insert(GuestAgent::start(lab)?),
        };
        agent.exec(path, words)
    })
}

/// `true`, by our own means.
fn run_true() -> Turn {
    Box::new(|lab| {
        lab.ask("true", async {
            let mut shell = lab.service.exec(command(&["true"])).await?;
            shell.stdin = None;
            anyhow::ensure!(shell.wait().await?, "true has failed");
            Ok(())
        })
    })
}

/// A folder of one file.
pub(super) fn list(setting: &Setting) -> anyhow::Result<Measure> {
    let lab = Rc::new(RefCell::new(Lab::boot(setting)?));
    lab.borrow().exec(&["sh", "-c", &format!("mkdir {FOLDER} && touch {FOLDER}/file")])?;
    let (many, few) = (setting.pick(20, 100), setting.pick(3, 10));
    let ls = over_guest_agent("/usr/bin/ls", &[FOLDER]);
    let how = format!(
        "A list of a folder with one file in it, {many} times one after the other after one that does not count (OpenSSH {few} times): `list-folder` of ours, \
         `ls` by OpenSSH and by QEMU's guest agent, which is asked for the end without a pause."
    );
    Ok(measure("A folder's listing in a machine", how)
        .subject(
            "list-folder",
            Role::Ours,
            turns(
                &lab,
                many,
                Box::new(|lab| {
                    let files = lab
                        .ask("list-folder", async { Ok(lab.service.list_folder(FOLDER).await?) })?;
                    anyhow::ensure!(files.len() == 1, "not one file");
                    Ok(())
                }),
            ),
        )
        .subject("ssh, reused", Role::Peer, turns(&lab, few, over_ssh(&["ls", FOLDER], true)))
        .subject("qemu-ga", Role::Peer, turns(&lab, many, ls))
        .goal(Goal::ratio("list-folder", "p50", 0.5, "ssh, reused"))
        .goal(Goal::ratio("list-folder", "p50", 0.3, "qemu-ga")))
}

/// A command that does nothing.
pub(super) fn exec(setting: &Setting) -> anyhow::Result<Measure> {
    let lab = Rc::new(RefCell::new(Lab::boot(setting)?));
    let (many, few) = (setting.pick(10, 50), setting.pick(3, 10));
    let how = format!(
        "`true`, until its exit status is there, {many} times one after the other after one that does not count (OpenSSH {few} times). A connection of OpenSSH's is \
         made for each, or one is reused; QEMU's guest agent is asked for the end without a pause."
    );
    Ok(measure("A command in a machine", how)
        .subject("exec", Role::Ours, turns(&lab, many, run_true()))
        .subject("ssh, reused", Role::Peer, turns(&lab, few, over_ssh(&["true"], true)))
        .subject("ssh", Role::Peer, turns(&lab, few, over_ssh(&["true"], false)))
        .subject("qemu-ga", Role::Peer, turns(&lab, many, over_guest_agent("/usr/bin/true", &[])))
        .goal(Goal::ratio("exec", "p50", 0.5, "ssh, reused"))
        .goal(Goal::ratio("exec", "p50", 0.3, "qemu-ga")))
}
