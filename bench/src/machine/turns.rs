//! Measures latency: the listing of a directory, the end of a command.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use super::guest_agent::GuestAgent;
use super::lab::Lab;
use crate::measure::{Better, Goal, Measure, Role, Setting, Values};
use crate::statistics::percentile;

/// The listed directory.
const DIRECTORY: &str = "/run/one";

/// One measured call.
type Turn = Box<dyn FnMut(&Lab) -> anyhow::Result<()>>;

/// Measures `count` calls after one that does not count: their median and 99th percentile.
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

/// `true`, by `exec`.
fn run_true() -> Turn {
    Box::new(|lab| {
        lab.ask("true", async {
            let mut shell = lab.service.exec(["true"]).spawn().await?;
            shell.stdin = None;
            anyhow::ensure!(shell.wait().await?.success(), "true failed");
            Ok(())
        })
    })
}

/// A directory of one file.
pub(super) fn list(setting: &Setting) -> anyhow::Result<Measure> {
    let lab = Rc::new(RefCell::new(Lab::boot(setting)?));
    lab.borrow().exec(&["sh", "-c", &format!("mkdir {DIRECTORY} && touch {DIRECTORY}/file")])?;
    let (many, few) = (setting.pick(20, 100), setting.pick(3, 10));
    let ls = over_guest_agent("/usr/bin/ls", &[DIRECTORY]);
    let how = format!(
        "The listing of a directory with one file, {many} times in sequence (OpenSSH {few} times), \
         after one call that does not count: metaservice's `list-folder`, and `ls` by OpenSSH and \
         by QEMU's guest agent, which is polled for the end without a pause."
    );
    Ok(measure("The listing of a directory in a machine", how)
        .subject(
            "list-folder",
            Role::Metaservice,
            turns(
                &lab,
                many,
                Box::new(|lab| {
                    let files = lab.ask("list-folder", async {
                        Ok(lab.service.list(DIRECTORY).files().await?)
                    })?;
                    anyhow::ensure!(files.len() == 1, "not one file");
                    Ok(())
                }),
            ),
        )
        .subject("ssh, reused", Role::Peer, turns(&lab, few, over_ssh(&["ls", DIRECTORY], true)))
        .subject("qemu-ga", Role::Peer, turns(&lab, many, ls))
        .goal(Goal::ratio("list-folder", "p50", 0.5, "ssh, reused"))
        .goal(Goal::ratio("list-folder", "p50", 0.3, "qemu-ga")))
}

/// A command that does nothing.
pub(super) fn exec(setting: &Setting) -> anyhow::Result<Measure> {
    let lab = Rc::new(RefCell::new(Lab::boot(setting)?));
    let (many, few) = (setting.pick(10, 50), setting.pick(3, 10));
    let how = format!(
        "`true`, until its exit status arrives, {many} times in sequence (OpenSSH {few} times), \
         after one call that does not count. *ssh* opens a connection for each command; *ssh, \
         reused* uses the same one. QEMU's guest agent is polled for the end without a pause."
    );
    Ok(measure("A command in a machine", how)
        .subject("exec", Role::Metaservice, turns(&lab, many, run_true()))
        .subject("ssh, reused", Role::Peer, turns(&lab, few, over_ssh(&["true"], true)))
        .subject("ssh", Role::Peer, turns(&lab, few, over_ssh(&["true"], false)))
        .subject("qemu-ga", Role::Peer, turns(&lab, many, over_guest_agent("/usr/bin/true", &[])))
        .goal(Goal::ratio("exec", "p50", 0.5, "ssh, reused"))
        .goal(Goal::ratio("exec", "p50", 0.3, "qemu-ga")))
}
