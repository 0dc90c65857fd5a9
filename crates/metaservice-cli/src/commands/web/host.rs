//! The jobs of this user on this host, for the page.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use metaservice::StoredLog;
use metaservice_image::ImageStore;
use metaservice_sandbox::control::{self, ControlError};
use metaservice_sandbox::history::{self, PastArtifact, PastJob};
use metaservice_sandbox::{JobsWatch, ListedJob};
use metaservice_web::{
    Artifact, ArtifactBody, EndedJob, Fleet, Found, Image, Listing, Place, Reached, Source,
    SourceError, Trust,
};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::watch;
use tokio_util::io::ReaderStream;

use super::spec;
use crate::commands::prune::is_older;

/// How much a job that does not start may say.
const MAX_ERROR: u64 = 4096;

/// The jobs of this user on this host.
pub(super) struct Host;

impl Source for Host {
    fn place(&self) -> Place {
        Place::Host(rustix::system::uname().nodename().to_string_lossy().into_owned())
    }

    fn follow(&self, lists: watch::Sender<Listing>) -> BoxFuture<'static, SourceError> {
        Box::pin(async move {
            let following = async {
                let mut jobs = JobsWatch::open()?;
                loop {
                    let list = Listing::new(jobs.next().await?.iter().filter_map(row).collect());
                    // What is the same is not sent again.
                    lists.send_if_modified(|known| {
                        let changed = *known != list;
                        *known = list;
                        changed
                    });
                }
            };
            let Err::<std::convert::Infallible, ControlError>(error) = following.await;
            SourceError::Failed(error.into())
        })
    }

    fn find<'a>(
        &'a self,
        name: &'a str,
        attempt: Option<u32>,
    ) -> BoxFuture<'a, Result<Found, SourceError>> {
        Box::pin(async move {
            // A job of a host has one attempt, without a number.
            if attempt.is_some() {
                return Err(SourceError::NotFound);
            }
            match control::lookup(name).await {
                Ok(control::Found::Running(client)) => Ok(Found::Running(Reached::here(client))),
                Ok(control::Found::Ended(past)) => {
                    let ended = tokio::task::block_in_place(|| ended(*past));
                    Ok(Found::Ended(Box::new(ended)))
                }
                Ok(_) | Err(ControlError::NotFound { .. }) => Err(SourceError::NotFound),
                Err(error) => Err(SourceError::Failed(error.into())),
            }
        })
    }

    fn log<'a>(
        &'a self,
        job: &'a EndedJob,
    ) -> BoxFuture<'a, Result<Option<StoredLog>, SourceError>> {
        Box::pin(async move {
            let Some(directory) = &job.directory else { return Ok(None) };
            // A job that left no log has none.
            Ok(tokio::task::block_in_place(|| history::stored_log(directory).ok()))
        })
    }

    fn run(&self, spec: Value, trust: Trust) -> BoxFuture<'_, Result<String, SourceError>> {
        Box::pin(async move {
            let spec = spec::read(spec)?;
            if trust == Trust::User {
                spec::check_paths(&spec)?;
                self.check_image(spec.machine.image.as_deref()).await?;
            }
            // A job that has begun to start does not end with the browser. The start takes a limited
            // time.
            tokio::spawn(start(json!(spec)))
                .await
                .map_err(|error| SourceError::Failed(error.into()))?
        })
    }

    fn retry<'a>(
        &'a self,
        job: &'a EndedJob,
        trust: Trust,
    ) -> BoxFuture<'a, Result<String, SourceError>> {
        Box::pin(async move {
            if !job.job.env.is_empty() {
                let names = job.job.env.join(", ");
                let text = format!("the values of its variables are not kept: {names}");
                return Err(SourceError::Refused(text));
            }
            let mut spec = job.spec.clone();
            // The log of the job that has ended stays.
            if let Some(members) = spec.as_object_mut() {
                members.remove("name");
            }
            self.run(spec, trust).await
        })
    }

    fn cancel<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), SourceError>> {
        Box::pin(async { Err(SourceError::Unsupported) })
    }

    fn remove<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), SourceError>> {
        Box::pin(async move { control::remove(name, false).await.map_err(refused) })
    }

    fn prune(&self, age: Duration) -> BoxFuture<'_, Result<usize, SourceError>> {
        let is_old = move |past: &PastJob| age.is_zero() || is_older(past, age, SystemTime::now());
        Box::pin(async move { Ok(control::prune(is_old).await.map_err(refused)?.len()) })
    }

    fn images(&self) -> BoxFuture<'_, Result<Vec<Image>, SourceError>> {
        Box::pin(async {
            let listed = tokio::task::block_in_place(|| ImageStore::of_user()?.list());
            let (images, _) = listed.map_err(|error| SourceError::Failed(error.into()))?;
            let named = images.iter().flat_map(|image| {
                let size = Some(image.occupied);
                image.names.iter().map(move |name| Image { name: name.to_string(), size })
            });
            Ok(named.collect())
        })
    }

    fn artifact<'a>(
        &'a self,
        job: &'a EndedJob,
        name: &'a str,
    ) -> BoxFuture<'a, Result<ArtifactBody, SourceError>> {
        Box::pin(async move {
            let wanted =
                job.artifacts.iter().find(|artifact| artifact.name.as_deref() == Some(name));
            let path = wanted.and_then(|artifact| artifact.to.as_deref());
            let path = path.ok_or(SourceError::NotFound)?;
            let file = tokio::task::block_in_place(|| plain_file(Path::new(path)));
            let file = file.ok_or_else(|| SourceError::Refused(format!("{path} is gone")))?;
            Ok(ReaderStream::new(tokio::fs::File::from_std(file)).boxed())
        })
    }

    fn fleet(&self, _: watch::Sender<Fleet>) -> Option<BoxFuture<'static, SourceError>> {
        None
    }
}

