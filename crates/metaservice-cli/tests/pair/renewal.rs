//! An agent whose machine is saved while it waits for a job, and restored.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use metaservice::IdleService;
use metaservice_testing::wait::{for_file, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::AGENT;

/// An agent, its service, and a shell of its own.
struct Restored {
    agent: Child,
    listener: TcpListener,
    directory: tempfile::TempDir,
}

impl Drop for Restored {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

impl Restored {
    /// An agent that waited in a machine, whose connection was then reset. Its `sh` is this script,
    /// which knows its directory.
    async fn start(script: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        let shell = here.join("sh");
        let text = format!("#!/bin/sh\ncd {}\n{script}\n", here.display());
        std::fs::write(&shell, text).unwrap();
        std::fs::set_permissions(&shell, std::fs::Permissions::from_mode(0o755)).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let agent = Command::new(AGENT.as_str())
            .args(["--host", &address.to_string(), "--state"])
            .arg(here.join("state"))
            .env("PATH", format!("{}:/usr/bin:/bin", here.display()))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let idle = IdleService::new();
        let before = TcpListener::from_std(listener.try_clone().unwrap()).unwrap();
        tokio::select! {
            never = idle.clone().serve(before) => match never {},
            () = idle.waiting() => {}
        }
        let listener = TcpListener::from_std(listener).unwrap();
        Self { agent, listener, directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The next request, which is for this end-point.
    async fn request(&self, name: &str) -> TcpStream {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with(&format!("GET /engine/v1/{name} HTTP/1.1\r\n")), "{head}");
        stream
    }

    /// Gives the machine a job, and waits until its agent has begun anew. The clock of this host
    /// stays as it is.
    async fn renew(&self, mut waiting: TcpStream) {
        let json = format!(r#"{{"timeNs":0,"random":"{}"}}"#, "0".repeat(128));
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", json.len());
        waiting.write_all((head + &json).as_bytes()).await.unwrap();
        self.request("execute").await;
    }

    /// Nothing of a rehearsal is there: no directory, no process.
    fn assert_clean(&self) {
        let entries = std::fs::read_dir(self.path("state")).unwrap();
        let names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        assert!(!names.iter().any(|name| name == "shell-0"), "{names:?}");
        let id = self.agent.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        assert_eq!(children, "");
    }
}

#[tokio::test]
async fn a_machine_that_waits_rehearses_its_job() {
    let restored = Restored::start("echo done > rehearsed").await;
    let waiting = restored.request("renewal").await;
    for_file(&restored.path("rehearsed"));
    until("the rehearsal has ended", || !restored.path("state/shell-0").exists());
    restored.assert_clean();
    restored.renew(waiting).await;
}

#[tokio::test]
async fn a_job_does_not_wait_for_a_rehearsal() {
    let restored = Restored::start("echo $$ > new; mv new process; exec sleep 1000").await;
    let waiting = restored.request("renewal").await;
    for_file(&restored.path("process"));
    let process = std::fs::read_to_string(restored.path("process")).unwrap();
    restored.renew(waiting).await;
    restored.assert_clean();
    assert!(!Path::new(&format!("/proc/{}", process.trim())).exists());
}

#[tokio::test]
async fn a_machine_that_was_restored_for_a_job_begins_at_once() {
    let restored = Restored::start("echo done > rehearsed").await;
    let waiting = restored.request("renewal").await;
    restored.renew(waiting).await;
    restored.assert_clean();
    assert!(!restored.path("rehearsed").exists());
}
