//! Runs the examples; the harness runs in a real virtual machine.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

#[test]
fn the_worker_exits_with_the_status_of_the_guest() {
    let directory =
        std::env::temp_dir().join(format!("metaservice-examples-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    for status in [0, 3] {
        let mut worker = Command::new(env!("CARGO_BIN_EXE_worker"))
            .args(["127.0.0.1:0", "sh", "-c", &format!("echo $((6 * 7)); exit {status}")])
            .current_dir(&directory)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(worker.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim_end().rsplit(' ').next().unwrap();
        let guest = Command::new(env!("CARGO_BIN_EXE_guest")).arg(address).status().unwrap();
        assert!(guest.success());
        let output = worker.wait_with_output().unwrap();
        assert_eq!(output.stdout, b"42\n");
        assert_eq!(output.status.code(), Some(i32::from(status != 0)));
    }
    std::fs::remove_dir(&directory).unwrap();
}

#[test]
fn the_harness_runs_three_commands_in_one_machine() {
    let output = Command::new(env!("CARGO_BIN_EXE_harness")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{text}{errors}");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("passed: uname -r: "), "{text}");
    assert!(lines[1].ends_with(": 1"), "{text}");
    assert!(lines[2].starts_with("passed: test -d /proc/self"), "{text}");
}
