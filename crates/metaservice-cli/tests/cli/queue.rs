//! The verbs of a queue, with a real `nats-server` and no machine.

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};

use metaservice_testing::cli::{Cli, finish, wait_for};
use rustix::process::{Pid, Signal, kill_process};

use crate::METASERVICE;

/// A worker that runs the queue of this host, and only jobs with a label that no test uses.
struct Worker {
    child: Option<Child>,
    _messages: Receiver<String>,
}

impl Worker {
    fn start(cli: &Cli, args: &[&str]) -> Self {
        let mut child = cli.command(["worker"].iter().chain(args)).spawn().unwrap();
        let messages = wait_for(&mut child, "metaservice: ready");
        Self { child: Some(child), _messages: messages }
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().unwrap().id();
        kill_process(Pid::from_raw(id.cast_signed()).unwrap(), signal).unwrap();
    }

    fn end(mut self, signal: Signal) -> Option<i32> {
        self.signal(signal);
        finish(self.child.take().unwrap()).status
    }
}

/// The label that the worker of these tests does not have: jobs with it wait.
const WAITS: [&str; 3] = ["submit", "--require", "another"];

fn submit(cli: &Cli, args: &[&str]) -> String {
    let args: Vec<&str> = WAITS.into_iter().chain(args.iter().copied()).collect();
    cli.run(&args).text(0).trim().to_owned()
}

#[test]
fn without_a_queue_the_error_says_what_to_do() {
    let cli = Cli::new(METASERVICE);
    for args in [&["submit", "--", "true"][..], &["jobs"], &["workers"], &["cancel", "a"]] {
        let finished = cli.run(args);
        assert_eq!(finished.status, Some(125));
        assert!(finished.stderr.contains("this host has no queue\nhint: start"), "{finished:?}");
    }
    let elsewhere = cli.run(&["jobs", "--queue", "nats://127.0.0.1:1"]);
    let refused = "in --queue: cannot connect to the queue at nats://127.0.0.1:1: ";
    assert!(elsewhere.stderr.contains(refused), "{elsewhere:?}");
    assert!(elsewhere.stderr.contains("hint: check the port (4222 is usual)"), "{elsewhere:?}");
}

#[test]
fn jobs_wait_in_the_queue_of_this_host_and_survive_its_worker() {
    let cli = Cli::new(METASERVICE);
    let worker = Worker::start(&cli, &["--name", "w"]);
    let id = submit(&cli, &["--tenant", "t", "--", "echo", "hello"]);
    assert_eq!(submit(&cli, &["--id", "mine", "--", "true"]), "mine");
    assert_eq!(submit(&cli, &["--id", "mine", "--", "true"]), "mine");
    let other = cli.run(&["submit", "--id", "mine", "--", "false"]);
    assert_eq!(other.status, Some(125));
    assert!(other.stderr.contains("another job has the id mine"), "{other:?}");
    let listed = cli.run(&["jobs", "--tenant", "t"]).text(0);
    assert!(listed.contains(&id) && listed.contains("waiting"), "{listed}");
    let second = cli.run(&["worker", "--name", "second", "--once"]);
    assert_eq!(second.status, Some(125));
    assert!(second.stderr.contains("another worker of this user runs the queue"), "{second:?}");
    cli.run(&["worker", "--queue", "local", "--name", "second", "--once"]).text(0);
    assert!(cli.run(&["workers"]).text(0).contains("w     ready"));
    // As if the host lost its power: the data are on its disk.
    assert_eq!(worker.end(Signal::KILL), None);
    cli.wait_for_exits();
    let worker = Worker::start(&cli, &["--name", "w"]);
    assert_eq!(cli.run(&["jobs", "-q"]).text(0).lines().count(), 2);
    cli.run(&["cancel", &id, "mine"]).text(0);
    let waited = cli.run(&["wait", "--queue", "local", &id]);
    assert_eq!(waited.status, Some(130));
    let again = cli.run(&["retry", &id]).text(0);
    assert_ne!(again.trim(), id);
    assert_eq!(cli.run(&["jobs", "-a", "-q"]).text(0).lines().count(), 3);
    cli.run(&["drain", "w"]).text(0);
    let drained = finish(worker.into_child());
    drained.text(0);
}

impl Worker {
    fn into_child(mut self) -> Child {
        self.child.take().unwrap()
    }
}

