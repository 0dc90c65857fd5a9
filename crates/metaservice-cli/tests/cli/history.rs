//! What is kept of a job when it has ended.

use std::process::Command;

use metaservice_testing::cli::{Cli, Service, finish};
use rustix::process::Signal;
use serde_json::Value;

use crate::METASERVICE;

/// The guest of a service: fetches the command, writes a log and reports how it ended.
fn run_guest(service: &Service, log: &str, result: &str) {
    service.request("GET", "execute", "");
    service.request_with("POST", "log", "", log);
    service.request("PUT", result, "");
}

fn ended(cli: &Cli, name: &str, log: &str) {
    let service = cli.serve(&["--name", name, "--", "make", "test"]);
    run_guest(&service, log, "failed");
    assert_eq!(service.finish().status, Some(1));
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_job_that_has_ended_is_listed_inspected_and_removed() {
    let cli = Cli::new(METASERVICE);
    let secret = ["-e", "TOKEN=hunter2", "--secret", "KEY"];
    let mut serve = cli.command(["serve", "--json", "--listen", "unix:s", "--name", "build"]);
    serve.args(secret).args(["--", "make", "test"]).env("KEY", "hunter3");
    let mut child = serve.spawn().unwrap();
    drop(metaservice_testing::cli::wait_for(&mut child, "\"event\":\"serving\""));
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::remove_file(cli.work().join("s")).unwrap();
    // The process was killed before it wrote a result.
    let listed = cli.run(&["ps", "-a"]).text(0);
    assert!(
        listed.lines().any(|line| line.starts_with("build") && line.contains("lost")),
        "{listed}"
    );
    assert_eq!(cli.run(&["ps", "-q"]).text(0), "");
    let lost = cli.run(&["wait", "build"]);
    lost.text(125);
    assert!(lost.stderr.contains("the job is lost"), "{}", lost.stderr);
    let inspected = json(&cli.run(&["inspect", "build"]).text(0));
    assert_eq!(
        (&inspected["state"], &inspected["env"]),
        (&"lost".into(), &serde_json::json!(["TOKEN", "KEY"]))
    );
    let found = Command::new("grep").args(["-r", "hunter"]).arg(cli.jobs()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");

    // A new job of this name replaces it.
    ended(&cli, "build", "some log\n");
    let listed = json(&cli.run(&["ps", "-a", "--json"]).text(0));
    assert_eq!((&listed[0]["state"], &listed[0]["status"]), (&"failed".into(), &1.into()));
    assert_eq!(listed[0]["command"], serde_json::json!(["make", "test"]));
    assert!(listed[0]["endedMs"].as_u64() >= listed[0]["startedMs"].as_u64());
    assert_eq!(cli.run(&["wait", "build"]).text(1), "1\n");
    let refused = cli.run(&["kill", "build"]);
    refused.text(125);
    assert!(refused.stderr.contains("the job build has ended"), "{}", refused.stderr);

    cli.run(&["rm", "build"]).text(0);
    assert_eq!(cli.run(&["ps", "-a", "-q"]).text(0), "");
    let gone = cli.run(&["rm", "build"]);
    gone.text(125);
    assert!(gone.stderr.contains("no job named \"build\""), "{}", gone.stderr);
}

#[test]
fn prune_removes_what_has_ended_and_nothing_that_runs() {
    let cli = Cli::new(METASERVICE);
    let running = cli.serve(&["--name", "running", "true"]);
    ended(&cli, "a", "");
    ended(&cli, "b", "");
    assert_eq!(cli.run(&["prune", "--older-than", "1h"]).text(0), "");
    assert_eq!(cli.run(&["ps", "-a", "-q"]).text(0), "a\nb\nrunning\n");
    let refused = cli.run(&["rm", "running", "a"]);
    refused.text(125);
    assert!(refused.stderr.contains("rm --force"), "{}", refused.stderr);
    assert_eq!(json(&cli.run(&["prune", "--json"]).text(0)), serde_json::json!(["b"]));
    // With `--force`, its process is killed.
    cli.run(&["rm", "--force", "running"]).text(0);
    assert_eq!(running.finish().status, None);
    assert_eq!(cli.run(&["ps", "-a", "-q"]).text(0), "");
}

#[test]
fn a_start_keeps_as_many_ended_jobs_as_the_limit_says() {
    let cli = Cli::new(METASERVICE);
    for name in ["a", "b", "c"] {
        ended(&cli, name, "");
    }
    let limit = ["--limit", "history-jobs=2", "--name", "d", "true"];
    cli.serve(&limit).stop(Signal::TERM);
    assert_eq!(cli.run(&["ps", "-a", "-q"]).text(0), "b\nc\nd\n");
    cli.serve(&["--rm", "--name", "e", "true"]).stop(Signal::TERM);
    assert_eq!(cli.run(&["ps", "-a", "-q"]).text(0), "b\nc\nd\n");
}

#[test]
fn jobs_without_a_name_do_not_replace_each_other() {
    let cli = Cli::new(METASERVICE);
    let service = cli.serve(&["true"]);
    let name = cli.run(&["ps", "-q"]).text(0).trim().to_owned();
    service.stop(Signal::TERM);
    // A later process may have the same id.
    let next = cli.serve(&["true"]);
    let taken = cli.jobs().join(format!("job-{}", next.child.id()));
    assert!(taken.exists() && cli.jobs().join(name).exists());
    next.stop(Signal::TERM);
    assert_eq!(cli.run(&["ps", "-a", "-q"]).text(0).lines().count(), 2);
}

#[test]
fn a_full_disk_costs_the_history_and_not_the_job() {
    let cli = Cli::new(METASERVICE);
    let state = cli.jobs();
    std::fs::create_dir_all(&state).unwrap();
    // The file system has room for the files, and none for their content.
    let script = "mount -t tmpfs -o size=4k,mode=700 none \"$1\" && \
                  { dd if=/dev/zero of=\"$1/.filler\" bs=4k count=2 2> /dev/null; shift; \"$@\"; \
                  status=$?; \"$1\" ps -a -q; exit $status; }";
    let tool = cli.command(["serve", "--listen", "unix:s", "--name", "build", "--timeout", "1s"]);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]).arg(&state);
    command.arg(tool.get_program()).args(tool.get_args()).args(["--boot-timeout", "100ms", "true"]);
    command.current_dir(cli.work());
    for (name, value) in tool.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let finished = finish(command.spawn().unwrap());
    let lines: Vec<_> =
        finished.stderr.lines().filter(|line| line.contains("the job is not kept")).collect();
    assert_eq!(lines.len(), 1, "{}", finished.stderr);
    // It is not lost either.
    assert_eq!(finished.text(125), "");
    assert!(finished.stderr.contains("no guest has fetched its command"), "{}", finished.stderr);
}

