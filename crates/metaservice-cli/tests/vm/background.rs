//! Jobs in the background, in real machines.

use std::process::Stdio;

use metaservice_testing::cli::{Cli, finish, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncReadExt;

use crate::METASERVICE;

#[test]
fn a_command_runs_when_run_d_returns_and_a_job_that_starts_is_awaited() {
    let cli = Cli::new(METASERVICE);
    for round in 0..5 {
        // In the background of the tool.
        assert_eq!(cli.run(&["run", "-d", "--name", "db", "sleep", "1h"]).text(0), "db\n");
        let round = round.to_string();
        assert_eq!(cli.run(&["exec", "db", "echo", &round]).text(0), format!("{round}\n"));
        let taken = cli.run(&["run", "-d", "--name", "db", "true"]);
        taken.text(125);
        assert!(taken.stderr.contains("a job named db is running"), "{}", taken.stderr);
        cli.run(&["kill", "db"]).text(0);
        assert_eq!(cli.run(&["wait", "db"]).text(143), "143\n");
        // In the background of a shell.
        let job = cli.command(["run", "--name", "other", "sleep", "1h"]).spawn().unwrap();
        assert_eq!(cli.run(&["exec", "other", "echo", &round]).text(0), format!("{round}\n"));
        cli.run(&["wait", "--for", "running", "other"]).text(0);
        cli.run(&["kill", "other"]).text(0);
        finish(job).text(143);
        cli.run(&["rm", "other"]).text(0);
        cli.run(&["rm", "db"]).text(0);
    }
}

#[test]
fn a_job_that_does_not_start_in_the_background_fails_as_in_the_foreground() {
    let cli = Cli::new(METASERVICE);
    let cases = [
        (&["/no/such"][..], 127, "cannot run '/no/such': No such file or directory"),
        (&["/etc"], 126, "cannot run '/etc': Permission denied"),
        (&["-w", "/no/such", "true"], 126, "cannot enter the directory '/no/such'"),
        (&["-u", "no-such", "true"], 126, "there is no user 'no-such'"),
        (&["--copy-in", "data:/no/such/", "true"], 125, "the command is not started: cannot copy"),
    ];
    std::fs::write(cli.work().join("data"), "").unwrap();
    for (command, status, says) in cases {
        let failed = cli.run(&[&["run", "-d", "--name", "wrong"], command].concat());
        assert_eq!(failed.text(status), "", "{command:?}");
        assert!(failed.stderr.contains(says), "{}", failed.stderr);
        assert_eq!(failed.stderr.lines().count(), 1, "{}", failed.stderr);
        let listed = cli.run(&["ps", "-a"]).text(0);
        assert!(listed.contains("failed"), "{listed}");
        assert_eq!(cli.run(&["wait", "wrong"]).text(status), format!("{status}\n"));
    }
    // A command that ends at once has started.
    assert_eq!(cli.run(&["run", "-d", "--name", "short", "sh", "-c", "exit 3"]).text(0), "short\n");
    assert_eq!(cli.run(&["wait", "short"]).text(3), "3\n");
    cli.wait_for_exits();
}

#[test]
fn a_log_is_shown_after_the_end() {
    let cli = Cli::new(METASERVICE);
    let script = "seq 1 1000; echo the end >&2; touch /tmp/report";
    let artifact = "/tmp/report:here";
    let log = cli.run(&["run", "--name", "build", "--artifact", artifact, "sh", "-c", script]);
    log.text(0);
    let lines: String = (1..=1000).map(|n| format!("{n}\n")).collect();
    let shown = cli.run(&["logs", "build"]);
    assert!(shown.text(0).starts_with(&lines));
    assert!((shown.text(0) + &shown.stderr).contains("the end\n"));
    let last = cli.run(&["logs", "--merged", "--since", "1h", "-n", "2", "build"]);
    assert_eq!(last.text(0), "1000\nthe end\n");
    let past = cli.run(&["inspect", "build"]).text(0);
    let past: serde_json::Value = serde_json::from_str(&past).unwrap();
    assert_eq!(past["state"], "succeeded");
    assert_eq!(
        (&past["artifacts"][0]["path"], &past["artifacts"][0]["bytes"]),
        (&"/tmp/report".into(), &0.into())
    );
    assert_eq!(past["machine"]["cpus"], 1);
}

#[tokio::test]
async fn a_job_in_the_background_survives_its_terminal() {
    let cli = Cli::new(METASERVICE);
    let (mut pty, pts) = pty_process::open().unwrap();
    // The shell is the session leader: the kernel ends its session with the terminal.
    let template = cli.command(["run", "-d", "--name", "db", "sleep", "1h"]);
    let words =
        template.get_args().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ");
    let script = format!("{METASERVICE} {words}; exec sleep 1h");
    let mut shell = pty_process::Command::new("sh").args(["-c", &script]).current_dir(cli.work());
    for (name, value) in template.get_envs() {
        shell = shell.env(name, value.unwrap_or_default());
    }
    let mut shell = shell.spawn(pts).unwrap();
    let mut seen = String::new();
    while !seen.contains("db\r\n") {
        let mut buffer = [0; 4096];
        let count = pty.read(&mut buffer).await.unwrap();
        seen += &String::from_utf8_lossy(&buffer[..count]);
    }
    drop(pty);
    assert!(!shell.wait().await.unwrap().success(), "the session ended by a signal");
    assert_eq!(cli.run(&["exec", "db", "echo", "alive"]).text(0), "alive\n");
    let mut kill = cli.command(["kill", "db"]);
    assert!(kill.stdout(Stdio::null()).status().unwrap().success());
    cli.run(&["wait", "db"]).text(143);
    cli.wait_for_exits();
    let messages = std::fs::read_to_string(cli.jobs().join("db/messages")).unwrap();
    assert_eq!(messages, "", "nothing went wrong");
}

#[test]
fn the_machine_of_a_failed_command_is_kept_for_clients() {
    let cli = Cli::new(METASERVICE);
    let script = "echo evidence > /tmp/core; exit 3";
    let failing = ["--name", "broken", "sh", "-c", script];
    let run = |first: &[&'static str]| [first, &failing].concat();
    cli.run(&run(&["run", "-d", "--keep-on-failure"])).text(0);
    // Its status is known at once.
    assert_eq!(cli.run(&["wait", "broken"]).text(3), "3\n");
    let listed = cli.run(&["ps"]).text(0);
    assert!(listed.contains("kept"), "{listed}");
    assert_eq!(cli.run(&["exec", "broken", "cat", "/tmp/core"]).text(0), "evidence\n");
    cli.run(&["cp", "broken:/tmp/core", "core"]).text(0);
    assert_eq!(std::fs::read(cli.work().join("core")).unwrap(), b"evidence\n");
    let killed = cli.run(&["kill", "broken"]);
    killed.text(0);
    assert_eq!(killed.stderr, "");
    cli.wait_for_exits();
    assert_eq!(cli.run(&["wait", "broken"]).text(3), "3\n");

    // In the foreground, Ctrl-C ends it.
    let mut child = cli.command(run(&["run", "--keep-on-failure=1h"])).spawn().unwrap();
    let _stderr = wait_for(&mut child, "its machine is kept for 1h: metaservice shell broken");
    assert_eq!(cli.run(&["exec", "broken", "cat", "/tmp/core"]).text(0), "evidence\n");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(finish(child).status, Some(3));
    // A success is not kept.
    cli.run(&["run", "--keep-on-failure", "true"]).text(0);
    let zero = cli.run(&["run", "--keep-on-failure=0", "true"]);
    zero.text(125);
    assert!(zero.stderr.contains("in --keep-on-failure: "), "{}", zero.stderr);
}

#[test]
fn wait_has_the_status_of_the_job_and_its_artifacts() {
    let cli = Cli::new(METASERVICE);
    let run = |args: &[&str]| cli.run(&[&["run", "-d", "--name", "late"], args].concat()).text(0);
    let command =
        ["--artifact", "/b:b", "--", "sh", "-c", "sleep 1; head -c 20000000 /dev/zero >/b"];
    run(&command);
    assert_eq!(cli.run(&["wait", "late"]).text(0), "0\n");
    assert_eq!(std::fs::metadata(cli.work().join("b")).unwrap().len(), 20_000_000);
    run(&["--artifact", "/none", "--", "sleep", "1"]);
    assert_eq!(cli.run(&["wait", "late"]).text(125), "125\n");
    for more in [&["--rm"][..], &[]] {
        run(&[more, &["--timeout", "1s", "--", "sleep", "1h"]].concat());
        assert_eq!(cli.run(&["wait", "late"]).text(124), "124\n");
    }
    cli.wait_for_exits();
}
