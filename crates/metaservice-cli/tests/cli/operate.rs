//! How a worker is operated: metrics, health, events for programs, systemd. With a real
//! `nats-server` and no machine.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use metaservice_fleet::metrics::Metrics;
use metaservice_testing::cli::{Cli, finish, wait_for, wait_for_line};
use metaservice_testing::wait;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::METASERVICE;

const UNIT: &str = include_str!("../../../../contrib/systemd/metaservice-worker.service");
const DASHBOARD: &str = include_str!("../../../../contrib/grafana/metaservice-queue.json");

/// How long the worker may take for an answer.
const ANSWER: Duration = Duration::from_secs(60);

/// A worker that takes no job of these tests, and the address of its metrics.
struct Worker {
    child: Child,
    address: String,
    messages: Receiver<String>,
}

impl Worker {
    fn start(cli: &Cli) -> Self {
        let args = ["worker", "--name", "w", "--metrics", "127.0.0.1:0"];
        let mut child = cli.command(args).spawn().unwrap();
        let (line, messages) = wait_for_line(&mut child, "metrics at http://");
        let address = line.trim().strip_prefix("metaservice: metrics at http://").unwrap();
        let address = address.strip_suffix("/metrics").unwrap().to_owned();
        let mut worker = Self { child, address, messages };
        worker.wait_for("metaservice: ready");
        worker
    }

    fn wait_for(&mut self, text: &str) {
        while !self.messages.recv_timeout(ANSWER).unwrap().contains(text) {}
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The status and the body of an answer.
    fn ask(&self, method: &str, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(ANSWER)).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: worker\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn has(&self, series: &str) -> bool {
        let (status, text) = self.ask("GET", "/metrics");
        assert_eq!(status, 200);
        text.lines().any(|line| line == series)
    }
}

/// The server that a worker started.
fn server_of(worker: Pid) -> Pid {
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let mut servers = pids.filter(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after = stat.split_once("(nats-server) ").map_or("", |(_, after)| after);
        after.split(' ').nth(1) == Some(&worker.as_raw_nonzero().to_string())
    });
    Pid::from_raw(servers.next().expect("the worker has a server")).unwrap()
}

