//! Measures the guest's way to servers of this host: through the gateway, through QEMU's user
//! network, and through passt.

use std::cell::RefCell;
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::guest;
use super::lab::{Lab, Way};
use super::routes::{NAME, Router};
use crate::loopback::process::{cpu_seconds, status};
use crate::measure::{Better, Comparison, Goal, Measure, Role, Setting, Values};

const MIB: u64 = 1 << 20;

/// The number of idle connections.
const IDLE: usize = 1000;

/// The number of questions for a name. Resolvers limit those of one client, and that of this host
/// gets those of three subjects in each round.
const QUESTIONS: usize = 15;

/// How long the processor time of idle connections is measured.
const REST: Duration = Duration::from_secs(5);

type Shared = Rc<RefCell<Lab>>;

fn stream(lab: &Shared, way: Way, bytes: u64) -> impl FnMut() -> anyhow::Result<Values> + use<> {
    let lab = Rc::clone(lab);
    move || Ok(vec![("rate", lab.borrow_mut().stream(way, bytes)?)])
}

/// Short connections to a server of this host.
fn connect(
    lab: &Shared,
    router: Router,
    count: usize,
) -> impl FnMut() -> anyhow::Result<Values> + use<> {
    let lab = Rc::clone(lab);
    move || {
        let lab = lab.borrow();
        let address = router.reach(&lab, lab.servers.answer)?;
        percentiles(&lab.play(&["connect", &address, &count.to_string()])?)
    }
}

/// Questions of the guest to its resolver.
fn ask(
    lab: &Shared,
    router: Router,
    count: usize,
) -> impl FnMut() -> anyhow::Result<Values> + use<> {
    let lab = Rc::clone(lab);
    move || {
        let lab = lab.borrow();
        let resolver = router.resolver(&lab)?;
        let answer = lab.play(&["ask", &resolver, NAME, &count.to_string()])?;
        // The first line is the address.
        percentiles(answer.split_once('\n').context("the guest prints one line")?.1)
    }
}

/// Questions of this host to its resolver, to which QEMU's user network and passt forward those of
/// the guest.
fn ask_here(count: usize) -> anyhow::Result<Values> {
    let file = std::fs::read_to_string("/etc/resolv.conf")?;
    let server = file.lines().find_map(|line| line.strip_prefix("nameserver "));
    let server = server.context("/etc/resolv.conf has no nameserver")?.trim();
    let socket = guest::resolver(&format!("{server}:53"))?;
    guest::times(count, || guest::ask(&socket, NAME).map(drop))
}

fn percentiles(lines: &str) -> anyhow::Result<Values> {
    let times: Result<Vec<f64>, _> = lines.lines().map(str::parse).collect();
    match times?[..] {
        [half, most] => Ok(vec![("p50", half), ("p99", most)]),
        _ => anyhow::bail!("the guest prints {lines:?}"),
    }
}

