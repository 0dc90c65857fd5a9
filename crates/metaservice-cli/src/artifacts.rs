//! Files of the guest's, stored under the names that the user gave.
//!
//! A file is written beside its destination and renamed into place when it is whole:
//! there is never half a file under the asked name, and what was there before stays
//! until then.

use std::path::Path;

use anyhow::{Context, Result, bail};
use metaservice::{Artifact, ArtifactError, MetaService};
use serde_json::json;

use crate::printer::Printer;
use crate::settings::ArtifactSettings;

/// Fetches them all, in order. What fails does not keep the others from being fetched.
///
/// # Errors
/// When one or more could not be fetched; each has been told.
pub(crate) async fn fetch(
    service: &MetaService,
    artifacts: &[ArtifactSettings],
    printer: Printer,
) -> Result<()> {
    let mut missing = 0;
    for artifact in artifacts {
        let spinner = printer.spinner(format!("fetching {}", artifact.source));
        let fetched = fetch_one(service, artifact).await;
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

async fn fetch_one(service: &MetaService, artifact: &ArtifactSettings) -> Result<u64> {
    let content = match service.get_artifact(&*artifact.source).await {
        Ok(content) => content,
        Err(ArtifactError::NotFound) => bail!("the guest has no such plain file"),
        Err(error) => return Err(error.into()),
    };
    let length = content.len();
    let destination = artifact.destination.clone();
    let content = Artifact::into_std(content).await;
    tokio::task::spawn_blocking(move || store(content, &destination)).await??;
    Ok(length)
}

fn store(mut content: std::fs::File, destination: &Path) -> Result<()> {
    let folder = destination.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mut write = || -> std::io::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        // The umask takes from this what the user does not want.
        let permissions = std::fs::Permissions::from_mode(0o666);
        let mut builder = tempfile::Builder::new();
        let mut file =
            builder.prefix(".metaservice-").permissions(permissions).tempfile_in(folder)?;
        std::io::copy(&mut content, file.as_file_mut())?;
        file.persist(destination)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", destination.display()))
}