#[test]
fn a_verb_for_ended_jobs_says_that_there_is_no_such_job() {
    let cli = Cli::new(METASERVICE);
    let service = cli.serve(&["--name", "other", "true"]);
    for args in [
        &["rm", "missing"][..],
        &["wait", "missing"],
        &["logs", "missing"],
        &["inspect", "missing"],
    ] {
        let missing = cli.run(args);
        missing.text(125);
        let told = missing.stderr;
        assert!(told.contains("there is no job named \"missing\""), "{args:?}: {told}");
        assert!(told.contains("hint: running: other; `metaservice ps -a`"), "{args:?}: {told}");
    }
    cli.run(&["kill", "--force", "other"]).text(0);
    service.finish();
}

/// The verbs may be typed before the process of the job has registered its name.
#[test]
fn a_verb_awaits_a_job_that_starts() {
    let cli = Cli::new(METASERVICE);
    for _ in 0..20 {
        let waiting = cli.command(["wait", "--for", "running", "late"]).spawn().unwrap();
        let service = cli.serve(&["--name", "late", "true"]);
        service.request("GET", "execute", "");
        finish(waiting).text(0);
        run_guest(&service, "", "success");
        service.finish().text(0);
        cli.run(&["rm", "late"]).text(0);
    }
    let missing = cli.run(&["wait", "--for", "running", "never"]);
    missing.text(125);
    assert!(missing.stderr.contains("no job named \"never\""), "{}", missing.stderr);
}

#[test]
fn the_log_of_a_lost_job_is_what_had_arrived() {
    let cli = Cli::new(METASERVICE);
    let mut service = cli.serve(&["--name", "build", "true"]);
    service.request("GET", "execute", "");
    service.request_with("POST", "log", "", "one\ntwo\n");
    service.child.kill().unwrap();
    service.finish();
    assert_eq!(cli.run(&["logs", "build"]).text(0), "one\ntwo\n");
    assert_eq!(cli.run(&["logs", "-n", "1", "build"]).text(0), "two\n");
    ended(&cli, "build", "three\n");
    assert_eq!(cli.run(&["logs", "-f", "build"]).text(0), "three\n");
    std::fs::remove_file(cli.jobs().join("build/log")).unwrap();
    let gone = cli.run(&["logs", "build"]);
    gone.text(125);
    assert!(gone.stderr.contains("no log of it is kept"), "{}", gone.stderr);
}
