//! `run -i`, `run -it` and `attach` in real machines.
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use metaservice_testing::cli::{Cli, finish};
use pty_process::Size;
use rustix::process::{Pid, Signal, kill_process};

use crate::METASERVICE;
use crate::terminal::Session;

#[test]
fn a_directory_comes_in_by_stdin_and_the_status_comes_out() {
    let cli = Cli::new(METASERVICE);
    let source = cli.work().join("source");
    std::fs::create_dir_all(source.join("a")).unwrap();
    std::fs::write(source.join("a/b"), "content\n").unwrap();
    let mut tar =
        Command::new("tar").arg("c").arg("-C").arg(&source).arg(".").stdout(Stdio::piped()).spawn();
    let archive = tar.as_mut().unwrap().stdout.take().unwrap();
    let script = "mkdir /tmp/in && cd /tmp/in && tar x && cat a/b; exit 4";
    let mut run = cli.command(["run", "-i", "--", "sh", "-c", script]);
    let run = finish(run.stdin(archive).spawn().unwrap());
    assert_eq!((run.status, run.stdout.as_slice()), (Some(4), &b"content\n"[..]), "{}", run.stderr);
    assert_eq!(run.stderr, "");
    assert!(tar.unwrap().wait().unwrap().success());
}

#[test]
fn three_hundred_megabytes_go_in_by_stdin_and_come_out_by_stdout() {
    const BLOCKS: usize = 300;
    let cli = Cli::new(METASERVICE);
    // No block size divides this length, and the bytes have no pattern.
    let mut state = 1u64;
    let block: Vec<u8> = std::iter::repeat_with(|| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    })
    .take(1_000_003)
    .collect();
    let mut run = cli.command(["run", "-i", "--", "cat"]);
    let mut run = run.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = run.stdin.take().unwrap();
    let mut stdout = run.stdout.take().unwrap();
    let begun = Instant::now();
    let feeding = std::thread::spawn({
        let block = block.clone();
        move || (0..BLOCKS).try_for_each(|_| stdin.write_all(&block))
    });
    let mut got = vec![0; block.len()];
    for number in 0..BLOCKS {
        stdout.read_exact(&mut got).unwrap();
        assert!(got == block, "block {number} of {BLOCKS} is another");
    }
    assert_eq!(stdout.read(&mut got).unwrap(), 0, "there is more");
    println!("{BLOCKS} MB in {:?}", begun.elapsed());
    feeding.join().unwrap().unwrap();
    finish(run).text(0);
}

#[test]
fn data_that_the_command_does_not_get_is_reported_once() {
    let cli = Cli::new(METASERVICE);
    let note = "metaservice: standard input has data that the command does not get \
                (-i passes it to the command)\n";
    let mut run = cli.command(["run", "--", "sh", "-c", "cat; sleep 1"]);
    let mut run = run.stdin(Stdio::piped()).spawn().unwrap();
    run.stdin.as_mut().unwrap().write_all(b"data").unwrap();
    let stdin = run.stdin.take();
    let run = finish(run);
    assert_eq!((run.status, run.stderr.as_str()), (Some(0), note));
    assert_eq!(run.stdout, b"");
    drop(stdin);

    let file = cli.work().join("file");
    std::fs::write(&file, "x").unwrap();
    let mut run = cli.command(["run", "--", "cat"]);
    let run = finish(run.stdin(std::fs::File::open(file).unwrap()).spawn().unwrap());
    assert_eq!((run.status, run.stderr.as_str()), (Some(0), note));
}

/// A command that ends while its producer writes on.
#[test]
fn a_command_that_does_not_read_ends_the_run() {
    let cli = Cli::new(METASERVICE);
    let mut yes = Command::new("yes").stdout(Stdio::piped()).spawn().unwrap();
    let endless = yes.stdout.take().unwrap();
    let mut run = cli.command(["run", "-i", "--", "sh", "-c", "head -n 1; exit 6"]);
    let running = run.stdin(endless).spawn().unwrap();
    // It has the pipe too.
    drop(run);
    let run = finish(running);
    assert_eq!((run.status, run.stdout.as_slice()), (Some(6), &b"y\n"[..]), "{}", run.stderr);
    yes.wait().unwrap();
}

