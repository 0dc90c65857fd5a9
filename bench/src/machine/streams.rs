//! Measures throughput: the bare card, files out of the guest and into it, and the log.

use std::cell::RefCell;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::time::Instant;

use anyhow::ensure;
use futures_util::TryStreamExt;
use metaservice::Destination;

use super::guest_agent::GuestAgent;
use super::lab::{Lab, Way, rate};
use super::scratch::Scratch;
use crate::measure::{Better, Goal, Measure, Role, Setting, Values};

const MIB: u64 = 1 << 20;

/// The sizes of the pieces that are read from QEMU's guest agent. The best one counts.
const GUEST_AGENT_PIECES: [u64; 4] = [MIB / 16, MIB / 4, MIB, 4 * MIB];

/// The file in the guest that is read, and the one that is written.
const FETCHED: &str = "/tmp/fetched";
const SENT: &str = "/tmp/sent";

fn speed(value: f64) -> anyhow::Result<Values> {
    Ok(vec![("rate", value)])
}

fn measure(title: &'static str, how: String) -> Measure {
    Measure::new(title, how).quantity("rate", "MB/s", Better::More)
}

/// A machine, shared by the subjects.
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
        "One TCP stream of {} MiB between a program in the guest and one on the host, in pieces of \
         256 KiB that are not used. The host measures the time, from the first byte until the \
         other end has read the last. `guestfwd` is QEMU's user network with one netcat for each \
         connection, the usual way without root; it carries {} MiB.",
        bytes / MIB,
        bytes / 4 / MIB
    );
    Ok(measure("The network card alone", how)
        .subject("card, out", Role::Metaservice, stream(&lab, Way::Out, bytes))
        .subject("card, in", Role::Metaservice, stream(&lab, Way::In, bytes))
        .subject("guestfwd, out", Role::Peer, stream(&lab, Way::Forward, bytes / 4))
        .goal(Goal::ratio("card, out", "rate", 3.0, "guestfwd, out"))
        .goal(Goal::absolute("card, out", "rate", 200.0))
        .goal(Goal::ratio("card, in", "rate", 0.7, "card, out")))
}

