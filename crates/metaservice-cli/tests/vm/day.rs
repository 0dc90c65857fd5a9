//! A day's work, each line as a user types it, in real machines.

use std::fs;
use std::io::{BufRead, BufReader};

use metaservice_testing::cli::Cli;

use crate::METASERVICE;

#[test]
fn a_source_tree_is_tested_in_one_line_and_its_reports_come_out() {
    let cli = Cli::new(METASERVICE);
    let rule = "test:\n\tmkdir -p build/reports\n\tcat input > build/reports/one.xml\n\techo ran\n";
    fs::write(cli.work().join("Makefile"), rule).unwrap();
    fs::write(cli.work().join("input"), "<report/>\n").unwrap();
    let line =
        "run --rootfs / -v .:/src:overlay -w /src --artifact build/reports:out -- make -s test";
    let finished = cli.run(&line.split(' ').collect::<Vec<_>>());
    assert_eq!(finished.text(0), "ran\n");
    assert_eq!(fs::read_to_string(cli.work().join("out/one.xml")).unwrap(), "<report/>\n");
    // The command wrote in the guest only.
    assert!(!cli.work().join("build").exists());
}

#[test]
fn a_job_in_the_background_is_seen_during_its_life_and_after_it() {
    let cli = Cli::new(METASERVICE);
    assert_eq!(
        cli.run(&["run", "-d", "--name", "db", "--", "sh", "-c", "echo up; sleep 1h"]).text(0),
        "db\n"
    );
    let state = "{{.Name}} {{.State}}";
    assert_eq!(cli.run(&["ps", "-a", "--format", state]).text(0), "db running\n");
    let mut follower = cli.command(["logs", "-f", "db"]).spawn().unwrap();
    let mut followed = BufReader::new(follower.stdout.take().unwrap());
    let mut line = String::new();
    followed.read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    cli.run(&["kill", "db"]).text(0);
    assert_eq!(cli.run(&["wait", "db"]).text(143), "143\n");
    // At once: the process of the job may be about to end.
    assert_eq!(cli.run(&["ps", "-a", "-q"]).text(0), "db\n");
    assert_eq!(cli.run(&["logs", "db"]).text(0), "up\n");
    let timed = cli.run(&["logs", "-t", "-n", "20", "db"]).text(0);
    assert!(timed.ends_with("Z up\n") && timed.starts_with("20"), "{timed}");
    assert_eq!(cli.run(&["prune"]).text(0), "db\n");
    assert_eq!(cli.run(&["ps", "-a", "-q"]).text(0), "");
    assert!(follower.wait().unwrap().success());
    cli.wait_for_exits();
}
