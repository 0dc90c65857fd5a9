//! `metaservice web`: a page in the browser to watch jobs.

mod host;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Error, Result};
use clap::Args;
use metaservice_web::{BindError, Server};
use serde_json::json;

use self::host::Host;
use crate::hints::hinted;
use crate::interrupts::Interrupts;
use crate::output;
use crate::output::printer::Printer;
use crate::status::ExitStatus;

const HELP: &str = "\
Examples:
  metaservice web
  metaservice web --listen 127.0.0.1:0
  ssh -L 7878:127.0.0.1:7878 HOST metaservice web    open the printed link on your own host

The page lists the jobs of this host, shows and searches their logs, and can kill a job. The verb
ends with Ctrl-C.";

/// Show your jobs and their logs on a web page.
///
/// It prints a link. The link lets one browser in, once; then the next link is printed. Only this
/// host can connect.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Web {
    /// Listen at this address of the loopback interface. Port 0 is any free port.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7878")]
    pub(crate) listen: SocketAddr,
}

pub(crate) async fn web(args: Web, printer: Printer) -> Result<ExitStatus> {
    let mut interrupts = Interrupts::listen()?;
    let server = Server::bind(args.listen, Arc::new(Host)).await.map_err(explain)?;
    let (address, mut links) = (server.address().to_string(), server.links());
    let link = links.current();
    if printer.is_json() {
        printer.event("listening", json!({ "address": address, "link": link }));
    } else {
        output::line(&link)?;
    }
    let announce = async {
        while let Some(link) = links.next().await {
            if printer.is_json() {
                printer.event("link", json!({ "link": link }));
            } else {
                printer.note(&format!("a browser has opened the page; the next link is {link}"));
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        error = server.serve() => Err(error.into()),
        () = announce => Ok(ExitStatus::SUCCESS),
        interrupt = interrupts.next() => Ok(ExitStatus::signal(interrupt.number)),
    }
}

fn explain(error: BindError) -> Error {
    let hint = match &error {
        BindError::NotLoopback(address) => format!(
            "from another host, use `ssh -L {port}:127.0.0.1:{port} HOST`",
            port = address.port()
        ),
        BindError::Listen { .. } => "`--listen 127.0.0.1:0` takes a free port".to_owned(),
        _ => return error.into(),
    };
    hinted(hint, format!("in --listen: {:#}", Error::new(error)))
}
