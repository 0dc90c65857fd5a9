//! `metaservice web`: a page in the browser to watch and touch jobs.

mod access;
mod browser;
mod host;
mod queue;
mod spec;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Error, Result};
use clap::Args;
use metaservice_web::{BindError, Identity, Server, Settings, Source};
use serde_json::json;

use self::access::NewUserArg;
use self::browser::Opened;
use self::host::Host;
use self::queue::OfQueue;
use super::fleet::{QueueArgs, StoreArgs};
use crate::hints::hinted;
use crate::interrupts::Interrupts;
use crate::output;
use crate::output::printer::Printer;
use crate::status::ExitStatus;

/// The heading of the options in the help.
const OTHERS: &str = "Options for other hosts and users";

const HELP: &str = "\
Examples:
  metaservice web
  metaservice web --listen 127.0.0.1:0 --no-open
  metaservice web --queue nats://queue.example:4222
  ssh -L 7878:127.0.0.1:7878 HOST metaservice web    open the printed link on your own host

  metaservice web --auth users --add-user anna:operate    prints anna's token
  metaservice web --auth users --tls --listen 192.0.2.7:7878
  metaservice web --auth users --tls-cert web.pem --tls-key web.key --listen 0.0.0.0:443 \\
    --name jobs.example.org

The page lists the jobs of this host, or of a queue. It shows and searches their logs, opens terminals, shows and
takes files, draws what the machines use, lists what they connect to, and starts and ends jobs. The
verb ends with Ctrl-C. \"docs/how-to/web.md\" has more.";

/// Show your jobs on a web page, and work with them.
///
/// It prints a link, and opens it if there is a browser. The link lets one browser in, once; then
/// the next link is printed. Only this host can connect, unless there are TLS and users.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Web {
    /// Listen at this address. Port 0 is any free port.
    ///
    /// An address that other hosts can reach needs TLS and --auth.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7878")]
    pub(crate) listen: SocketAddr,
    /// Do not open a browser.
    #[arg(long)]
    pub(crate) no_open: bool,
    #[command(flatten)]
    pub(crate) queue: QueueArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// Let the users of this file in, each with a token, instead of one browser with the link.
    ///
    /// A line has a name, a role and the SHA-256 of the token. The role "watch" may look at jobs,
    /// "operate" may also enter, start and kill them, and "admin" may also end machines by force and
    /// remove jobs. Only the user who starts the page may use files of this host in a job.
    #[arg(long, value_name = "FILE", help_heading = OTHERS)]
    pub(crate) auth: Option<PathBuf>,
    /// Add a user to the file of --auth, print the token of the user, and end.
    ///
    /// With the role "proxy", it is the token of a proxy that says who its users are, in the header
    /// Metaservice-User, with its token in Metaservice-Proxy. "docs/how-to/web.md" has an example.
    #[arg(long, value_name = "NAME:ROLE", requires = "auth", help_heading = OTHERS)]
    pub(crate) add_user: Option<NewUserArg>,
    /// Use TLS, with a certificate that is made once for this user and these names.
    ///
    /// It prints the fingerprint: compare it with that which the browser shows.
    #[arg(long, conflicts_with = "tls_cert", help_heading = OTHERS)]
    pub(crate) tls: bool,
    /// Use TLS with this certificate (PEM), and those above it.
    #[arg(long, value_name = "FILE", requires = "tls_key", help_heading = OTHERS)]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The key of the certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = OTHERS)]
    pub(crate) tls_key: Option<PathBuf>,
    /// A name by which browsers reach the page. Repeatable. Behind a proxy, the address of the
    /// proxy: https://jobs.example.org.
    #[arg(long, value_name = "HOST", help_heading = OTHERS)]
    pub(crate) name: Vec<String>,
}

pub(crate) async fn web(args: Web, printer: Printer) -> Result<ExitStatus> {
    if let (Some(file), Some(user)) = (&args.auth, &args.add_user) {
        return access::add_user(file, user, printer);
    }
    let mut interrupts = Interrupts::listen()?;
    let settings = settings(&args)?;
    let fingerprint = settings.identity.as_ref().map(|identity| identity.fingerprint().to_owned());
    let source: Arc<dyn Source> = match args.queue.is_given() {
        true => Arc::new(OfQueue::connect(&args.queue, &args.store).await?),
        false => Arc::new(Host),
    };
    let server = Server::bind(settings, source).await.map_err(explain)?;
    let (address, mut links) = (server.address().to_string(), server.links());
    let link = links.current();
    if printer.is_json() {
        let facts = json!({ "address": address, "link": link, "fingerprint": fingerprint });
        printer.event("listening", facts);
    } else {
        output::line(&link)?;
        if let Some(fingerprint) = fingerprint {
            printer.note(&format!("the certificate has the SHA-256 fingerprint {fingerprint}"));
        }
    }
    let opened = if args.no_open || printer.is_json() { None } else { browser::open(&link) };
    let announce = announce(links, opened, printer);
    tokio::select! {
        error = server.serve() => Err(error.into()),
        () = announce => Ok(ExitStatus::SUCCESS),
        interrupt = interrupts.next() => Ok(ExitStatus::signal(interrupt.number)),
    }
}

/// Prints each next link.
async fn announce(mut links: metaservice_web::Links, opened: Option<Opened>, printer: Printer) {
    let mut opened = opened;
    while let Some(link) = links.next().await {
        // The browser has read it.
        drop(opened.take());
        if printer.is_json() {
            printer.event("link", json!({ "link": link }));
        } else {
            printer.note(&format!("a browser has opened the page; the next link is {link}"));
        }
    }
    std::future::pending::<()>().await;
}

fn settings(args: &Web) -> Result<Settings> {
    let mut settings = Settings::new(args.listen);
    settings.names = access::names(&args.name)?;
    settings.users = args.auth.as_deref().map(access::users).transpose()?;
    settings.identity = identity(args)?;
    Ok(settings)
}

fn identity(args: &Web) -> Result<Option<Identity>> {
    match (&args.tls_cert, &args.tls_key) {
        (Some(chain), Some(key)) => access::given_identity(chain, key).map(Some),
        _ if args.tls => access::own_identity(args.listen, &args.name).map(Some),
        _ => Ok(None),
    }
}

fn explain(error: BindError) -> Error {
    let hint = match &error {
        BindError::Open(address) => format!(
            "use `ssh -L {port}:127.0.0.1:{port} HOST` from another host, or give --tls and --auth",
            port = address.port()
        ),
        BindError::NoName(_) => "give the name of this host: --name HOST".to_owned(),
        BindError::Listen { .. } => "`--listen 127.0.0.1:0` takes a free port".to_owned(),
        _ => return error.into(),
    };
    hinted(hint, format!("in --listen: {:#}", Error::new(error)))
}
