//! A real machine whose connections break at random bytes. Files that are copied in and out arrive
//! unchanged.
#![allow(clippy::unwrap_used)]

use std::io;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use metaservice::{Destination, Form, MetaService};
use metaservice_nic::{Config, Connection, Nic};
use metaservice_qemu::{Boot, Card, MacAddress, Machine, MachineSpec, Memory, initramfs};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// How many connections are cut before the line is left alone.
const CUTS: u64 = 40;

/// The machine's card; the connections that it gives break.
struct Breaking {
    nic: Nic,
    left: Arc<AtomicU64>,
    random: Arc<Mutex<u64>>,
}

/// A connection that ends without a word after some bytes, counted in both directions.
struct Cut {
    connection: Connection,
    left: u64,
    cut: bool,
    cuts: Arc<AtomicU64>,
}

impl Breaking {
    fn random(&self) -> u64 {
        let mut state = self.random.lock().unwrap();
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }
}

impl metaservice::Listener for Breaking {
    type Stream = Cut;
    type Peer = ();

    async fn accept(&mut self) -> (Cut, ()) {
        let Some(connection) = self.nic.accept().await else { std::future::pending().await };
        // Of small conversations few are cut, of large ones all.
        let left = 2_000 + self.random() % 3_000_000;
        (Cut { connection, left, cut: false, cuts: Arc::clone(&self.left) }, ())
    }
}

impl Cut {
    fn count(&mut self, bytes: usize) -> io::Result<()> {
        let bytes = bytes as u64;
        if bytes > self.left && !self.cut {
            self.cut = self
                .cuts
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                .is_ok();
        }
        self.left = self.left.saturating_sub(bytes);
        if self.cut { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }
}

impl AsyncRead for Cut {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.count(0)?;
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut self.connection).poll_read(cx, buf))?;
        let count = buf.filled().len() - before;
        Poll::Ready(self.count(count))
    }
}

impl AsyncWrite for Cut {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.count(0)?;
        let count = std::task::ready!(Pin::new(&mut self.connection).poll_write(cx, buf))?;
        self.count(count)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}

async fn boot(service: &MetaService, seed: u64) -> (Machine, Arc<AtomicU64>) {
    let report = metaservice_qemu::find();
    let tools = report.require().unwrap();
    let agent = metaservice_sandbox::AGENT.to_vec();
    let initramfs = initramfs::build(&initramfs::Contents::new(agent, &tools)).unwrap();
    let boot = Boot::from_kernel(&tools.kernel).initramfs(initramfs);
    let (host, guest) = UnixStream::pair().unwrap();
    host.set_nonblocking(true).unwrap();
    let host = tokio::net::UnixStream::from_std(host).unwrap();
    let (nic, driver) = metaservice_nic::attach(host, Config::default());
    tokio::spawn(driver.run());
    let left = Arc::new(AtomicU64::new(0));
    let random = Arc::new(Mutex::new(seed));
    let listener = Breaking { nic, left: Arc::clone(&left), random };
    tokio::spawn(service.clone().serve(listener));
    let card = Card::new(guest.into(), MacAddress::random());
    let spec = MachineSpec::new(&tools.qemu, boot).card(card).memory(Memory::parse("1G").unwrap());
    (Machine::start(spec).await.unwrap(), left)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_and_directories_go_through_a_line_that_breaks_at_random_bytes() {
    let mut seed = [0; 8];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut r| io::Read::read_exact(&mut r, &mut seed))
        .unwrap();
    let seed = u64::from_ne_bytes(seed) | 1;
    println!("the seed is {seed:#x}");
    let service = MetaService::builder(["sleep", "1000"]).start().unwrap();
    let (machine, left) = boot(&service, seed).await;
    service.fetched().await;

    let mut content = vec![0; 24 << 20];
    let mut state = seed;
    for word in content.chunks_exact_mut(8) {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        word.copy_from_slice(&state.to_le_bytes());
    }
    left.store(CUTS, Ordering::SeqCst);
    service.write(Destination::file("/tmp/file"), &content[..]).await.unwrap();
    let cut_in = CUTS - left.swap(CUTS, Ordering::SeqCst);
    let mut back = Vec::new();
    service.read("/tmp/file").open().await.unwrap().read_to_end(&mut back).await.unwrap();
    assert!(back == content, "seed {seed:#x}");

    // The machine's own modules: a tree of real files.
    let mut first = Vec::new();
    service
        .read("/lib")
        .form(Form::Archive)
        .open()
        .await
        .unwrap()
        .read_to_end(&mut first)
        .await
        .unwrap();
    let cut_out = CUTS - left.swap(CUTS, Ordering::SeqCst);
    service.write(Destination::directory("/tmp/tree"), &first[..]).await.unwrap();
    left.store(0, Ordering::SeqCst);
    let mut second = Vec::new();
    service
        .read("/tmp/tree")
        .form(Form::Archive)
        .open()
        .await
        .unwrap()
        .read_to_end(&mut second)
        .await
        .unwrap();
    assert!(first == second, "seed {seed:#x}");
    assert!(cut_in > 2 && cut_out > 2, "cut {cut_in} and {cut_out} times, seed {seed:#x}");

    service.kill().await.unwrap();
    service.result().await;
    service.shutdown().await.unwrap();
    machine.power_down(Duration::from_secs(10)).await;
}
