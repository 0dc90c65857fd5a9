//! `shell` and `exec -t` in real machines, through a real pseudo-terminal.
use std::os::fd::AsFd;
use std::process::Stdio;
use std::time::Duration;

use metaservice_testing::cli::{Cli, Job, finish};
use pty_process::{Pty, Size};
use rustix::process::Signal;
use rustix::termios::{Termios, tcgetattr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::METASERVICE;

/// The timeout for expected output of a terminal.
const TIMEOUT: Duration = Duration::from_secs(60);

const WAIT: &str = "echo ready; while [ ! -e /tmp/done ]; do sleep 1; done";

/// The tool on its own terminal.
pub(crate) struct Session {
    pub(crate) pty: Pty,
    pub(crate) child: tokio::process::Child,
    /// What is shown and was not waited for.
    pub(crate) seen: String,
    before: String,
}

impl Session {
    pub(crate) fn start(cli: &Cli, args: &[&str]) -> Self {
        let (pty, pts) = pty_process::open().unwrap();
        pty.resize(Size::new(31, 97)).unwrap();
        let before = settings(&pty);
        let template = cli.command(args);
        let mut command =
            pty_process::Command::new(template.get_program()).args(args).current_dir(cli.work());
        for (name, value) in template.get_envs() {
            command = command.env(name, value.unwrap_or_default());
        }
        let child = command.kill_on_drop(true).spawn(pts).unwrap();
        Self { pty, child, seen: String::new(), before }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.pty.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads until `text` is shown, and drops the output up to there.
    pub(crate) async fn until(&mut self, text: &str) {
        loop {
            if let Some(at) = self.seen.find(text) {
                self.seen.drain(..at + text.len());
                return;
            }
            let mut buffer = [0; 4096];
            let read = tokio::time::timeout(TIMEOUT, self.pty.read(&mut buffer)).await;
            let count = read.unwrap_or_else(|_| panic!("{text:?} never came: {:?}", self.seen));
            let count = count.unwrap_or_else(|_| panic!("{text:?} never came: {:?}", self.seen));
            self.seen += &String::from_utf8_lossy(&buffer[..count]);
        }
    }

    /// Returns the status, and checks that the terminal's settings are restored.
    pub(crate) async fn finish(mut self) -> i32 {
        let status = loop {
            // Remaining output must not block the tool.
            let mut buffer = [0; 4096];
            tokio::select! {
                status = self.child.wait() => break status.unwrap(),
                Ok(count) = self.pty.read(&mut buffer) => {
                    self.seen += &String::from_utf8_lossy(&buffer[..count]);
                }
            }
        };
        assert_eq!(settings(&self.pty), self.before, "the terminal is not as it was");
        status.code().unwrap()
    }
}

/// Formats a terminal's settings.
fn settings(pty: &Pty) -> String {
    let Termios { input_modes, output_modes, local_modes, control_modes, .. } =
        tcgetattr(pty.as_fd()).unwrap();
    format!("{input_modes:?} {output_modes:?} {local_modes:?} {control_modes:?}")
}

fn start(cli: &Cli, name: &str) -> Job {
    let mut job = cli.start(name, &["--", "sh", "-c", WAIT]);
    job.wait_for_log("ready");
    job
}

async fn end(cli: &Cli, job: Job, name: &str) {
    cli.release(name);
    job.finish().text(0);
}

#[tokio::test]
async fn a_shell_is_as_if_one_sat_at_it() {
    let cli = Cli::new(METASERVICE);
    let job = start(&cli, "seat");
    let mut shell = Session::start(&cli, &["shell", "seat", "sh"]);
    // The size is set from the start, and follows the window.
    shell.send("stty size; echo $((6*7))\r").await;
    shell.until("31 97").await;
    shell.until("42").await;
    shell.pty.resize(Size::new(43, 132)).unwrap();
    shell.send("trap 'stty size; echo resized' WINCH; kill -WINCH $$; sleep 0\r").await;
    shell.until("43 132").await;
    // The host's terminal is raw, so Ctrl-C goes to the guest.
    assert_ne!(settings(&shell.pty), shell.before);
    // Its output shows that it is in the foreground. Before that, the key would not reach it.
    shell.send("sh -c 'echo in\"\"side; exec sleep 1000'; echo inter''rupted $?\r").await;
    shell.until("inside").await;
    shell.send("\x03").await;
    shell.until("#").await;
    shell.send("echo al''ive\r").await;
    shell.until("alive").await;
    shell.send("exit 42\r").await;
    assert_eq!(shell.finish().await, 42);
    end(&cli, job, "seat").await;
}

#[tokio::test]
async fn the_escape_sequence_leaves() {
    let cli = Cli::new(METASERVICE);
    let job = start(&cli, "left");
    let mut shell = Session::start(&cli, &["shell", "left", "sh", "-c", "echo he''re; cat"]);
    shell.until("here").await;
    // An incomplete sequence goes to the guest. The complete one does not.
    shell.send("\x10x\r").await;
    shell.until("x").await;
    shell.send("\x10\x11").await;
    assert_eq!(shell.finish().await, 0);

    let own = ["shell", "--detach-keys", "~,.", "left", "sh", "-c", "echo he''re; cat"];
    let mut shell = Session::start(&cli, &own);
    shell.until("here").await;
    shell.send("~.").await;
    assert_eq!(shell.finish().await, 0);
    end(&cli, job, "left").await;
}

#[tokio::test]
async fn the_terminal_is_restored_when_its_machine_or_its_tool_is_killed() {
    let cli = Cli::new(METASERVICE);
    let mut job = start(&cli, "doomed");
    let mut shell = Session::start(&cli, &["shell", "doomed", "sh", "-c", "echo he''re; cat"]);
    shell.until("here").await;
    assert_ne!(settings(&shell.pty), shell.before);
    let pid = shell.child.id().unwrap().to_string();
    let killed = std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    assert!(killed.success());
    assert_eq!(shell.finish().await, 143);

    let mut shell = Session::start(&cli, &["shell", "doomed", "sh", "-c", "echo he''re; cat"]);
    shell.until("here").await;
    job.signal(Signal::KILL);
    job.child.wait().unwrap();
    shell.until("the job doomed has ended").await;
    assert_eq!(shell.finish().await, 125);
    cli.wait_for_exits();
    cli.run(&["rm", "doomed"]).text(0);
}

#[tokio::test]
async fn without_a_terminal_signals_and_ends_go_through() {
    let cli = Cli::new(METASERVICE);
    let job = start(&cli, "plain");
    let refused = cli.run(&["exec", "-it", "plain", "sh"]);
    assert_eq!(refused.status, Some(125));
    assert!(refused.stderr.contains("-t with -i needs a terminal"), "{}", refused.stderr);
    assert_eq!(refused.stderr.lines().count(), 2, "{}", refused.stderr);

    let script = "trap 'echo told; exit 7' INT; echo ready; while :; do sleep 1; done";
    let mut child = cli.command(["exec", "plain", "sh", "-c", script]).spawn().unwrap();
    let mut line = [0; 6];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let finished = finish(child);
    assert_eq!((finished.status, finished.stdout.as_slice()), (Some(7), &b"told\n"[..]));

    // The end of the tool's standard input is the end of the command's.
    let mut child =
        cli.command(["exec", "-i", "plain", "wc", "-c"]).stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"12345").unwrap();
    assert_eq!(finish(child).text(0).trim(), "5");

    for (command, status) in [("exit 42", 42), ("kill -9 $$", 137)] {
        assert_eq!(cli.run(&["exec", "plain", "sh", "-c", command]).status, Some(status));
    }
    assert_eq!(cli.run(&["exec", "plain", "/no/such"]).status, Some(127));
    assert_eq!(cli.run(&["exec", "plain", "/etc"]).status, Some(126));
    end(&cli, job, "plain").await;
}

/// Output of a command without a terminal is sanitized on a terminal, and unchanged elsewhere.
#[tokio::test]
async fn a_terminal_that_was_not_given_is_not_written_to_by_a_guest() {
    let cli = Cli::new(METASERVICE);
    let job = start(&cli, "calm");
    let script = r"printf 'out\033[2J\302\2331m\303\244\n'; printf 'err\033]0;x\007\n' >&2; exit 3";
    let exec = ["exec", "calm", "sh", "-c", script];
    for line in ["out\u{fffd}[2J\u{fffd}1m\u{e4}\r\n", "err\u{fffd}]0;x\u{fffd}\r\n"] {
        let mut shown = Session::start(&cli, &exec);
        shown.until(line).await;
        assert_eq!(shown.finish().await, 3);
    }
    let piped = cli.run(&exec);
    assert_eq!(piped.stdout, b"out\x1b[2J\xc2\x9b1m\xc3\xa4\n");
    assert_eq!(piped.stderr, "err\x1b]0;x\x07\n");

    let mut refused = Session::start(&cli, &["cp", "calm:/etc", "-"]);
    refused.until("an archive is not written to a terminal").await;
    assert_eq!(refused.finish().await, 125);
    end(&cli, job, "calm").await;
}

/// A command can have a terminal without input.
#[tokio::test]
async fn a_terminal_without_input_is_one_for_output() {
    let cli = Cli::new(METASERVICE);
    let job = start(&cli, "shown");
    // The guest does not know this type.
    for (term, known) in [("no-such-type", "xterm-256color"), ("dumb", "dumb")] {
        let exec = ["exec", "-t", "shown", "sh", "-c", "tty; echo $TERM; stty size"];
        let shown = finish(cli.command(exec).env("TERM", term).spawn().unwrap()).text(0);
        assert!(shown.starts_with("/dev/pts/"), "{shown}");
        assert!(shown.ends_with(&format!("\r\n{known}\r\n24 80\r\n")), "{shown}");
    }
    // No answer comes to the prompt of the user.
    let asks = ["exec", "-t", "shown", "printf", "one\\033[6ntwo\\n"];
    let mut asking = Session::start(&cli, &asks);
    asking.until("onetwo").await;
    assert_eq!(asking.finish().await, 0);
    let exec = ["exec", "-t", "shown", "sh", "-c", "stty size; echo he''re; sleep 1000"];
    let mut shell = Session::start(&cli, &exec);
    shell.until("31 97\r\n").await;
    shell.until("here\r\n").await;
    // Lines are shown unchanged, and Ctrl-C still ends the tool.
    assert_ne!(settings(&shell.pty), shell.before);
    shell.send("\x03").await;
    assert_eq!(shell.finish().await, 130);
    end(&cli, job, "shown").await;
}

#[tokio::test]
async fn a_command_that_ignores_a_signal_holds_its_client_for_seconds() {
    let cli = Cli::new(METASERVICE);
    let job = start(&cli, "deaf");
    let script = "trap '' TERM; echo ready; while :; do sleep 1; done";
    let mut child = cli.command(["exec", "deaf", "sh", "-c", script]).spawn().unwrap();
    let mut line = [0; 6];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(finish(child).status, Some(143));
    end(&cli, job, "deaf").await;
}
