//! A test harness: it boots one virtual machine and runs three commands in it, like a test suite
//! of an operating system.
//!
//!     cargo run -p metaservice-examples --bin harness

use std::error::Error;

use metaservice_sandbox::Sandbox;
use tokio::io::AsyncReadExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The job only keeps the machine running. The tests run beside it.
    let sandbox = Sandbox::builder().command(["sleep", "infinity"]).start().await?;
    for command in ["uname -r", "grep -c ^processor /proc/cpuinfo", "test -d /proc/self"] {
        let mut shell = sandbox.service().exec_shell(["sh", "-c", command], false).await?;
        let mut output = String::new();
        if let Some(mut stdout) = shell.stdout.take() {
            stdout.read_to_string(&mut output).await?;
        }
        let verdict = if shell.wait().await? { "passed" } else { "FAILED" };
        println!("{verdict}: {command}: {}", output.trim_end());
    }
    sandbox.stop().await;
    Ok(())
}
