//! A second host with public addresses, on a cable that only one test has.
//!
//! ```text
//!   near: the tool                      far: the servers
//!   11.0.0.1, 10.0.0.1, 2a00:e::1 ───── 11.0.0.2, 10.0.0.2, 2a00:e::2
//! ```
//!
//! Each side has a network of its own: no address and no port of this machine is used. The near
//! side also has its own `/etc/hosts`. A test without root gets them in a user namespace. The
//! programs `ip`, `unshare` and `nsenter` are needed.
//!
//! ```no_run
//! use metaservice_testing::cli::{Cli, finish};
//! use metaservice_testing::outside::{FAR, Outside};
//!
//! # const METASERVICE: &str = "";
//! let cli = Cli::new(METASERVICE);
//! let outside = Outside::start(&cli.work(), &format!("{FAR} a.example\n"));
//! let _server = outside.serve(outside.far("python3").arg("server.py"));
//! let run = cli.command(["run", "--allow-net", "a.example", "--", "wget", "http://a.example/"]);
//! assert_eq!(finish(outside.near(&run).spawn().unwrap()).status, Some(0));
//! ```

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use crate::wait::TIMEOUT;

/// The public address of the far side.
pub const FAR: Ipv4Addr = Ipv4Addr::new(11, 0, 0, 2);
/// The private address of the far side.
pub const FAR_PRIVATE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// Writes its process id as this machine knows it, and stays until its stdin ends: at the latest
/// with the process of the test.
const HOLD: &str = "read -r pid rest < /proc/self/stat; echo \"$pid\"; exec cat";

/// The tool's side: a cable whose other end waits, and the names.
const NEAR: &str = "mount --bind \"$1\" /etc/hosts\n\
                    ip link set lo up\n\
                    ip link add near type veth peer name far\n\
                    ip address add 11.0.0.1/24 dev near\n\
                    ip address add 10.0.0.1/24 dev near\n\
                    [ ! -e /proc/net/if_inet6 ] || ip address add 2a00:e::1/64 dev near nodad\n\
                    ip link set near up";

/// The servers' side, once the end of the cable is there.
const FAR_LINK: &str = "ip link set lo up\n\
                        ip address add 11.0.0.2/24 dev far\n\
                        ip address add 10.0.0.2/24 dev far\n\
                        [ ! -e /proc/net/if_inet6 ] || ip address add 2a00:e::2/64 dev far nodad\n\
                        ip link set far up";

/// Both sides. Dropping it ends all processes of the far side.
#[derive(Debug)]
pub struct Outside {
    // The far side ends first: it was made within the near one.
    far: Namespace,
    near: Namespace,
}

/// A network of its own, and a process that keeps it.
#[derive(Debug)]
struct Namespace {
    holder: Child,
    stdin: Option<ChildStdin>,
    /// The options with which `nsenter` enters it.
    options: Vec<String>,
}

/// A server of the far side. It ends with that side.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// The lines of its stdout after the first one.
    pub lines: Receiver<String>,
}

impl Outside {
    /// Makes both sides. `hosts` is the `/etc/hosts` of the near one, besides `localhost`. The
    /// file is in `directory`.
    pub fn start(directory: &Path, hosts: &str) -> Self {
        let file = directory.join("hosts");
        std::fs::write(&file, format!("127.0.0.1 localhost\n{hosts}")).unwrap();
        let root = rustix::process::geteuid().is_root();
        let mut unshare = Command::new("unshare");
        let mut enter: Vec<_> = ["--net", "--mount"].map(str::to_owned).into();
        if !root {
            unshare.arg("--map-root-user");
            enter.extend(["--user", "--preserve-credentials"].map(str::to_owned));
        }
        unshare.args(["--net", "--mount", "sh", "-ec", &format!("{NEAR}\n{HOLD}"), "sh"]);
        let near = Namespace::hold(unshare.arg(file), &enter);
        let mut unshare = near.command("unshare");
        unshare.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", HOLD]);
        enter.push("--pid".to_owned());
        let far = Namespace::hold(&mut unshare, &enter);
        let mut link = near.command("ip");
        succeed(link.args(["link", "set", "far", "netns"]).arg(far.pid()));
        succeed(far.command("sh").args(["-ec", FAR_LINK]));
        Self { far, near }
    }

