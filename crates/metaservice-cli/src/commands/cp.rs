//! `metaservice cp SRC DEST`: files and folders between a guest and here.

use anyhow::{Result, bail};

use crate::args::CpArgs;
use crate::copy::{self, How, Place};
use crate::interrupts::Interrupts;
use crate::printer::Printer;
use crate::sockets;
use crate::status::ExitStatus;

pub(crate) async fn cp(args: CpArgs, printer: Printer) -> Result<ExitStatus> {
    let source = Place::parse(&args.source)?;
    let destination = Place::parse(&args.destination)?;
    let how = How { follow: args.follow_link, set_id: args.set_id };
    let mut interrupts = Interrupts::listen()?;
    let copying = async {
        match (source, destination) {
            (Place::Guest { .. }, Place::Guest { .. }) => {
                bail!("SRC and DEST are both in a guest: copy to the host, and from there")
            }
            (Place::Guest { job, path }, to) => {
                let client = sockets::find(&job).await?;
                copy::fetch(&client, &path, to, how, printer).await
            }
            (from, Place::Guest { job, path }) => {
                let client = sockets::find(&job).await?;
                copy::send(&client, from, &path, how, printer).await
            }
            _ => bail!("one of SRC and DEST must be in a guest, as JOB:PATH"),
        }
    };
    // Dropping a copy removes what it has begun.
    tokio::select! {
        copied = copying => copied.map(|()| ExitStatus::SUCCESS),
        interrupt = interrupts.next() => Ok(ExitStatus::signal(interrupt.number)),
    }
}
