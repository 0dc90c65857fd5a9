//! The two, and a proxy between them that cuts.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use metaservice::{Builder, MetaService};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A service and the agent that works for it.
pub(crate) struct Pair {
    pub(crate) service: MetaService,
    agent: Child,
    pub(crate) address: SocketAddr,
    pub(crate) folder: tempfile::TempDir,
}

impl Drop for Pair {
    fn drop(&mut self) {
        // In order: what it runs dies with it.
        let pid = rustix::process::Pid::from_child(&self.agent);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.agent.wait();
    }
}

impl Pair {
    /// A pair with a job that does nothing for a long time.
    pub(crate) async fn idle() -> Self {
        Self::with(MetaService::builder(["sleep", "1000"]), None).await
    }

    /// A pair whose connections are cut, each one after so many bytes as `cuts` says, until
    /// there are no more cuts.
    pub(crate) async fn cut(cuts: Vec<u64>) -> Self {
        Self::with(MetaService::builder(["sleep", "1000"]), Some(cuts)).await
    }

    pub(crate) async fn with(builder: Builder, cuts: Option<Vec<u64>>) -> Self {
        let service = builder.start().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut address = listener.local_addr().unwrap();
        tokio::spawn(service.clone().serve(listener));
        if let Some(cuts) = cuts {
            address = cutting_proxy(address, cuts).await;
        }
        let folder = tempfile::tempdir().unwrap();
        let agent = agent(address, folder.path());
        service.fetched().await;
        Self { service, agent, address, folder }
    }

    /// What the agent has left in its folder, and what it says.
    pub(crate) fn describe(&self) -> String {
        let mut text = String::new();
        for entry in std::fs::read_dir(self.folder.path().join("state")).into_iter().flatten() {
            let path = entry.unwrap().path();
            let content = std::fs::read_to_string(&path).unwrap_or_default();
            text += &format!("{}: {content}\n", path.file_name().unwrap().display());
        }
        text + &self.describe_said()
    }

    /// What the agent has said.
    pub(crate) fn describe_said(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("said")).unwrap_or_default()
    }

    /// Kills the agent as a crash does, and starts it again.
    pub(crate) fn restart_agent(&mut self) {
        self.agent.kill().unwrap();
        self.agent.wait().unwrap();
        self.agent = agent(self.address, self.folder.path());
    }
}

pub(crate) fn agent(address: SocketAddr, folder: &Path) -> Child {
    agent_with(address, folder, &[])
}

pub(crate) fn agent_with(address: SocketAddr, folder: &Path, options: &[&str]) -> Child {
    let said = std::fs::File::options().append(true).create(true).open(folder.join("said"));
    let said = said.unwrap();
    Command::new(env!("METASERVICE_AGENT"))
        .args(["--host", &address.to_string(), "--state"])
        .arg(folder.join("state"))
        .args(options)
        .stdin(Stdio::null())
        .stderr(said)
        .spawn()
        .unwrap()
}

/// Passes connections on. Those that carry much are cut after so many bytes as the next cut says,
/// counted in both directions together: the even ones in both directions, the odd ones in that to
/// the service alone, so that an answer still comes through.
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

/// What a poll or a small reply needs: the cuts are for those that carry files.
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
    // A cut of both directions drops the streams.
    tokio::pin!(up, down);
    tokio::select! {
        cut = &mut up => if !cut { down.await; },
        cut = &mut down => if !cut { up.await; },
    }
}