#[test]
fn each_change_of_a_job_is_listed_until_ctrl_c() {
    let cli = Cli::new(METASERVICE);
    let worker = Worker::start(&cli, &["--name", "w"]);
    let first = submit(&cli, &["--tenant", "t", "--", "echo", "hello"]);
    let mut table = cli.command(["jobs", "-f"]).spawn().unwrap();
    let mut json = cli.command(["jobs", "-f", "--json", "--tenant", "t"]).spawn().unwrap();
    let [rows, objects] = [&mut table, &mut json].map(lines);
    assert!(rows.recv().unwrap().starts_with("ID "));
    assert!(rows.recv().unwrap().contains(&first));
    assert!(objects.recv().unwrap().contains(&first));
    let other = submit(&cli, &["--", "true"]);
    let row = rows.recv().unwrap();
    assert!(row.contains(&other) && row.contains("waiting"), "{row}");
    cli.run(&["cancel", &first]).text(0);
    let row = rows.recv().unwrap();
    assert!(row.contains(&first) && row.contains("cancelled"), "{row}");
    let object = objects.recv().unwrap();
    assert!(object.contains(&first) && object.contains(r#""state":"cancelled""#), "{object}");
    for child in [table, json] {
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        assert_eq!(finish(child).status, Some(130));
    }
    assert_eq!(worker.end(Signal::TERM), Some(0));
}

/// The lines of a process, as they come.
fn lines(child: &mut Child) -> Receiver<String> {
    let (sender, lines) = channel();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    std::thread::spawn(move || {
        stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    lines
}

#[test]
fn a_file_of_jobs_is_submitted_whole_or_not_at_all() {
    let cli = Cli::new(METASERVICE);
    let worker = Worker::start(&cli, &[]);
    let file = cli.work().join("jobs.jsonl");
    let good = r#"{"version": 1, "command": ["true"]}"#;
    let named = format!(r#"{{"id": "b", "spec": {good}}}"#);
    let path = r#"{"version": 1, "command": ["true"], "copyIn": [{"from": "/etc/shadow"}]}"#;
    for wrong in ["{", path, r#"{"version": 1}"#] {
        std::fs::write(&file, format!("{good}\n\n{wrong}\n")).unwrap();
        let refused = cli.run(&["submit", "--file", "jobs.jsonl"]);
        assert_eq!(refused.status, Some(125));
        assert!(refused.stderr.contains("in line 3 of --file"), "{refused:?}");
    }
    assert_eq!(cli.run(&["jobs", "-a", "-q"]).text(0), "");
    std::fs::write(&file, format!("{good}\n{named}\n")).unwrap();
    let submitted = cli.run(&["submit", "--require", "another", "--file", "jobs.jsonl"]).text(0);
    assert_eq!(submitted.lines().count(), 2);
    assert_eq!(submitted.lines().last(), Some("b"));
    assert_eq!(worker.end(Signal::TERM), Some(0));
}

#[test]
fn what_only_this_host_has_is_refused() {
    let cli = Cli::new(METASERVICE);
    for args in [
        &["--copy-in", "a"][..],
        &["--rootfs", "/"],
        &["-v", "/:/mnt"],
        &["--log", "a"],
        &["--image", "./disk.img"],
        &["--kernel", "/vmlinuz", "--initrd", "/initrd"],
        &["--net-policy", "pip"],
    ] {
        let args: Vec<&str> = ["submit"].into_iter().chain(args.iter().copied()).collect();
        let args: Vec<&str> = args.into_iter().chain(["--", "true"]).collect();
        let refused = cli.run(&args);
        assert_eq!(refused.status, Some(125), "{args:?}");
        assert!(refused.stderr.contains("a worker uses no path of a host"), "{refused:?}");
    }
}

#[test]
fn jobs_of_a_queue_are_removed_by_their_age() {
    let cli = Cli::new(METASERVICE);
    let worker = Worker::start(&cli, &["--name", "w"]);
    let (ended, waits) = (submit(&cli, &["--", "true"]), submit(&cli, &["--", "true"]));
    cli.run(&["cancel", &ended]).text(0);
    let unlimited = cli.run(&["prune", "--queue", "local"]);
    assert!(unlimited.stderr.contains("--older-than 1s removes all"), "{unlimited:?}");
    assert_eq!(cli.run(&["prune", "--queue", "local", "--older-than", "1h"]).text(0), "");
    let mut unnamed = cli.command(["prune", "--stored-logs", "--older-than", "1ms"]);
    let unnamed = finish(unnamed.env("METASERVICE_QUEUE", "local").spawn().unwrap());
    assert_eq!(unnamed.status, Some(125));
    assert!(unnamed.stderr.contains("name the queue with --queue"), "{unnamed:?}");
    let removed = cli.run(&["prune", "--queue", "local", "--older-than", "1ms"]).text(0);
    assert_eq!(removed.trim(), ended);
    let left = cli.run(&["jobs", "--all"]).text(0);
    assert!(left.contains(&waits) && !left.contains(&ended), "{left}");
    assert_eq!(worker.end(Signal::TERM), Some(0));
}

#[test]
fn a_tenant_has_limits_and_the_one_of_waiting_jobs_refuses_more() {
    let cli = Cli::new(METASERVICE);
    let worker = Worker::start(&cli, &["--name", "w"]);
    let listed = cli.run(&["tenants", "t", "--running", "3", "--waiting", "2"]).text(0);
    let columns = |text: &str| {
        let row = text.lines().nth(1).unwrap_or_default().to_owned();
        row.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(columns(&listed), ["t", "0", "3", "0", "2"]);
    let tenant = ["--tenant", "t", "--id"];
    let with = |id: &'static str| [&tenant[..], &[id, "--", "true"]].concat();
    submit(&cli, &with("a"));
    submit(&cli, &with("b"));
    let args = [&WAITS[..], &with("c")].concat();
    let refused = cli.run(&args);
    assert_eq!(refused.status, Some(125));
    let error = "the tenant t may have 2 waiting jobs: 2 wait, and 1 are new\nhint: submit fewer";
    assert!(refused.stderr.contains(error), "{refused:?}");
    assert_eq!(submit(&cli, &with("b")), "b", "the queue knows it already");
    submit(&cli, &["--tenant", "other", "--", "true"]);
    let file = cli.work().join("jobs.jsonl");
    let spec = r#"{"version": 1, "command": ["true"]}"#;
    std::fs::write(&file, format!("{spec}\n{spec}\n")).unwrap();
    let whole = ["submit", "--require", "another", "--tenant", "t", "--file", "jobs.jsonl"];
    assert_eq!(cli.run(&whole).status, Some(125));
    cli.run(&["cancel", "a"]).text(0);
    assert_eq!(cli.run(&whole).status, Some(125), "there is room for one of two");
    cli.run(&["retry", "a"]).text(0);
    assert_eq!(cli.run(&["retry", "a"]).status, Some(125));
    let json: serde_json::Value =
        serde_json::from_str(&cli.run(&["tenants", "t", "--json"]).text(0)).unwrap();
    let limits = serde_json::json!({"running": 3, "waiting": 2});
    let expected = serde_json::json!([
        {"tenant": "t", "running": 0, "waiting": 2, "limits": limits},
    ]);
    assert_eq!(json, expected);
    let cleared = cli.run(&["tenants", "t", "--clear"]).text(0);
    assert_eq!(columns(&cleared), ["t", "0", "-", "2", "-"]);
    submit(&cli, &with("d"));
    assert_eq!(worker.end(Signal::TERM), Some(0));
}

#[test]
fn requirements_are_checked_before_a_job_is_submitted() {
    let cli = Cli::new(METASERVICE);
    let worker = Worker::start(&cli, &["--name", "w"]);
    for (wrong, error) in [
        ("mem=x", "mem= needs a size such as 8G, not \"x\""),
        ("kvm,cpus=0", "cpus= needs a number from 1, not \"0\""),
    ] {
        let refused = cli.run(&["submit", "--require", wrong, "--", "true"]);
        assert_eq!(refused.status, Some(125));
        assert!(refused.stderr.contains(error), "{refused:?}");
    }
    submit(&cli, &["--require", "mem=1000T,cpus=4", "--require", "arch=none", "--", "true"]);
    let listed = cli.run(&["workers"]).text(0);
    let arch = format!("arch={}", std::env::consts::ARCH);
    assert!(listed.contains(&arch) && listed.contains("os=linux"), "{listed}");
    let label = cli.run(&["worker", "--label", "mem=8G"]);
    assert!(label.stderr.contains("the worker measures memory"), "{label:?}");
    assert_eq!(worker.end(Signal::TERM), Some(0));
}

#[test]
fn a_worker_whose_disk_is_nearly_full_says_so() {
    let cli = Cli::new(METASERVICE);
    let worker = Worker::start(&cli, &["--name", "w", "--min-free-disk", "1000T"]);
    submit(&cli, &["--", "true"]);
    let list = || -> serde_json::Value {
        serde_json::from_str(&cli.run(&["workers", "--json"]).text(0)).unwrap()
    };
    // It says so in the renewal after its start, which may not be there yet.
    let says = (0..100).map(|_| list()).find(|workers| workers[0]["reason"] == "disk");
    assert!(says.is_some(), "{}", list());
    let listed = cli.run(&["workers"]).text(0);
    let row = listed.lines().nth(1).unwrap_or_default();
    assert!(row.split_whitespace().take(3).eq(["w", "ready", "disk"]), "{listed}");
    assert!(cli.run(&["jobs"]).text(0).contains("waiting"));
    assert_eq!(worker.end(Signal::TERM), Some(0));
}

#[test]
fn a_job_of_the_queue_is_inspected_and_hinted_at() {
    let cli = Cli::new(METASERVICE);
    let worker = Worker::start(&cli, &["--name", "w"]);
    let id = submit(&cli, &["--", "echo", "hello"]);
    let inspected = cli.run(&["inspect", "--queue", "local", &id]).text(0);
    let json: serde_json::Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!((&json["state"], &json["reason"]), (&"waiting".into(), &"needs".into()), "{json}");
    assert_eq!(json["request"]["spec"]["command"], serde_json::json!(["echo", "hello"]));
    assert_eq!(json["outcome"], serde_json::Value::Null);
    let missing = cli.run(&["inspect", "--queue", "local", "missing", &id]);
    assert_eq!(missing.status, Some(125));
    assert!(missing.stderr.contains("the queue has no job missing"), "{missing:?}");
    assert!(String::from_utf8_lossy(&missing.stdout).contains(&id), "{missing:?}");
    let hint = format!("hint: {id} may be the id of a job of the queue of this host: add --queue");
    for args in [&["wait", &id][..], &["logs", &id], &["exec", &id, "--", "ps"], &["inspect", &id]]
    {
        let refused = cli.run(args);
        assert_eq!(refused.status, Some(125));
        assert!(refused.stderr.contains(&hint), "{refused:?}");
        let other = cli.run(&[&[args[0], "build"], &args[2..]].concat());
        assert!(!other.stderr.contains("--queue"), "{other:?}");
    }
    let starts = ["wait", "--queue", "local", "--for", "running", &id];
    let mut waits = cli.command(starts).spawn().unwrap();
    let _why = wait_for(&mut waits, "waits: no worker has another");
    cli.run(&["cancel", &id]).text(0);
    let ended = finish(waits);
    assert_eq!(ended.status, Some(125));
    assert!(ended.stderr.contains("has ended") || ended.stderr.is_empty(), "{ended:?}");
    assert_eq!(worker.end(Signal::TERM), Some(0));
    assert!(!cli.run(&["logs", &id]).stderr.contains("--queue"), "there is no queue");
}

#[test]
fn a_line_of_a_file_that_is_wrong_is_named_with_its_column() {
    let cli = Cli::new(METASERVICE);
    let good = r#"{"version": 1, "command": ["true"]}"#;
    for (wrong, error) in [
        ("make test", "column 1: expected value"),
        (r#"{"version": 1"#, "column 13: EOF while parsing an object"),
        (r#"{"command": ["true"]}"#, "column 21: missing field `version`"),
        (r#"{"version": 1, "command": "true"}"#, "column 32: invalid type: string"),
        (r#"{"id": "a", "version": 1}"#, "column 21: unknown field `version`, expected `id` or"),
    ] {
        std::fs::write(cli.work().join("jobs"), format!("{good}\n\n{wrong}\n")).unwrap();
        let refused = cli.run(&["submit", "--queue", "nats://127.0.0.1:1", "--file", "jobs"]);
        assert_eq!(refused.status, Some(125));
        let text = format!("in line 3 of --file: {error}");
        assert!(refused.stderr.contains(&text), "{refused:?}");
        assert!(refused.stderr.contains("hint: a line is a job such as {"), "{refused:?}");
    }
}

#[test]
fn a_worker_takes_no_name_of_another_that_lives() {
    let cli = Cli::new(METASERVICE);
    let worker = Worker::start(&cli, &["--name", "w"]);
    let address = cli.jobs().with_file_name("fleet/server/address");
    let address = std::fs::read_to_string(address).unwrap();
    // A worker on another host has another directory.
    let other = Cli::new(METASERVICE);
    let join = |name| ["worker", "--queue", &address, "--once", "--name", name];
    let refused = other.run(&join("w"));
    assert_eq!(refused.status, Some(125));
    let words = "cannot work: another worker has the name w: it renewed its lease ";
    assert!(refused.stderr.contains(words), "{refused:?}");
    assert!(refused.stderr.contains("hint: give it a --name of its own"), "{refused:?}");
    other.run(&join("other")).text(0);
    // One that was killed on the same host is over, whatever its lease says.
    let mut second = cli.command(["worker", "--queue", "local", "--name", "second"]);
    let mut second = second.spawn().unwrap();
    let _messages = wait_for(&mut second, "metaservice: ready");
    second.kill().unwrap();
    second.wait().unwrap();
    assert_eq!(other.run(&join("second")).status, Some(125));
    cli.run(&["worker", "--queue", "local", "--once", "--name", "second"]).text(0);
    // It has said that it ends.
    other.run(&join("second")).text(0);
    assert_eq!(worker.end(Signal::TERM), Some(0));
}

#[test]
fn a_job_that_waits_says_why() {
    let cli = Cli::new(METASERVICE);
    let worker = Worker::start(&cli, &["--name", "w", "--memory", "1G"]);
    let mut waits = cli.command(["submit", "--wait", "--id", "a", "--require", "gpu,kvm=2"]);
    let mut waits = waits.args(["--", "true"]).spawn().unwrap();
    let _said = wait_for(&mut waits, "metaservice: a waits: no worker has gpu and kvm=2");
    let mut json = cli.command(["wait", "--json", "--queue", "local", "a"]).spawn().unwrap();
    let _event = wait_for(&mut json, r#""reason":"needs""#);
    cli.run(&["submit", "--id", "b", "--memory", "2G", "--", "true"]).text(0);
    cli.run(&["tenants", "t", "--running", "0"]).text(0);
    let mut limited = cli.command(["submit", "--wait", "--tenant", "t", "--id", "c", "--", "true"]);
    let mut limited = limited.spawn().unwrap();
    let _limit = wait_for(&mut limited, "c waits: the tenant t may have 0 running jobs");
    let listed = cli.run(&["jobs"]).text(0);
    let reasons = listed.lines().skip(1).map(|row| row.split_whitespace().nth(3).unwrap());
    assert_eq!(reasons.collect::<Vec<_>>(), ["needs", "too-large", "tenant"], "{listed}");
    let jobs: serde_json::Value =
        serde_json::from_str(&cli.run(&["jobs", "--json"]).text(0)).unwrap();
    assert_eq!((&jobs[0]["place"], &jobs[1]["place"]), (&1.into(), &2.into()), "{jobs}");
    let why = "its machine needs 2048 MiB, and no worker for it has more than 1024 MiB";
    assert_eq!(jobs[1]["why"], why);
    cli.run(&["cancel", "a", "c"]).text(0);
    for child in [waits, json, limited] {
        assert_eq!(finish(child).status, Some(130));
    }
    let late = ["submit", "--wait", "--require", "gpu", "--deadline", "1ms", "--", "true"];
    let late = cli.run(&late);
    assert_eq!(late.status, Some(125));
    assert!(
        late.stderr.contains("has no result: it did not start before its deadline"),
        "{late:?}"
    );
    assert_eq!(worker.end(Signal::TERM), Some(0));
}

#[test]
fn verbs_enter_only_a_job_that_runs() {
    let cli = Cli::new(METASERVICE);
    let worker = Worker::start(&cli, &[]);
    let id = submit(&cli, &["--", "true"]);
    let place = format!("{id}:/x");
    let waits = format!("the job {id} waits for a worker");
    for args in [
        &["exec", "--queue", "local", &id, "--", "true"][..],
        &["exec", "--queue", "local", "-d", &id, "--", "true"],
        &["ls", "--queue", "local", &id, "/"],
        &["cp", "--queue", "local", &place, "."],
        &["cp", "--queue", "local", "Cargo.toml", &place],
        &["stats", "--queue", "local", &id],
        &["stats", "--queue", "local", "--no-stream", &id],
        &["forward", "--queue", "local", &id, "0:80"],
        &["kill", "--queue", "local", &id],
        &["kill", "--queue", "local", "-s", "HUP", &id],
    ] {
        let refused = cli.run(args);
        assert_eq!(refused.status, Some(125), "{refused:?}");
        assert!(refused.stderr.contains(&waits), "{refused:?}");
    }
    let none = cli.run(&["ls", "--queue", "local", "missing", "/"]);
    assert!(none.stderr.contains("missing"), "{none:?}");
    let force = cli.run(&["kill", "--queue", "local", "--force", &id]);
    assert!(force.stderr.contains("--force is for jobs of this host"), "{force:?}");
    let all = cli.run(&["stats", "--queue", "local"]);
    assert!(all.stderr.contains("--queue needs the ids of jobs"), "{all:?}");
    cli.run(&["cancel", &id]).text(0);
    let ended = cli.run(&["exec", "--queue", "local", &id, "--", "true"]);
    let hint = format!("the job {id} has ended\nhint: `metaservice artifacts {id}` fetches");
    assert!(ended.stderr.contains(&hint), "{ended:?}");
    assert_eq!(worker.end(Signal::TERM), Some(0));
}

#[test]
fn the_page_of_a_queue_lists_submits_and_cancels() {
    let cli = Cli::new(METASERVICE);
    let worker = Worker::start(&cli, &["--name", "w"]);
    let id = submit(&cli, &["--tenant", "t", "-e", "TOKEN=secret", "--", "make", "test"]);
    let web = cli.web(&["--queue", "local"]);
    let session = web.get("api/session");
    assert_eq!((&session["source"], &session["can"]["remove"]), (&"queue".into(), &false.into()));
    let details = web.get(&format!("api/jobs/{id}"));
    assert_eq!((&details["job"]["state"], &details["ended"]), (&"waiting".into(), &false.into()));
    assert_eq!(details["why"], "no worker has another");
    assert_eq!(web.curl(&[], &format!("api/jobs/{id}/log")).0, 409, "it has no log yet");
    assert_eq!(web.curl(&[], "api/jobs/none").0, 404);
    assert_eq!(web.curl(&[], "api/jobs/..%2f*").0, 404);
    let started = details["job"]["startedMs"].as_u64().unwrap();
    let act = |what: &str, started: u64| {
        web.post(&format!("api/jobs/{id}/{what}"), &format!("{{\"startedMs\":{started}}}"))
    };
    assert_eq!(act("kill", started + 1).0, 410);
    assert_eq!(act("kill", started), (200, "{\"killed\":\"command\"}".to_owned()));
    let details = web.get(&format!("api/jobs/{id}"));
    assert_eq!((&details["end"], &details["ended"]), (&"cancelled".into(), &true.into()));
    assert!(!details.to_string().contains("secret"), "{details}");
    assert_eq!(act("remove", started).0, 409, "the queue is for all");
    let (status, retried) = act("retry", started);
    assert_eq!(status, 200, "{retried}");
    let spec = r#"{"spec":{"version":1,"command":["true"],"machine":{"rootfs":"/"}}}"#;
    let (status, refused) = web.post("api/jobs", spec);
    assert!(status == 409 && refused.contains("machine.rootfs"), "{refused}");
    web.end();
    assert_eq!(worker.end(Signal::TERM), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_a_queue_without_jobs_has_an_empty_list() {
    use futures_util::StreamExt;
    let cli = Cli::new(METASERVICE);
    let worker = Worker::start(&cli, &["--name", "w"]);
    let web = cli.web(&["--queue", "local"]);
    let mut lists = crate::web::open(&web, "api/jobs").await;
    let known = async {
        while let Some(Ok(message)) = lists.next().await {
            let text = message.into_text().unwrap_or_default();
            let list: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            if list["known"] == true {
                return list;
            }
        }
        panic!("the websocket has ended");
    };
    let list = tokio::time::timeout(std::time::Duration::from_secs(20), known).await.unwrap();
    assert_eq!(list["jobs"], serde_json::json!([]));
    drop(lists);
    web.end();
    assert_eq!(worker.end(Signal::TERM), Some(0));
}