/// Bytes that cannot be compressed, the same on each call.
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
    let scratch = Scratch::new()?;
    {
        let lab = lab.borrow();
        lab.ask("write", async {
            Ok(lab.service.write(Destination::file(FETCHED), &content[..]).await?)
        })?;
    }
    // Slow peers copy fewer bytes. Rates are compared.
    let (over_ssh, by_agent) = (bytes / 16, bytes / 128);
    let head = format!("head -c {over_ssh} {FETCHED} >{FETCHED}.head");
    lab.borrow().exec(&["sh", "-c", &head])?;
    let expected = Rc::clone(&content);
    let (artifact, read, scp, ga) =
        (Rc::clone(&lab), Rc::clone(&lab), Rc::clone(&lab), Rc::clone(&lab));
    let mut agent = None;
    let how = format!(
        "A file of {} MiB of random bytes in the guest's memory, until all bytes have come and the \
         digest is checked. Outside of the measured time, the bytes are also compared with the \
         original. scp copies {} MiB of the file. QEMU's guest agent reads {} MiB in pieces of 64, \
         256, 1024 and 4096 KiB, and the best of these counts. Both copy less because they are \
         slow; rates are compared.",
        bytes / MIB,
        over_ssh / MIB,
        by_agent / MIB,
    );
    Ok(measure("A file out of a machine", how)
        .subject("artifact", Role::Metaservice, move || {
            let lab = artifact.borrow();
            let begun = Instant::now();
            let artifact =
                lab.ask("the artifact", async { Ok(lab.service.read(FETCHED).spool().await?) })?;
            let received = rate(artifact.len(), begun);
            let file = lab.runtime.block_on(artifact.into_std());
            compare(&file, &expected)?;
            speed(received)
        })
        .subject("read", Role::Metaservice, move || {
            let lab = read.borrow();
            let begun = Instant::now();
            let received = lab.ask("the read", async {
                let mut reading = lab.service.read(FETCHED).open().await?;
                let mut received = 0;
                while let Some(chunk) = reading.try_next().await? {
                    received += chunk.len() as u64;
                }
                Ok(received)
            })?;
            ensure!(received == bytes, "{received} of {bytes} bytes came");
            speed(rate(received, begun))
        })
        .subject("scp", Role::Peer, move || {
            let lab = scp.borrow();
            let shell = lab.secure_shell()?;
            let target = scratch.path().join("file");
            let begun = Instant::now();
            shell.fetch(&format!("{FETCHED}.head"), &target)?;
            let received = rate(over_ssh, begun);
            let size = std::fs::metadata(&target)?.len();
            ensure!(size == over_ssh, "{size} of {over_ssh} bytes came");
            speed(received)
        })
        .subject("qemu-ga", Role::Peer, move || {
            let agent = match &mut agent {
                Some(agent) => agent,
                None => agent.insert(GuestAgent::start(&ga.borrow())?),
            };
            let mut best = 0.0;
            for piece in GUEST_AGENT_PIECES {
                let begun = Instant::now();
                let received = agent.read(FETCHED, piece, by_agent)?;
                ensure!(received >= by_agent, "{received} of {by_agent} bytes came");
                best = rate(received, begun).max(best);
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
        ensure!(&piece[..part.len()] == part, "the file is damaged");
    }
    Ok(())
}

/// A file into the machine.
pub(super) fn file(setting: &Setting) -> anyhow::Result<Measure> {
    let lab = boot(setting)?;
    let bytes = setting.pick(64, 512) * MIB;
    let over_ssh = bytes / 16;
    let scratch = Scratch::new()?;
    let (source, head) = (scratch.path().join("file"), scratch.path().join("head"));
    std::fs::write(&source, noise(bytes))?;
    std::fs::write(&head, noise(over_ssh))?;
    let (write, scp, from) = (Rc::clone(&lab), Rc::clone(&lab), source.clone());
    let how = format!(
        "A file of {} MiB of random bytes into the guest's memory, until it is complete under its \
         final name. scp copies {} MiB because it is slow; rates are compared.",
        bytes / MIB,
        over_ssh / MIB
    );
    Ok(measure("A file into a machine", how)
        .subject("write", Role::Metaservice, move || {
            let lab = write.borrow();
            let begun = Instant::now();
            let received = lab.ask("the write", async {
                let file = tokio::fs::File::open(&from).await?;
                Ok(lab.service.write(Destination::file(SENT), file).await?)
            })?;
            let received = rate(received, begun);
            clear(&lab, bytes)?;
            speed(received)
        })
        .subject("scp", Role::Peer, move || {
            let _keep = &scratch;
            let lab = scp.borrow();
            let shell = lab.secure_shell()?;
            let begun = Instant::now();
            shell.send(&head, SENT)?;
            let received = rate(over_ssh, begun);
            clear(&lab, over_ssh)?;
            speed(received)
        })
        .subject("card, in", Role::Limit, stream(&lab, Way::In, bytes))
        .goal(Goal::ratio("write", "rate", 0.7, "card, in"))
        .goal(Goal::ratio("write", "rate", 3.0, "scp")))
}

/// Checks the size of the file, and removes it.
fn clear(lab: &Lab, bytes: u64) -> anyhow::Result<()> {
    let size = lab.exec(&["stat", "-c", "%s", SENT])?;
    ensure!(size.trim() == bytes.to_string(), "{} of {bytes} bytes are there", size.trim());
    lab.exec(&["rm", SENT]).map(drop)
}

/// The log of the job.
pub(super) fn log(setting: &Setting) -> anyhow::Result<Measure> {
    let lab = boot(setting)?;
    let bytes = setting.pick(64, 512) * MIB;
    let log = Rc::clone(&lab);
    let how = format!(
        "The job runs `head -c {bytes} /dev/zero`, and its log goes to a log sink that counts. The \
         time is from the first byte to the last. *Pipe and card*: the same command writes into a \
         pipe, and a program copies the pipe to a TCP connection over the bare card. This is the \
         minimum cost of a command's output in this guest. The limits carry a quarter of the \
         bytes."
    );
    Ok(measure("The log of a machine", how)
        .subject("log", Role::Metaservice, move || {
            let lab = log.borrow();
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