impl Host {
    /// A name that is none of the store can be that of a file.
    async fn check_image(&self, image: Option<&Path>) -> Result<(), SourceError> {
        let Some(image) = image else { return Ok(()) };
        let known = self.images().await?;
        match known.iter().any(|known| Path::new(&known.name) == image) {
            true => Ok(()),
            false => Err(SourceError::Refused(format!("there is no image {}", image.display()))),
        }
    }
}

fn row(job: &ListedJob) -> Option<metaservice_web::ListedJob> {
    use metaservice_web::ListedJob as Row;
    match job {
        ListedJob::Running(job) => Some(Row::running(job)),
        ListedJob::Ended(past) => Some(Row::ended(&past.job, past.ended_ms)),
        ListedJob::Silent { name, .. } => Some(Row::silent(name)),
        _ => None,
    }
}

fn ended(past: PastJob) -> EndedJob {
    let mut ended = EndedJob::of(past.job.clone());
    // What it did not leave is not there.
    ended.network = past.network_log().ok();
    ended.artifacts = past.artifacts.iter().enumerate().map(artifact).collect();
    (ended.ended_ms, ended.end, ended.error) = (past.ended_ms, past.end, past.error);
    (ended.console, ended.spec) = (past.console, past.spec);
    ended.directory = Some(past.directory);
    ended
}

/// An artifact. The page can fetch one that is a file.
fn artifact((number, artifact): (usize, &PastArtifact)) -> Artifact {
    let PastArtifact { path, to, bytes, error, .. } = artifact;
    let name = to.file_name().map(|name| name.to_string_lossy());
    let name = name.filter(|_| error.is_none() && to.is_absolute() && plain_file(to).is_some());
    Artifact {
        path: path.clone(),
        to: to.to_str().map(str::to_owned),
        bytes: *bytes,
        error: error.clone(),
        name: name.map(|name| format!("{}-{name}", number + 1)),
    }
}

/// A file that is none of the other things that a path can name.
fn plain_file(path: &Path) -> Option<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).ok()?;
    let file = File::options().read(true).custom_flags(flags).open(path).ok()?;
    file.metadata().ok()?.is_file().then_some(file)
}

fn refused(error: ControlError) -> SourceError {
    match error {
        ControlError::NotFound { .. } => SourceError::NotFound,
        ControlError::Running(_) => SourceError::Refused("the job runs".to_owned()),
        error => SourceError::Failed(error.into()),
    }
}

/// Starts a job in the background, in a process of its own, as `run --detach` does.
async fn start(spec: Value) -> Result<String, SourceError> {
    let failed = |error: std::io::Error| SourceError::Failed(error.into());
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command
        .args(["--quiet", "run", "--detach", "--spec", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let (Some(mut stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(SourceError::Unsupported);
    };
    let told = async {
        let _ = stdin.write_all(spec.to_string().as_bytes()).await;
        drop(stdin);
    };
    let ((), name, error, status) = tokio::join!(told, begin(stdout), begin(stderr), child.wait());
    if status.map_err(failed)?.success() {
        return Ok(name.trim().to_owned());
    }
    Err(SourceError::Refused(spec::message(&error)))
}

/// What a process says first. The rest is read too, so that the process does not wait.
async fn begin(mut output: impl AsyncRead + Unpin) -> String {
    let mut bytes = Vec::new();
    // An error is an end.
    let _ = (&mut output).take(MAX_ERROR).read_to_end(&mut bytes).await;
    let _ = tokio::io::copy(&mut output, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&bytes).into_owned()
}