#[test]
fn the_metrics_show_the_queue_and_the_end_point_whether_the_worker_takes_jobs() {
    let cli = Cli::new(METASERVICE);
    let mut worker = Worker::start(&cli);
    let high = r#"metaservice_queue_waiting_jobs{tenant="t",priority="high"}"#;
    assert!(!worker.has(&format!("{high} 1")));
    let waits = ["submit", "--require", "nothing", "--tenant", "t", "--priority", "high"];
    let id = cli.run(&[&waits[..], &["--", "true"]].concat()).text(0);
    wait::until("the job waits", || worker.has(&format!("{high} 1")));
    cli.run(&["cancel", id.trim()]).text(0);
    let cancelled = r#"metaservice_queue_results_total{result="cancelled",cause=""}"#;
    wait::until("the job is cancelled", || worker.has(&format!("{cancelled} 1")));
    assert!(worker.has(&format!("{high} 0")));
    assert!(worker.has("metaservice_worker_lease_confirmed 1"));

    assert_eq!(worker.ask("GET", "/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(worker.ask("GET", "/readyz"), (200, "ready\n".to_owned()));
    assert_eq!(worker.ask("POST", "/metrics").0, 405);
    assert_eq!(worker.ask("GET", "/").0, 404);

    // A server that stands still confirms no last renewal, so the worker stays in its drain.
    let server = server_of(worker.pid());
    kill_process(server, Signal::STOP).unwrap();
    kill_process(worker.pid(), Signal::TERM).unwrap();
    worker.wait_for("taking no more jobs");
    let (status, reason) = worker.ask("GET", "/readyz");
    assert_eq!((status, reason.as_str()), (503, "draining: it takes no more jobs\n"));
    assert_eq!(worker.ask("GET", "/healthz").0, 200);
    assert!(worker.has("metaservice_worker_draining 1"));
    kill_process(server, Signal::CONT).unwrap();
    assert_eq!(finish_silent(worker.child), Some(0));
    assert!(TcpStream::connect(&worker.address).is_err(), "the end-point ends with the worker");
}

/// The status of a tool whose messages are read elsewhere.
fn finish_silent(mut child: Child) -> Option<i32> {
    child.wait().unwrap().code()
}

#[test]
fn a_slow_client_holds_its_own_connection_only() {
    let cli = Cli::new(METASERVICE);
    let worker = Worker::start(&cli);
    let mut slow: Vec<TcpStream> =
        (0..63).map(|_| TcpStream::connect(&worker.address).unwrap()).collect();
    slow[0].write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
    assert_eq!(worker.ask("GET", "/healthz").0, 200);
    slow[0].set_read_timeout(Some(ANSWER)).unwrap();
    // The worker ends it, and does not wait for the rest of the request.
    let is_cut = match slow[0].read(&mut [0]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    };
    assert!(is_cut, "the connection is still open");
    kill_process(worker.pid(), Signal::TERM).unwrap();
    assert_eq!(finish_silent(worker.child), Some(0));
}

#[test]
fn an_address_that_is_taken_is_an_error_before_the_queue_is_used() {
    let cli = Cli::new(METASERVICE);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    // No server is there: the address is the first error.
    let args = ["worker", "--queue", "nats://127.0.0.1:1", "--metrics", &address];
    let refused = cli.run(&args);
    assert_eq!(refused.status, Some(125));
    let expected = format!("in --metrics: cannot listen at {address}: Address already in use");
    assert!(refused.stderr.contains(&expected), "{refused:?}");
}

#[test]
fn events_for_programs_have_a_time_and_the_worker() {
    let cli = Cli::new(METASERVICE);
    let args = ["--json", "worker", "--name", "w", "--metrics", "127.0.0.1:0", "--once"];
    let finished = cli.run(&args);
    assert_eq!(finished.status, Some(0), "{finished:?}");
    let lines = finished.stderr.lines();
    let events: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["metrics", "ready", "draining"]);
    for event in &events {
        assert_eq!(event["worker"], "w");
        humantime::parse_rfc3339(event["time"].as_str().unwrap()).unwrap();
    }
}

#[test]
fn systemd_learns_when_the_worker_is_ready_and_when_it_stops() {
    let cli = Cli::new(METASERVICE);
    let path = cli.work().join("notify.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(ANSWER)).unwrap();
    let notified = || {
        let mut message = [0; 256];
        let length = socket.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    };
    let mut command = cli.command(["worker", "--name", "w"]);
    let mut child = command.env("NOTIFY_SOCKET", &path).spawn().unwrap();
    let messages = wait_for(&mut child, "metaservice: ready");
    assert_eq!(notified(), "READY=1\n");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(notified(), "STOPPING=1\n");
    finish(child).text(0);
    drop(messages);
}

#[test]
fn the_unit_is_valid_and_waits_longer_than_the_drain() {
    let seconds = |after: &str, unit: &str| -> u64 {
        let value = UNIT.split_once(after).unwrap().1.split_whitespace().next().unwrap();
        value.strip_suffix(unit).unwrap().parse().unwrap()
    };
    assert!(seconds("\nTimeoutStopSec=", "min") > seconds("--drain-timeout ", "m"));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("metaservice-worker.service");
    assert!(UNIT.contains("\nExecStart=/usr/local/bin/metaservice "));
    std::fs::write(&path, UNIT.replace("/usr/local/bin/metaservice", METASERVICE)).unwrap();
    let mut command = Command::new("systemd-analyze");
    // A host without systemd cannot check it.
    let Ok(output) = command.args(["verify", "--man=no"]).arg(&path).output() else { return };
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

/// The names of metrics in a text.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("metaservice_")).collect()
}

/// All strings of a JSON value at the key `key`.
fn strings<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| strings(item, key, found)),
        Value::Object(members) => members.iter().for_each(|(name, value)| match value {
            Value::String(text) if name == key => found.push(text),
            value => strings(value, key, found),
        }),
        _ => {}
    }
}

#[test]
fn the_dashboard_uses_metrics_that_a_worker_has() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut queries = Vec::new();
    strings(&dashboard, "expr", &mut queries);
    strings(&dashboard, "query", &mut queries);
    let used: BTreeSet<&str> = queries.iter().flat_map(|query| names(query)).collect();
    assert!(used.len() >= 15, "{used:?}");
    let text = Metrics::new(&"w".parse().unwrap(), 1).text();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let known: BTreeSet<&str> = lines.flat_map(names).collect();
    let unknown: Vec<_> = used.difference(&known).collect();
    assert!(unknown.is_empty(), "{unknown:?} are none of {known:?}");
}
