//! A test harness: it boots one virtual machine and runs three commands in it, like a test suite
//! of an operating system.
//!
//!     cargo run -p metaservice-examples --bin harness

use std::error::Error;

use metaservice_sandbox::Sandbox;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The job only keeps the machine running. The tests run beside it.
    let sandbox = Sandbox::builder().command(["sleep", "infinity"]).start().await?;
    for command in ["uname -r", "grep -c ^processor /proc/cpuinfo", "test -d /proc/self"] {
        let output = sandbox.exec(["sh", "-c", command]).output().await?;
        let verdict = if output.status.success() { "passed" } else { "FAILED" };
        println!("{verdict}: {command}: {}", String::from_utf8_lossy(&output.stdout).trim_end());
    }
    sandbox.stop().await;
    Ok(())
}
