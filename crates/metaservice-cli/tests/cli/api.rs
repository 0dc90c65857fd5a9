//! `metaservice api`: one socket for all jobs of a user.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use metaservice_testing::cli::{Cli, finish};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::METASERVICE;

/// Starts the verb. Returns its process and the path that it prints.
fn start(cli: &Cli) -> (Child, PathBuf) {
    let mut api = cli.command(["api"]).spawn().unwrap();
    let mut path = String::new();
    BufReader::new(api.stdout.as_mut().unwrap()).read_line(&mut path).unwrap();
    (api, PathBuf::from(path.trim_end()))
}

fn get(socket: &Path, args: &[&str], target: &str) -> Value {
    let mut command = Command::new("curl");
    command.args(["-s", "--unix-socket", socket.to_str().unwrap()]).args(args);
    let output = command.arg(format!("http://localhost/v1/{target}")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{target}: {text}"))
}

#[test]
fn one_socket_lists_all_jobs_and_leads_to_each() {
    let cli = Cli::new(METASERVICE);
    let (api, socket) = start(&cli);
    assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(get(&socket, &[], "jobs"), Value::Array(Vec::new()));
    let healthy = cli.serve(&["--name", "healthy", "true"]);
    let stopped = cli.serve(&["--name", "stopped", "true"]);
    stopped.signal(Signal::STOP);
    let jobs = get(&socket, &[], "jobs");
    let words = |word: &str| {
        jobs.as_array().unwrap().iter().map(|job| job[word].as_str().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(words("name"), ["healthy", "stopped"]);
    assert_eq!(words("state"), ["waiting", "silent"]);
    stopped.signal(Signal::CONT);

    assert_eq!(get(&socket, &[], "jobs/healthy/job")["name"], "healthy");
    let refused = get(&socket, &["-X", "POST"], "jobs/healthy/signal?signal=99");
    assert_eq!(refused["code"], "InvalidRequest", "the query is forwarded: {refused}");
    let body = "{\"command\":[\"true\"],\"timeoutMs\":1}";
    let late = get(&socket, &["-d", body], "jobs/stopped/run");
    assert_eq!(late["code"], "TimedOut", "the body is forwarded: {late}");
    for (target, code) in [
        ("jobs/none/job", "NotFound"),
        ("jobs/..%2f..%2fetc/job", "NotFound"),
        ("jobs/healthy/none", "NoSuchEndPoint"),
        ("jobs/healthy", "NoSuchEndPoint"),
        ("other", "NoSuchEndPoint"),
        ("jobs?some=true", "InvalidRequest"),
    ] {
        assert_eq!(get(&socket, &[], target)["code"], code, "{target}");
    }
    assert_eq!(get(&socket, &[], "openapi.json")["openapi"], "3.1.0");

    let second = cli.run(&["api"]);
    assert_eq!(second.text(125), "");
    assert!(second.stderr.contains("another process is listening"), "{}", second.stderr);

    let killed = get(&socket, &["-X", "POST"], "jobs/healthy/kill?force=true");
    assert_eq!(killed["killed"], "machine");
    assert_eq!(healthy.finish().status, Some(137));
    stopped.stop(Signal::HUP);
    let ended = get(&socket, &[], "jobs?all=true");
    let ended = ended.as_array().unwrap().iter().map(|job| &job["name"]).collect::<Vec<_>>();
    assert_eq!(ended, ["healthy", "stopped"]);

    kill_process(Pid::from_child(&api), Signal::INT).unwrap();
    assert_eq!(finish(api).status, Some(130));
    assert!(!socket.exists());
}
