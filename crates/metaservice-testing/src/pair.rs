//! The real agent and the service in one process, over real sockets.
//!
//! A proxy between them can cut their connections at chosen bytes.
//!
//! ```no_run
//! use metaservice_testing::pair::Pair;
//!
//! # async fn example(agent: &str) {
//! let pair = Pair::idle(agent).await;
//! let listed = pair.service.list("/tmp").files().await.unwrap();
//! # }
//! ```

use std::ffi::OsStr;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use metaservice::{Builder, MetaService};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The name of the file with the messages of the agent.
const MESSAGES: &str = "messages";

/// A service and its agent. Dropping it stops the agent, which kills its job.
pub struct Pair {
    /// The service.
    pub service: MetaService,
    /// The address that the agent connects to.
    pub address: SocketAddr,
    /// The working directory of the agent.
    pub directory: tempfile::TempDir,
    program: PathBuf,
    agent: Child,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // TERM, because the agent then ends its job too.
        let pid = Pid::from_child(&self.agent);
        let _ = kill_process(pid, Signal::TERM);
        let _ = self.agent.wait();
    }
}

impl Pair {
    /// Starts `program`, the agent, with a job that sleeps.
    pub async fn idle(program: &str) -> Self {
        Self::with(program, MetaService::builder(["sleep", "1000"]), None).await
    }

    /// As [`idle`](Self::idle), with connections that are cut.
    ///
    /// The next connection that carries more than 3,000 bytes is cut after the next number of
    /// `cuts`, in bytes. When `cuts` ends, connections hold.
    pub async fn cut(program: &str, cuts: Vec<u64>) -> Self {
        Self::with(program, MetaService::builder(["sleep", "1000"]), Some(cuts)).await
    }

    /// Starts a service from `builder`, and `program` with it.
    pub async fn with(program: &str, builder: Builder, cuts: Option<Vec<u64>>) -> Self {
        let service = builder.start().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut address = listener.local_addr().unwrap();
        tokio::spawn(service.clone().serve(listener));
        if let Some(cuts) = cuts {
            address = cutting_proxy(address, cuts).await;
        }
        let directory = tempfile::tempdir().unwrap();
        let agent = spawn_agent(program, address, directory.path(), &[]);
        service.fetched().await;
        Self { service, address, directory, program: program.into(), agent }
    }

    /// Returns what explains a failure: the files of the agent and its messages.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for entry in std::fs::read_dir(self.directory.path().join("state")).into_iter().flatten() {
            let path = entry.unwrap().path();
            let content = std::fs::read_to_string(&path).unwrap_or_default();
            text += &format!("{}: {content}\n", path.file_name().unwrap().display());
        }
        text + &self.messages()
    }

    /// What the agent has written to stderr.
    pub fn messages(&self) -> String {
        std::fs::read_to_string(self.directory.path().join(MESSAGES)).unwrap_or_default()
    }

    /// Kills the agent as a crash does, and starts it again.
    pub fn restart_agent(&mut self) {
        self.agent.kill().unwrap();
        self.agent.wait().unwrap();
        self.agent = spawn_agent(&self.program, self.address, self.directory.path(), &[]);
    }
}

/// Starts `program`, the agent, with its state below `directory`. Its messages go to a file there.
pub fn spawn_agent(
    program: impl AsRef<OsStr>,
    address: SocketAddr,
    directory: &Path,
    options: &[&str],
) -> Child {
    let messages = File::options().append(true).create(true).open(directory.join(MESSAGES));
    Command::new(program)
        .args(["--host", &address.to_string(), "--state"])
        .arg(directory.join("state"))
        .args(options)
        .stdin(Stdio::null())
        .stderr(messages.unwrap())
        .spawn()
        .unwrap()
}

/// Forwards connections to `to`. Cuts those that carry more than [`SMALL`] bytes.
///
/// Bytes count in both directions together. A cut with an even number cuts both directions. One
/// with an odd number cuts only the direction to the service, so that an answer still arrives.
async fn cutting_proxy(to: SocketAddr, cuts: Vec<u64>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let next = Arc::new(AtomicU64::new(0));
    let cuts = Arc::new(cuts);
    tokio::spawn(async move {
        loop {
            let (near, _) = listener.accept().await.unwrap();
            let (next, cuts) = (Arc::clone(&next), Arc::clone(&cuts));
            tokio::spawn(async move {
                let Ok(far) = TcpStream::connect(to).await else { return };
                carry(near, far, &next, &cuts).await;
            });
        }
    });
    address
}

/// A connection with a poll or a small reply carries less, in bytes.
const SMALL: u64 = 3000;

async fn carry(near: TcpStream, far: TcpStream, next: &AtomicU64, cuts: &[u64]) {
    let (mut near_read, mut near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    let carried = AtomicU64::new(0);
    let limit = AtomicU64::new(u64::MAX);
    let one_way = AtomicBool::new(false);
    let over = |count: usize| {
        let carried = carried.fetch_add(count as u64, Ordering::SeqCst) + count as u64;
        if carried > SMALL && limit.load(Ordering::SeqCst) == u64::MAX {
            let cut = usize::try_from(next.fetch_add(1, Ordering::SeqCst)).unwrap();
            one_way.store(cut % 2 == 1, Ordering::SeqCst);
            limit.store(cuts.get(cut).map_or(u64::MAX - 1, |cut| SMALL + cut), Ordering::SeqCst);
        }
        carried > limit.load(Ordering::SeqCst)
    };
    let up = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = near_read.read(&mut buffer).await {
            if over(count) {
                if one_way.load(Ordering::SeqCst) {
                    break;
                }
                return true;
            }
            if far_write.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
        let _ = far_write.shutdown().await;
        false
    };
    let down = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = far_read.read(&mut buffer).await {
            if over(count) && !one_way.load(Ordering::SeqCst) {
                return true;
            }
            if near_write.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
        let _ = near_write.shutdown().await;
        false
    };
    // A cut of both directions returns, and so drops the streams.
    tokio::pin!(up, down);
    tokio::select! {
        cut = &mut up => if !cut { down.await; },
        cut = &mut down => if !cut { up.await; },
    }
}
