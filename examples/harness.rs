//! A test harness: it boots one virtual machine and runs three commands in it, like a test suite
//! of an operating system.
//!
//!     cargo run -p metaservice-examples --bin harness -- path/to/metaservice-guest

use std::error::Error;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use metaservice::MetaService;
use metaservice_nic::{Config, Connection, Nic};
use metaservice_qemu::{Boot, Card, MacAddress, Machine, MachineSpec, initramfs};
use tokio::io::AsyncReadExt;

/// The network card of the machine as a listener. Only the guest can connect.
struct Guest(Nic);

impl metaservice::Listener for Guest {
    type Io = Connection;
    type Addr = ();

    async fn accept(&mut self) -> (Connection, ()) {
        match self.0.accept().await {
            Some(connection) => (connection, ()),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let agent = std::env::args().nth(1).ok_or("usage: harness AGENT")?;
    let report = metaservice_qemu::find();
    let tools = report.require()?;
    let contents = initramfs::Contents::new(std::fs::read(agent)?, &tools);
    let boot = Boot::from_kernel(&tools.kernel).initramfs(initramfs::build(&contents)?);

    // The job only keeps the machine running. The tests run beside it.
    let service = MetaService::builder(["sleep", "3600"]).start()?;
    let (host, guest) = UnixStream::pair()?;
    host.set_nonblocking(true)?;
    let (nic, driver) =
        metaservice_nic::attach(tokio::net::UnixStream::from_std(host)?, Config::default());
    tokio::spawn(driver.run());
    tokio::spawn(service.clone().serve(Guest(nic)));
    let card = Card::new(guest.into(), MacAddress::random());
    let machine = Machine::start(MachineSpec::new(&tools.qemu, boot).card(card)).await?;

    for command in ["uname -r", "grep -c ^processor /proc/cpuinfo", "test -d /proc/self"] {
        let mut shell = service.exec_shell(["sh", "-c", command], false).await?;
        let mut output = String::new();
        if let Some(mut stdout) = shell.stdout.take() {
            stdout.read_to_string(&mut output).await?;
        }
        let verdict = if shell.wait().await? { "passed" } else { "FAILED" };
        println!("{verdict}: {command}: {}", output.trim_end());
    }

    service.kill_process().await?;
    service.result().await;
    service.shutdown().await?;
    println!("{}", machine.power_down(Duration::from_secs(10)).await.cause);
    Ok(())
}