    /// Returns a command of the tool, as it runs on the near side. Its stdin is empty, its stdout
    /// and stderr are pipes.
    pub fn near(&self, tool: &Command) -> Command {
        let mut command = self.near.command("sh");
        // The directory is entered again: in the new namespace, a path leads to its new mounts.
        command.args(["-c", "cd \"$0\" && exec \"$@\""]);
        command.arg(tool.get_current_dir().unwrap_or(Path::new("/")));
        command.arg(tool.get_program()).args(tool.get_args());
        for (name, value) in tool.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        // A proxy of this machine is not on the cable.
        for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Returns a command that runs on the far side.
    pub fn far(&self, program: impl AsRef<OsStr>) -> Command {
        self.far.command(program)
    }

    /// Starts a server, and waits until it has written a line to stdout.
    #[track_caller]
    pub fn serve(&self, command: &mut Command) -> Server {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        // It reads to the end, so that the server never waits for a reader.
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let first = lines.recv_timeout(TIMEOUT);
        assert!(first.is_ok(), "the server has not started: {command:?}");
        Server { child, lines }
    }
}

impl Namespace {
    /// Starts its holder, whose first line is the process id.
    fn hold(holder: &mut Command, enter: &[String]) -> Self {
        let mut holder = holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut pid = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut pid).unwrap();
        assert!(!pid.is_empty(), "no network of its own can be made");
        let target = ["--target", pid.trim()].map(str::to_owned);
        let options = target.into_iter().chain(enter.iter().cloned()).collect();
        Self { stdin: holder.stdin.take(), holder, options }
    }

    fn pid(&self) -> &str {
        &self.options[1]
    }

    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(&self.options).arg("--").arg(program);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.holder.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It is `nsenter` that is ended, not the server.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::Ipv4Addr;

    use super::*;
    use crate::cli::finish;

    const ECHO: &str = "import socket\n\
                        s = socket.socket(); s.bind(('11.0.0.2', 80)); s.listen()\n\
                        print('ready', flush=True)\n\
                        c = s.accept()[0]; c.sendall(b'from afar'); c.close(); print('done')";

    #[test]
    fn the_near_side_reaches_a_server_by_its_name_and_this_machine_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let outside = Outside::start(directory.path(), &format!("{FAR} a.example\n"));
        let server = outside.serve(outside.far("python3").args(["-c", ECHO]));
        let mut client = Command::new("python3");
        let script = "import os, socket; print(os.getcwd(), os.environ['A'])\n\
                      print(socket.create_connection(('a.example', 80)).recv(99))";
        client.args(["-c", script]).current_dir(directory.path()).env("A", "b");
        let text = finish(outside.near(&client).spawn().unwrap()).text(0);
        assert_eq!(text, format!("{} b\nb'from afar'\n", directory.path().display()));
        assert_eq!(server.lines.recv_timeout(TIMEOUT).unwrap(), "done");
        let interfaces = Command::new("ip").args(["-4", "-o", "addr"]).output().unwrap();
        let text = String::from_utf8(interfaces.stdout).unwrap();
        assert!(!text.contains(&Ipv4Addr::new(11, 0, 0, 1).to_string()), "{text}");
    }

    #[test]
    fn a_server_ends_with_its_side() {
        let directory = tempfile::tempdir().unwrap();
        let outside = Outside::start(directory.path(), "");
        let mut command = outside.far("sh");
        command.args(["-c", "echo ready; sleep 1000 & wait"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut first = [0; 6];
        stdout.read_exact(&mut first).unwrap();
        drop(outside);
        // The pipe ends when the last process that has it does.
        assert_eq!(stdout.read_to_end(&mut Vec::new()).unwrap(), 0);
        child.wait().unwrap();
    }
}