#[tokio::test]
async fn a_terminal_is_one_both_ways_and_is_left_and_attached_again() {
    let cli = Cli::new(METASERVICE);
    let mut run = Session::start(&cli, &["run", "-it", "--name", "seat", "--", "sh"]);
    run.until("#").await;
    run.send("stty size; echo $((6*7))\r").await;
    run.until("31 97").await;
    run.until("42").await;
    run.pty.resize(Size::new(43, 132)).unwrap();
    run.send("trap 'stty size' WINCH; kill -WINCH $$; sleep 0\r").await;
    run.until("43 132").await;
    // Ctrl-C goes to the guest.
    run.send("sh -c 'echo in\"\"side; exec sleep 1000'; echo inter''rupted $?\r").await;
    run.until("inside").await;
    run.send("\x03").await;
    run.until("#").await;
    run.send("echo al''ive\r").await;
    run.until("alive").await;
    // A program that uses the whole screen.
    run.send("vi /tmp/text\r").await;
    run.until("~").await;
    run.send("i").await;
    run.until("I /tmp/text").await;
    run.send("text of vi").await;
    run.until("text of vi").await;
    run.send("\x1b").await;
    run.until("[Modified]").await;
    run.send(":wq\r").await;
    run.until("#").await;
    run.send("cat /tmp/te''xt; echo sh''own\r").await;
    run.until("text of vi").await;
    run.until("shown").await;
    run.send("\x10\x11").await;
    run.until("detached: seat still runs").await;
    assert_eq!(run.finish().await, 0);
    assert!(cli.run(&["ps"]).text(0).contains("seat"));

    let mut attached = Session::start(&cli, &["attach", "seat"]);
    // The window of this terminal is another.
    attached.send("stty size; echo still he''re\r").await;
    attached.until("31 97").await;
    attached.until("still here").await;
    let busy = cli.run(&["attach", "seat"]);
    assert_eq!(busy.status, Some(125));
    assert!(busy.stderr.contains("another client is attached"), "{}", busy.stderr);
    assert!(busy.stderr.contains("--no-stdin"), "{}", busy.stderr);
    attached.send("\x10\x11").await;
    attached.until("detached: seat still runs").await;
    assert_eq!(attached.finish().await, 0);

    let mut attached = Session::start(&cli, &["attach", "seat"]);
    attached.send("echo agai''n; exit 7\r").await;
    attached.until("again").await;
    assert_eq!(attached.finish().await, 7);
    cli.wait_for_exits();
}

#[tokio::test]
async fn a_terminal_without_stdin_is_not_asked() {
    let cli = Cli::new(METASERVICE);
    let script = "printf 'one\\033[6ntwo\\033[31mred\\033[0m\\033]11;?\\007 three'";
    let mut run = Session::start(&cli, &["run", "-t", "--", "sh", "-c", script]);
    run.until("onetwo\x1b[31mred\x1b[0m three").await;
    assert_eq!(run.finish().await, 0);
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn a_job_is_watched_and_a_signal_without_a_terminal_is_forwarded() {
    let cli = Cli::new(METASERVICE);
    let script = "trap 'echo told; exit 7' INT; echo ready; while :; do sleep 1; done";
    let mut job = cli.start("told", &["--", "sh", "-c", script]);
    job.wait_for_log("ready");
    let attach = |args: &[&str]| {
        let args = ["attach"].into_iter().chain(args.iter().copied()).chain(["told"]);
        let mut child = cli.command(args).spawn().unwrap();
        let mut line = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
        assert_eq!(&line, b"ready\n");
        child
    };
    // Who only watches leaves, and the command gets nothing.
    let watching = attach(&["--no-stdin"]);
    signal(&watching, Signal::INT);
    assert_eq!(finish(watching).status, Some(130));
    let attached = attach(&[]);
    let watching = attach(&["--no-stdin"]);
    signal(&attached, Signal::INT);
    for client in [attached, watching] {
        let client = finish(client);
        assert_eq!((client.status, client.stdout.as_slice()), (Some(7), &b"told\n"[..]));
    }
    assert_eq!(job.finish().status, Some(7));
}

#[test]
fn a_terminal_is_needed_for_both_ways() {
    let cli = Cli::new(METASERVICE);
    let refused = cli.run(&["run", "-it", "--", "sh"]);
    assert_eq!(refused.status, Some(125));
    assert!(refused.stderr.contains("-t with -i needs a terminal"), "{}", refused.stderr);
    assert_eq!(refused.stderr.lines().count(), 2, "{}", refused.stderr);
}

#[test]
fn a_job_in_the_background_is_fed_and_its_status_comes_out() {
    let cli = Cli::new(METASERVICE);
    let script = "read line; echo \"<$line>\"; cat; exit 5";
    cli.run(&["run", "-d", "-i", "--name", "fed", "--", "sh", "-c", script]).text(0);
    let mut attached = cli.command(["attach", "fed"]);
    let mut attached = attached.stdin(Stdio::piped()).spawn().unwrap();
    attached.stdin.take().unwrap().write_all(b"one\ntwo\n").unwrap();
    let attached = finish(attached);
    let out = String::from_utf8(attached.stdout).unwrap();
    assert_eq!((attached.status, out.as_str()), (Some(5), "<one>\ntwo\n"), "{}", attached.stderr);
    cli.wait_for_exits();
}
