//! Files of the guest's, stored under the names that the user gave.
//!
//! What fails to come leaves its place as it was.

use std::path::Path;

use anyhow::{Context, Result, bail};
use metaservice::{Artifact, ArtifactError, MetaService};
use serde_json::json;

use crate::destination::{Destination, Named};
use crate::ledger::Ledger;
use crate::printer::Printer;
use crate::settings::ArtifactSettings;

/// Fetches them all, in order. What fails does not keep the others from being fetched.
///
/// # Errors
/// When one or more could not be fetched; each has been told.
pub(crate) async fn fetch(
    service: &MetaService,
    artifacts: &[ArtifactSettings],
    ledger: &mut Ledger,
    printer: Printer,
) -> Result<()> {
    let mut missing = 0;
    for artifact in artifacts.iter().filter(|artifact| !ledger.has(artifact)).collect::<Vec<_>>() {
        let spinner = printer.spinner(format!("fetching {}", artifact.source));
        let fetched = fetch_one(service, artifact, ledger).await;
        drop(spinner);
        match fetched {
            Ok(length) => {
                let destination = artifact.destination.display();
                printer.note(&format!("{} -> {destination} ({length} bytes)", artifact.source));
                let details = json!({
                    "source": artifact.source,
                    "destination": destination.to_string(),
                    "bytes": length,
                });
                printer.event("artifact", details);
            }
            Err(error) => {
                missing += 1;
                printer.error(&error.context(format!("cannot fetch {}", artifact.source)));
            }
        }
    }
    match missing {
        0 => Ok(()),
        1 if artifacts.len() == 1 => bail!("the artifact was not fetched"),
        _ => bail!("{missing} of {} artifacts were not fetched", artifacts.len()),
    }
}

async fn fetch_one(
    service: &MetaService,
    artifact: &ArtifactSettings,
    ledger: &mut Ledger,
) -> Result<u64> {
    let content = match service.get_artifact(&*artifact.source).await {
        Ok(content) => content,
        Err(ArtifactError::NotFound) => bail!("the guest has no such plain file"),
        Err(error) => return Err(error.into()),
    };
    let length = content.len();
    let (destination, named) = (artifact.destination.clone(), artifact.named);
    let content = Artifact::into_std(content).await;
    let for_good = ledger.is_kept();
    tokio::task::spawn_blocking(move || store(content, &destination, named, for_good)).await??;
    ledger.fetched(artifact)?;
    Ok(length)
}

fn store(mut content: std::fs::File, path: &Path, named: Named, for_good: bool) -> Result<()> {
    let mut write = || -> std::io::Result<()> {
        // The umask takes from this what the user does not want.
        let destination = Destination::open(path, named, 0o666)?;
        std::io::copy(&mut content, &mut destination.file())?;
        if for_good { destination.keep_for_good() } else { destination.keep() }
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
