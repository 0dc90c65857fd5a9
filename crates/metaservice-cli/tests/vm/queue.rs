//! A queue, its worker and its clients, with real machines.

use metaservice_testing::cli::{Cli, finish, wait_for};
use rustix::process::{Pid, Signal, kill_process};

use crate::METASERVICE;

#[test]
fn a_job_of_a_queue_ends_as_a_run_does() {
    let cli = Cli::new(METASERVICE);
    let mut worker = cli.command(["worker", "--slots", "2"]).spawn().unwrap();
    let messages = wait_for(&mut worker, "metaservice: ready");
    let script = "echo out; echo err >&2; echo kept > /file; exit 4";
    let args = ["submit", "--wait", "--artifact", "/file:results", "--", "sh", "-c", script];
    let finished = cli.run(&args);
    assert_eq!(finished.text(4), "out\n");
    assert!(finished.stderr.contains("err\n"), "{finished:?}");
    let kept = std::fs::read_to_string(cli.work().join("results/file")).unwrap();
    assert_eq!(kept, "kept\n");

    // Ctrl-C cancels the job, and its machine ends.
    let mut waiting = cli
        .command(["submit", "--wait", "--", "sh", "-c", "echo up >&2; sleep 600"])
        .spawn()
        .unwrap();
    let running = wait_for(&mut waiting, "up");
    kill_process(Pid::from_raw(waiting.id().cast_signed()).unwrap(), Signal::INT).unwrap();
    assert_eq!(finish(waiting).status, Some(130));
    drop(running);

    // A killed worker leaves no machine and no server.
    let id = cli.run(&["submit", "--", "sleep", "600"]).text(0);
    while !cli.run(&["jobs"]).text(0).contains("running") {}
    worker.kill().unwrap();
    worker.wait().unwrap();
    cli.wait_for_exits();
    drop(messages);

    // The next one gets the job once the lease of the first is over.
    let mut worker = cli.command(["worker", "--name", "second"]).spawn().unwrap();
    let messages = wait_for(&mut worker, "attempt 2 begins");
    cli.run(&["cancel", id.trim()]).text(0);
    let waited = cli.run(&["wait", "--queue", "local", id.trim()]);
    assert_eq!(waited.status, Some(130), "{waited:?}");
    kill_process(Pid::from_raw(worker.id().cast_signed()).unwrap(), Signal::TERM).unwrap();
    assert_eq!(finish(worker).status, Some(0));
    drop(messages);
    // What the killed worker left in the directory of jobs.
    cli.remove_sockets();
}
