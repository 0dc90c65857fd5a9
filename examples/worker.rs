//! A minimal worker: it serves one job to the guest that connects, prints the log as it comes,
//! kills the command after a timeout, and exits with the status of the job.
//!
//!     cargo run -p metaservice-examples --bin worker -- 127.0.0.1:8080 make test

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use metaservice::MetaService;
use tokio::net::TcpListener;

/// The timeout of the job.
const TIMEOUT: Duration = Duration::from_secs(3600);

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().ok_or("usage: worker IP:PORT COMMAND [ARGUMENT]...")?;

    let service = MetaService::builder(arguments).log(tokio::io::stdout()).start()?;
    let listener = TcpListener::bind(address).await?;
    eprintln!("a guest may connect to {}", listener.local_addr()?);
    let serving = tokio::spawn(service.clone().serve(listener));

    service.fetched().await;
    if tokio::time::timeout(TIMEOUT, service.result()).await.is_err() {
        service.kill().await?;
    }
    let result = service.result().await;
    service.shutdown().await?;
    // Wait until the last request of the guest has been answered.
    serving.await?;
    Ok(ExitCode::from(result.status()))
}