/// A process of this host that keeps connections. Dropping it closes them.
struct Keeper {
    _process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Keeper {
    fn start() -> anyhow::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["guest", "keep", &IDLE.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let lines = BufReader::new(process.stdout.take().context("it is piped")?).lines();
        Ok(Self { _process: process, lines })
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        self.lines.next_line().await?.context("the keeper of connections has ended")
    }
}

/// Idle connections through the gateway: what they use of this process.
fn idle(lab: &Shared) -> anyhow::Result<impl FnMut() -> anyhow::Result<Values> + use<>> {
    let lab = Rc::clone(lab);
    let own = std::process::id();
    let start = status(own, "VmRSS")?;
    let mut first = true;
    Ok(move || {
        let lab = lab.borrow();
        let before = status(own, "VmRSS")?;
        let mut keeper = lab.ask("keep", async { Keeper::start() })?;
        let port = lab.ask("keep", keeper.line())?.parse()?;
        let address = Router::Gateway.reach(&lab, port)?;
        lab.play_detached(&["hold", &address, &IDLE.to_string()])?;
        lab.ask("hold", keeper.line())?;
        let rest = || lab.runtime.block_on(async { tokio::time::sleep(REST).await });
        rest();
        let begun = cpu_seconds(own)?;
        rest();
        let processor = (cpu_seconds(own)? - begun) / REST.as_secs_f64() * 100.0;
        let memory = status(own, "VmRSS")?;
        let mut values = vec![("growth", (memory - start) / 1024.0), ("processor", processor)];
        // Those of later rounds use the same memory again.
        if std::mem::take(&mut first) {
            values.push(("memory", (memory - before) / IDLE as f64));
        }
        Ok(values)
    })
}

/// The method, for the page.
fn how(bytes: u64, count: usize) -> String {
    format!(
        "A program in the guest connects to servers on the loopback interface of this host: \
         through the gateway of metaservice, with a policy of two rules, and through QEMU's user \
         network (libslirp), without a program between. *passt* is a user network in its own \
         process, where its package is available, with the MTU that it announces: 65520 bytes, as \
         the card of metaservice. *Card* is the same stream between the \
         guest and the card itself: the limit of the gateway. A stream has {} MiB, with libslirp \
         {} MiB, in pieces of 256 KiB that are not used; the server measures the time. \
         *Connection*: connect, one byte in each direction, close, {count} times in sequence; the \
         guest measures the time. *Name*: a question for the address of {NAME} by UDP, {QUESTIONS} \
         times in sequence. The gateway answers it itself, because the name is resolved when the \
         guest connects. libslirp and passt forward it to the resolver of this host, which \
         *host* asks directly. *Idle*: {IDLE} connections through the gateway, whose servers are another \
         process. Memory is the growth of the host's process while those of the first round come; \
         later ones use the same memory again. Growth is that since before the first stream, with \
         what the allocator has kept of all buffers. The processor time of the process is measured \
         for {} s.",
        bytes / MIB,
        bytes / 4 / MIB,
        REST.as_secs(),
    )
}

/// The guest's way to servers of this host.
pub(super) fn prepare(setting: &Setting) -> anyhow::Result<Measure> {
    let lab = Rc::new(RefCell::new(Lab::boot(setting)?));
    let bytes = setting.pick(64, 256) * MIB;
    let count = setting.pick(50, 200);
    let (gateway, user, passt) = (Router::Gateway, Router::User, Router::Passt);
    Ok(Measure::new("The network of a guest", how(bytes, count))
        .quantity("rate", "MB/s", Better::More)
        .quantity("p50", "ms", Better::Less)
        .quantity("p99", "ms", Better::Less)
        .quantity("memory", "KiB/connection", Better::Less)
        .quantity("growth", "MiB", Better::Less)
        .quantity("processor", "%", Better::Less)
        .subject("gateway, out", Role::Metaservice, stream(&lab, Way::RoutedOut(gateway), bytes))
        .subject("card, out", Role::Limit, stream(&lab, Way::Out, bytes))
        .subject("libslirp, out", Role::Peer, stream(&lab, Way::RoutedOut(user), bytes / 4))
        .subject("passt, out", Role::Peer, stream(&lab, Way::RoutedOut(passt), bytes))
        .subject("gateway, in", Role::Metaservice, stream(&lab, Way::RoutedIn(gateway), bytes))
        .subject("card, in", Role::Limit, stream(&lab, Way::In, bytes))
        .subject("libslirp, in", Role::Peer, stream(&lab, Way::RoutedIn(user), bytes / 4))
        .subject("passt, in", Role::Peer, stream(&lab, Way::RoutedIn(passt), bytes))
        .subject("gateway, connection", Role::Metaservice, connect(&lab, gateway, count))
        .subject("libslirp, connection", Role::Peer, connect(&lab, user, count))
        .subject("passt, connection", Role::Peer, connect(&lab, passt, count))
        .subject("gateway, name", Role::Metaservice, ask(&lab, gateway, QUESTIONS))
        .subject("libslirp, name", Role::Peer, ask(&lab, user, QUESTIONS))
        .subject("passt, name", Role::Peer, ask(&lab, passt, QUESTIONS))
        .subject("host, name", Role::Limit, || ask_here(QUESTIONS))
        .subject("gateway, idle", Role::Metaservice, idle(&lab)?)
        .goal(Goal::ratio("gateway, out", "rate", 3.0, "libslirp, out"))
        .goal(Goal::ratio("gateway, in", "rate", 3.0, "libslirp, in"))
        .goal(Goal::ratio("gateway, out", "rate", 0.8, "card, out"))
        .goal(Goal::ratio("gateway, in", "rate", 0.8, "card, in"))
        .goal(Goal::ratio("gateway, connection", "p50", 1.0, "libslirp, connection"))
        .goal(Goal::ratio("gateway, name", "p50", 1.0, "libslirp, name"))
        .comparison(Comparison::new("gateway, out", "rate", "passt, out"))
        .comparison(Comparison::new("gateway, in", "rate", "passt, in"))
        .comparison(Comparison::new("gateway, connection", "p50", "passt, connection"))
        .comparison(Comparison::new("gateway, name", "p50", "passt, name")))
}
