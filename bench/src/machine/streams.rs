//! How much goes through per second: the bare card, files out and in, the log.

use std::cell::RefCell;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::time::Instant;

use anyhow::ensure;
use metaservice::{Destination, Form};

use super::guest_agent::GuestAgent;
use super::lab::{Lab, Way, rate};
use super::scratch::Scratch;
use crate::measure::{Better, Goal, Measure, Role, Setting, Values};

const MIB: u64 = 1 << 20;

/// The pieces in which QEMU's guest agent is asked for a file; the best of them counts.
const GUEST_AGENT_PIECES: [u64; 4] = [MIB / 16, MIB / 4, MIB, 4 * MIB];

/// The file in the guest that is fetched, and the one that is brought.
const FETCHED: &str = "/tmp/fetched";
const BROUGHT: &str = "/tmp/brought";

fn speed(value: f64) -> anyhow::Result<Values> {
    Ok(vec![("rate", value)])
}

fn measure(title: &'static str, how: String) -> Measure {
    Measure::new(title, how).quantity("rate", "MB/s", Better::More)
}

/// The machine, shared by those who are asked in turn.
fn boot(setting: &Setting) -> anyhow::Result<Rc<RefCell<Lab>>> {
    Ok(Rc::new(RefCell::new(Lab::boot(setting)?)))
}

fn stream(
    lab: &Rc<RefCell<Lab>>,
    way: Way,
    bytes: u64,
) -> impl FnMut() -> anyhow::Result<Values> + use<> {
    let lab = Rc::clone(lab);
    move || speed(lab.borrow_mut().stream(way, bytes)?)
}

/// One TCP stream over the bare card.
pub(super) fn card(setting: &Setting) -> anyhow::Result<Measure> {
    let lab = boot(setting)?;
    let bytes = setting.pick(64, 256) * MIB;
    let how = format!(
        "One TCP stream of {} MiB between a program in the guest and one on the host, in pieces of 256 KiB that nobody looks at; \
         the time is the host's, from the first byte until the other end has read the last. `guestfwd` is QEMU's user network \
         with netcat for each connection, the usual way without root; it carries {} MiB.",
        bytes / MIB,
        bytes / 4 / MIB
    );
    Ok(measure("The network card alone", how)
        .subject("card, out", Role::Ours, stream(&lab, Way::Out, bytes))
        .subject("card, in", Role::Ours, stream(&lab, Way::In, bytes))
        .subject("guestfwd, out", Role::Peer, stream(&lab, Way::Forward, bytes / 4))
        .goal(Goal::ratio("card, out", "rate", 3.0, "guestfwd, out"))
        .goal(Goal::absolute("card, out", "rate", 200.0))
        .goal(Goal::ratio("card, in", "rate", 0.7, "card, out")))
}

/// Bytes that do not compress, the same on each call.
fn noise(bytes: u64) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = (0..bytes.div_ceil(8)).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.collect()
}

/// A file out of the machine.
pub(super) fn artifact(setting: &Setting) -> anyhow::Result<Measure> {
    let lab = boot(setting)?;
    let bytes = setting.pick(64, 512) * MIB;
    let content = Rc::new(noise(bytes));
    let place = Scratch::new()?;
    {
        let lab = lab.borrow();
        lab.ask("write", async {
            Ok(lab.service.write(Destination::file(FETCHED), &content[..]).await?)
        })?;
    }
    // Slow peers are asked for less, and rates are compared.
    let (over_ssh, by_agent) = (bytes / 16, bytes / 128);
    let head = format!("head -c {over_ssh} {FETCHED} >{FETCHED}.head");
    lab.borrow().exec(&["sh", "-c", &head])?;
    let expected = Rc::clone(&content);
    let (ours, read, scp, ga) =
        (Rc::clone(&lab), Rc::clone(&lab), Rc::clone(&lab), Rc::clone(&lab));
    let mut agent = None;
    let how = format!(
        "A file of {} MiB of noise in the guest's memory, until all of it has come and its digest is checked; it is compared with what \
         was put there as well (not in the time). scp copies {} MiB of it. QEMU's guest agent reads {} MiB in pieces of 64, 256, 1024 and \
         4096 KiB, and the best of these counts. Both are slow, and rates are compared.",
        bytes / MIB,
        over_ssh / MIB,
        by_agent / MIB,
    );
    Ok(measure("A file out of a machine", how)
        .subject("artifact", Role::Ours, move || {
            let lab = ours.borrow();
            let begun = Instant::now();
            let artifact =
                lab.ask("the artifact", async { Ok(lab.service.get_artifact(FETCHED).await?) })?;
            let came = rate(artifact.len(), begun);
            let file = lab.runtime.block_on(artifact.into_std());
            compare(&file, &expected)?;
            speed(came)
        })
        .subject("read", Role::Ours, move || {
            let lab = read.borrow();
            let begun = Instant::now();
            let came = lab.ask("the read", async {
                let mut reading = lab.service.read(FETCHED, Form::File).await?;
                let mut came = 0;
                while let Some(chunk) = reading.chunk().await? {
                    came += chunk.len() as u64;
                }
                Ok(came)
            })?;
            ensure!(came == bytes, "{came} of {bytes} bytes came");
            speed(rate(came, begun))
        })
        .subject("scp", Role::Peer, move || {
            let lab = scp.borrow();
            let shell = lab.secure_shell()?;
            let target = place.path().join("file");
            let begun = Instant::now();
            shell.fetch(&format!("{FETCHED}.head"), &target)?;
            let came = rate(over_ssh, begun);
            let size = std::fs::metadata(&target)?.len();
            ensure!(size == over_ssh, "{size} of {over_ssh} bytes came");
            speed(came)
        })
        .subject("qemu-ga", Role::Peer, move || {
            let agent = match &mut agent {
                Some(agent) => agent,
                None => agent.insert(GuestAgent::start(&ga.borrow())?),
            };
            let mut best = 0.0;
            for piece in GUEST_AGENT_PIECES {
                let begun = Instant::now();
                let came = agent.read(FETCHED, piece, by_agent)?;
                ensure!(came >= by_agent, "{came} of {by_agent} bytes came");
                best = rate(came, begun).max(best);
            }
            speed(best)
        })
        .subject("card, out", Role::Limit, stream(&lab, Way::Out, bytes / 2))
        .goal(Goal::ratio("artifact", "rate", 0.8, "card, out"))
        .goal(Goal::ratio("artifact", "rate", 10.0, "qemu-ga"))
        .goal(Goal::ratio("artifact", "rate", 3.0, "scp")))
}

