//! A queue, its worker and its clients, with real machines.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;

use metaservice_testing::cli::{Cli, finish, wait_for, wait_for_line};
use rustix::process::{Pid, Signal, kill_process};

use crate::METASERVICE;

/// A worker of the queue of this host.
struct Worker {
    child: Child,
    messages: Receiver<String>,
}

impl Worker {
    fn start(cli: &Cli, args: &[&str]) -> Self {
        let mut child = cli.command(["worker"].iter().chain(args)).spawn().unwrap();
        let messages = wait_for(&mut child, "metaservice: ready");
        Self { child, messages }
    }

    /// Waits for a message.
    fn says(&self, text: &str) {
        assert!(self.messages.iter().any(|line| line.contains(text)), "the worker has ended");
    }

    /// Ends it in order.
    fn end(self) {
        signal(&self.child, Signal::TERM);
        finish(self.child).text(0);
    }
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn a_job_of_a_queue_ends_as_a_run_does() {
    let cli = Cli::new(METASERVICE);
    let mut worker = Worker::start(&cli, &["--slots", "2"]);
    let script = "echo out; echo err >&2; echo kept > /file; exit 4";
    let args = ["submit", "--wait", "--artifact", "/file:results/", "--", "sh", "-c", script];
    let finished = cli.run(&args);
    assert_eq!(finished.text(4), "out\n");
    assert!(finished.stderr.contains("err\n"), "{finished:?}");
    let kept = std::fs::read_to_string(cli.work().join("results/file")).unwrap();
    assert_eq!(kept, "kept\n");

    // A directory, a pattern and a new name.
    let script = "mkdir -p /out/sub; echo a > /out/a.txt; echo b > /out/sub/b";
    let artifacts = ["/out", "/out:other", "/out/*.txt:texts", "/out/a.txt:one"];
    let artifacts = artifacts.iter().flat_map(|artifact| ["--artifact", artifact]);
    let args: Vec<&str> = artifacts.chain(["--", "sh", "-c", script]).collect();
    for verb in [&["run"][..], &["submit", "--wait"]] {
        cli.run(&[verb, &args].concat()).text(0);
        for file in ["out/a.txt", "out/sub/b", "other/sub/b", "texts/a.txt", "one"] {
            std::fs::remove_file(cli.work().join(file)).unwrap();
        }
        for directory in ["out", "other", "texts"] {
            std::fs::remove_dir_all(cli.work().join(directory)).unwrap();
        }
    }

    // The command's own status 124 is no timeout.
    let late = cli.run(&["submit", "--wait", "--timeout", "1s", "--", "sleep", "600"]);
    assert_eq!(late.status, Some(124));
    assert!(late.stderr.contains("was killed: --timeout of 1s has passed"), "{late:?}");
    let own = cli.run(&["submit", "--wait", "--timeout", "1h", "--", "sh", "-c", "exit 124"]);
    assert_eq!(own.status, Some(124));
    assert!(!own.stderr.contains("--timeout"), "{own:?}");

    // Ctrl-C cancels the job, and its machine ends.
    let mut waiting = cli
        .command(["submit", "--wait", "--", "sh", "-c", "echo up >&2; sleep 600"])
        .spawn()
        .unwrap();
    let running = wait_for(&mut waiting, "up");
    signal(&waiting, Signal::INT);
    assert_eq!(finish(waiting).status, Some(130));
    drop(running);

    // A killed worker leaves no machine and no server.
    let id = cli.run(&["submit", "--", "sleep", "600"]).text(0);
    worker.says(&format!("{}: attempt 1 begins", id.trim()));
    worker.child.kill().unwrap();
    worker.child.wait().unwrap();
    cli.wait_for_exits();

    // The next one gets the job once the lease of the first is over.
    let worker = Worker::start(&cli, &["--name", "second"]);
    worker.says("attempt 2 begins");
    cli.run(&["cancel", id.trim()]).text(0);
    let waited = cli.run(&["wait", "--queue", "local", id.trim()]);
    assert_eq!(waited.status, Some(130), "{waited:?}");
    worker.end();
    // What the killed worker left in the directory of jobs.
    cli.remove_sockets();
}

#[test]
fn verbs_enter_a_job_of_a_queue() {
    let cli = Cli::new(METASERVICE);
    let worker = Worker::start(&cli, &[]);
    let waiting = cli.run(&["submit", "--require", "another", "--", "true"]).text(0);
    let id = cli.run(&["submit", "--", "sleep", "600"]).text(0);
    let (waiting, id) = (waiting.trim(), id.trim());
    worker.says(&format!("{id}: attempt 1 begins"));
    let at = |verb: &str, args: &[&str]| {
        let mut all = vec![verb, "--queue", "local"];
        all.extend(args);
        cli.run(&all)
    };

    // The machine may still boot.
    let name = at("exec", &[id, "--", "cat", "/proc/sys/kernel/hostname"]);
    assert_eq!(name.text(0).trim(), id);
    let failed = at("exec", &[id, "--", "sh", "-c", "echo kept > /file; exit 3"]);
    assert_eq!(failed.status, Some(3), "{failed:?}");
    at("cp", &[&format!("{id}:/file"), "copy"]).text(0);
    assert_eq!(std::fs::read_to_string(cli.work().join("copy")).unwrap(), "kept\n");
    std::fs::write(cli.work().join("large"), vec![7; 3 << 20]).unwrap();
    at("cp", &["large", &format!("{id}:/large")]).text(0);
    assert!(at("ls", &["-l", id, "/"]).text(0).contains("3145728"));
    let archive = at("cp", &[&format!("{id}:/file"), "-"]);
    assert!(archive.text(0).contains("kept"));
    assert!(at("stats", &["--no-stream", id]).text(0).contains(id));
    // A queue in the environment is enough for a name that no job of this host has.
    let mut elsewhere = cli.command(["exec", id, "--", "true"]);
    elsewhere.env("METASERVICE_QUEUE", "local");
    finish(elsewhere.spawn().unwrap()).text(0);

    // A signal ends a verb in the middle, and its way to the job: `cli` finds what is left.
    for args in [
        &["ls", "--queue", "local", "-R", id, "/"][..],
        &["forward", "--queue", "local", id, "0:80"],
    ] {
        let mut child = cli.command(args).spawn().unwrap();
        // It has printed something, and waits: for the reader, or for connections.
        let mut first = [0];
        child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
        signal(&child, Signal::INT);
        let status = child.wait().unwrap();
        assert!(status.code() == Some(130), "{args:?}: {status}");
    }

    let early = at("exec", &[waiting, "--", "true"]);
    assert_eq!(early.status, Some(125));
    assert!(early.stderr.contains(&format!("the job {waiting} waits for a worker")), "{early:?}");
    let mut beside = cli.command(["exec", "--queue", "local", id, "--", "sh", "-c"]);
    let mut beside = beside.arg("echo up >&2; sleep 600").spawn().unwrap();
    let running = wait_for(&mut beside, "up");
    at("kill", &[id]).text(0);
    assert_eq!(at("wait", &[id]).status, Some(143));
    assert_eq!(finish(beside).status, Some(125));
    drop(running);
    let late = at("exec", &[id, "--", "true"]);
    assert_eq!(late.status, Some(125));
    assert!(late.stderr.contains(&format!("hint: `metaservice artifacts {id}`")), "{late:?}");

    worker.end();
}

/// A new cgroup for a worker, if this process may make one. It need not have the controller cpu.
fn new_cgroup() -> Option<PathBuf> {
    let read = |file: &str| std::fs::read_to_string(file).unwrap();
    let mounts = read("/proc/self/mountinfo");
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?.split(' ').nth(4)?;
    let groups = read("/proc/self/cgroup");
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let group = PathBuf::from(mount).join(own).join(format!("test{}", std::process::id()));
    std::fs::create_dir(&group).ok().map(|()| group)
}

/// The tool, in this group from its start.
fn within(group: &std::path::Path, tool: &Command) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", r#"echo $$ > "$0" && exec "$@""#]).arg(group.join("cgroup.procs"));
    command.arg(tool.get_program()).args(tool.get_args());
    command.envs(tool.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(tool.get_current_dir().unwrap());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn a_job_has_a_cgroup_with_its_weight_where_the_host_allows_it() {
    let cli = Cli::new(METASERVICE);
    let group = new_cgroup();
    let read = |file: &str| std::fs::read_to_string(group.as_ref()?.join(file)).ok();
    let has_cpu = read("cgroup.controllers")
        .is_some_and(|all| all.split_whitespace().any(|one| one == "cpu"));
    let tool = cli.command(["--json", "worker", "--name", "w"]);
    // Where there is no controller, also the group of this process has none, or others are in it.
    let mut tool = match &group {
        Some(group) => within(group, &tool),
        None => tool,
    };
    let mut child = tool.spawn().unwrap();
    let (ready, messages) = wait_for_line(&mut child, r#""event":"ready""#);
    let worker = Worker { child, messages };
    assert!(ready.contains(&format!(r#""cpuWeight":{has_cpu}"#)), "{ready}");

    let script = "echo up; sleep 600";
    let submit = ["submit", "--id", "a", "--priority", "high", "--cpus", "2"];
    cli.run(&[&submit[..], &["--", "sh", "-c", script]].concat()).text(0);
    worker.says(r#""event":"output""#);
    let of_job = read("job.w.a.1/cpu.weight").map(|text| text.trim().to_owned());
    assert_eq!(of_job, has_cpu.then(|| "800".to_owned()));
    let members = read("job.w.a.1/cgroup.procs").map(|text| text.lines().count());
    assert_eq!(members, has_cpu.then_some(1));
    cli.run(&["cancel", "a"]).text(0);
    worker.end();
    if let Some(group) = group {
        // The worker removed the group of the job: else this fails.
        let _ = std::fs::remove_dir(group.join("worker"));
        std::fs::remove_dir(group).unwrap();
    }
}

#[test]
fn a_store_has_the_log_after_the_queue_has_it_no_more() {
    let cli = Cli::new(METASERVICE);
    let store = format!("file://{}", cli.work().join("store").display());
    let worker = Worker::start(&cli, &["--store", &store]);
    let script = "echo out; echo kept > /file";
    let id = cli.run(&["submit", "--artifact", "/file", "--", "sh", "-c", script]).text(0);
    let id = id.trim();
    cli.run(&["wait", "--queue", "local", id]).text(0);
    let unknown = cli.run(&["artifacts", id, "--to", "results"]);
    assert_eq!(unknown.status, Some(125));
    assert!(unknown.stderr.contains(&format!("hint: give --store {store}")), "{unknown:?}");
    cli.run(&["artifacts", id, "--to", "results", "--store", &store]).text(0);
    assert_eq!(std::fs::read_to_string(cli.work().join("results/file")).unwrap(), "kept\n");

    let logs = ["logs", "--queue", "local", "--store", &store, id];
    assert_eq!(cli.run(&logs).text(0), "out\n");
    let pruned = ["prune", "--queue", "local", "--older-than", "1ms", "--stored-logs"];
    assert_eq!(cli.run(&pruned).text(0).trim(), id);
    assert_eq!(cli.run(&logs).text(0), "out\n");
    worker.end();
}

#[test]
fn a_secret_reaches_a_job_of_a_queue() {
    let cli = Cli::new(METASERVICE);
    let mut child = cli.command(["worker", "--key", "key"]).spawn().unwrap();
    let (told, messages) = wait_for_line(&mut child, "secrets are sealed for");
    let key = told.split_whitespace().last().unwrap().to_owned();
    let worker = Worker { child, messages };
    worker.says("metaservice: ready");
    let submit = |seal: &[&str], value: Option<&str>| {
        let mut args = vec!["submit", "--wait", "--id", "a", "--secret", "TOKEN"];
        args.extend(seal);
        args.extend(["--", "sh", "-c", "echo $TOKEN | tr a-z A-Z"]);
        let mut command = cli.command(args);
        value.map(|value| command.env("TOKEN", value));
        finish(command.spawn().unwrap())
    };
    assert_eq!(submit(&["--seal-for", &key], Some("hunter2")).text(0), "HUNTER2\n");
    let shown = cli.run(&["--json", "jobs", "--all"]).text(0);
    assert!(shown.contains("\"a\"") && !shown.contains("hunter2"), "{shown}");

    let unsealed = submit(&[], Some("hunter2"));
    assert!(unsealed.stderr.contains("--seal-for KEY"), "{unsealed:?}");
    let missing = submit(&["--seal-for", &key], None);
    assert!(missing.stderr.contains("there is no variable TOKEN"), "{missing:?}");
    let again = cli.run(&["retry", "a"]);
    assert!(again.stderr.contains("submit it again"), "{again:?}");
    worker.end();
}

#[test]
fn a_queue_of_the_environment_takes_no_name_of_a_job_of_this_host() {
    let cli = Cli::new(METASERVICE);
    cli.run(&["run", "--name", "mine", "--", "echo", "here"]).text(0);
    for args in [["logs", "mine"], ["wait", "mine"]] {
        let mut command = cli.command(args);
        command.env("METASERVICE_QUEUE", "nats://127.0.0.1:1");
        let finished = finish(command.spawn().unwrap());
        assert_eq!(finished.status, Some(0), "{finished:?}");
    }
    let mut command = cli.command(["logs", "other"]);
    command.env("METASERVICE_QUEUE", "nats://127.0.0.1:1");
    let finished = finish(command.spawn().unwrap());
    assert!(finished.stderr.contains("cannot connect to the queue"), "{finished:?}");
}

#[test]
fn the_page_shows_each_attempt_of_a_job_and_its_log() {
    let cli = Cli::new(METASERVICE);
    let first = Worker::start(&cli, &["--name", "first", "--drain-timeout", "1ms"]);
    let script = "echo begun; echo bad >&2; until test -e /go; do sleep 0.1; done; echo over";
    let id = cli.run(&["submit", "--", "sh", "-c", script]).text(0);
    let id = id.trim();
    cli.run(&["exec", "--queue", "local", id, "--", "true"]).text(0);
    let logs = ["logs", "--queue", "local", id];
    assert_eq!(cli.run(&logs).text(0), "begun\n");
    // It gives the job back.
    first.end();
    let second = Worker::start(&cli, &["--name", "second"]);
    cli.run(&["exec", "--queue", "local", id, "--", "touch", "/go"]).text(0);
    cli.run(&["wait", "--queue", "local", id]).text(0);
    let web = cli.web(&["--queue", "local"]);
    let log = |query: &str| web.curl(&[], &format!("api/jobs/{id}/log/download{query}"));
    assert_eq!(log("?attempt=1"), (200, "begun\nbad\n".to_owned()));
    for last in ["", "?attempt=2"] {
        assert_eq!(log(last), (200, "begun\nbad\nover\n".to_owned()));
    }
    assert_eq!(log("?attempt=3").0, 404);
    let attempts = web.get(&format!("api/jobs/{id}"))["attempts"].clone();
    let row = |number: usize| {
        let one = &attempts[number];
        (one["worker"].clone(), one["outcome"].clone(), one["endedMs"].is_u64())
    };
    assert_eq!(row(0), ("first".into(), "its worker gave it back: the worker ends".into(), true));
    assert_eq!(row(1), ("second".into(), "succeeded".into(), true));

    // It has both outputs, and times.
    let started = web.get(&format!("api/jobs/{id}/log?attempt=1"))["startedMs"].clone();
    assert_eq!(started, attempts[0]["startedMs"]);
    let lines = format!("api/jobs/{id}/log/lines?started={started}&from=0&count=9");
    let lines = web.get(&lines);
    let shown = |line: usize| (lines[line]["spans"][0].clone(), lines[line]["ms"].is_u64());
    assert_eq!(shown(0), (serde_json::json!({ "t": "begun" }), true));
    assert_eq!(shown(1), (serde_json::json!({ "t": "bad", "e": true }), true));
    web.end();
    second.end();
}

#[test]
fn the_page_shows_a_job_of_a_queue_that_runs_and_that_has_ended() {
    let cli = Cli::new(METASERVICE);
    let worker = Worker::start(&cli, &[]);
    let script = "echo hello; echo kept > /file; until test -e /go; do sleep 0.1; done; exit 3";
    let id = cli.run(&["submit", "--artifact", "/file:x", "--", "sh", "-c", script]).text(0);
    let id = id.trim();
    cli.run(&["exec", "--queue", "local", id, "--", "true"]).text(0);
    let web = cli.web(&["--queue", "local"]);
    let started = web.get(&format!("api/jobs/{id}/log"))["startedMs"].as_u64().unwrap();
    let log = || web.curl(&[], &format!("api/jobs/{id}/log/download"));
    assert_eq!(log(), (200, "hello\n".to_owned()));
    let file = web.curl(&[], &format!("api/jobs/{id}/file?started={started}&path=/file"));
    assert_eq!(file, (200, "kept\n".to_owned()));
    cli.run(&["exec", "--queue", "local", id, "--", "touch", "/go"]).text(0);
    assert_eq!(cli.run(&["wait", "--queue", "local", id]).status, Some(3));
    let details = web.get(&format!("api/jobs/{id}?started={started}"));
    assert_eq!((&details["job"]["status"], &details["end"]), (&3.into(), &"failed".into()));
    let artifact = details["artifacts"][0]["name"].as_str().unwrap();
    let kept = format!("api/jobs/{id}/artifact?started={started}&name={artifact}");
    assert_eq!(web.curl(&[], &kept), (200, "kept\n".to_owned()));
    assert_eq!(log(), (200, "hello\n".to_owned()));
    web.end();
    worker.end();
}