fn compare(file: &std::fs::File, expected: &[u8]) -> anyhow::Result<()> {
    const PIECE: usize = 1 << 20;
    let mut piece = vec![0; PIECE];
    for (number, part) in expected.chunks(PIECE).enumerate() {
        file.read_exact_at(&mut piece[..part.len()], (number * PIECE) as u64)?;
        ensure!(&piece[..part.len()] == part, "the file came damaged");
    }
    Ok(())
}

/// A file into the machine.
pub(super) fn file(setting: &Setting) -> anyhow::Result<Measure> {
    let lab = boot(setting)?;
    let bytes = setting.pick(64, 512) * MIB;
    let over_ssh = bytes / 16;
    let place = Scratch::new()?;
    let (source, head) = (place.path().join("file"), place.path().join("head"));
    std::fs::write(&source, noise(bytes))?;
    std::fs::write(&head, noise(over_ssh))?;
    let (ours, scp, from) = (Rc::clone(&lab), Rc::clone(&lab), source.clone());
    let how = format!(
        "A file of {} MiB of noise into the guest's memory, until it is in its place under its name. scp copies {} MiB, as it is slow; \
         rates are compared.",
        bytes / MIB,
        over_ssh / MIB
    );
    Ok(measure("A file into a machine", how)
        .subject("write", Role::Ours, move || {
            let lab = ours.borrow();
            let begun = Instant::now();
            let came = lab.ask("the write", async {
                let file = tokio::fs::File::open(&from).await?;
                Ok(lab.service.write(Destination::file(BROUGHT), file).await?)
            })?;
            let came = rate(came, begun);
            clear(&lab, bytes)?;
            speed(came)
        })
        .subject("scp", Role::Peer, move || {
            let _keep = &place;
            let lab = scp.borrow();
            let shell = lab.secure_shell()?;
            let begun = Instant::now();
            shell.bring(&head, BROUGHT)?;
            let came = rate(over_ssh, begun);
            clear(&lab, over_ssh)?;
            speed(came)
        })
        .subject("card, in", Role::Limit, stream(&lab, Way::In, bytes))
        .goal(Goal::ratio("write", "rate", 0.7, "card, in"))
        .goal(Goal::ratio("write", "rate", 3.0, "scp")))
}

/// Sees that all of the file has come, and takes it away.
fn clear(lab: &Lab, bytes: u64) -> anyhow::Result<()> {
    let size = lab.exec(&["stat", "-c", "%s", BROUGHT])?;
    ensure!(size.trim() == bytes.to_string(), "{} of {bytes} bytes are there", size.trim());
    lab.exec(&["rm", BROUGHT]).map(drop)
}

/// The job's log.
pub(super) fn log(setting: &Setting) -> anyhow::Result<Measure> {
    let lab = boot(setting)?;
    let bytes = setting.pick(64, 512) * MIB;
    let ours = Rc::clone(&lab);
    let how = format!(
        "`head -c {bytes} /dev/zero` as the job, its log to a drain that counts: from the first byte to the last. *Pipe and card* is the \
         same command writing into a pipe that a program reads and writes to a TCP connection over the bare card: the least that a \
         command's output can cost there. The limits carry a quarter of the bytes."
    );
    Ok(measure("The log of a machine", how)
        .subject("log", Role::Ours, move || {
            let lab = ours.borrow();
            let before = lab.log.bytes();
            lab.exec(&["sh", "-c", &format!("echo {bytes} >/run/zeros")])?;
            let time = lab.ask("the log", async {
                let begun = lab.log.at_least(before + 1).await;
                Ok(lab.log.at_least(before + bytes).await - begun)
            })?;
            speed(bytes as f64 / time.as_secs_f64() / 1e6)
        })
        .subject("pipe and card, out", Role::Limit, stream(&lab, Way::Piped, bytes / 4))
        .subject("card, out", Role::Limit, stream(&lab, Way::Out, bytes / 4))
        .goal(Goal::ratio("log", "rate", 0.7, "card, out")))
}
