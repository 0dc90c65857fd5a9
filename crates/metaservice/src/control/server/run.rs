//! A command that is run in one request.
//!
//! The command lives as long as its request: a client that closes the connection kills it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body as ResponseBody;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::header;
use metaservice_protocol::header::JSON_LINES_TYPE;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::extract::{Body, Query};
use super::responses::{failed, refuse};
use super::served::Served;
#[cfg(feature = "openapi")]
use crate::control::error::ApiError;
use crate::control::error::Code;
#[cfg(feature = "openapi")]
use crate::control::paths;
use crate::control::run::{Kept, OutputLines, RunEnd, RunRequest, RunResult, line};
use crate::handle::child::command::Child;
use crate::handle::child::stream::ChildOutput;
use crate::handle::error::{ChildError, ExecError};
use crate::handle::exec::Executor;

/// How many bytes of each output an answer keeps.
const OUTPUT_LIMIT: usize = 4 * 1024 * 1024;

/// The size of one read of an output, and so of a line.
const READ: usize = 64 * 1024;

/// How to answer.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
pub(crate) struct RunQuery {
    /// Answer in lines of JSON while the command runs. Each line has one of `stdout`,
    /// `stdoutBase64`, `stderr` and `stderrBase64`; the last one has `status`.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", param(required = false))]
    stream: bool,
}

/// Runs a command to its end, with its stdin in the request. Closing the connection kills it.
#[cfg_attr(feature = "openapi", utoipa::path(post, path = paths::RUN, params(RunQuery), request_body = RunRequest, responses(
    (status = 200, content(
        (RunResult = "application/json"),
        (String = "application/jsonl"),
    ), description = "what the command wrote, and how it ended; with `stream`, as lines of JSON"),
    (status = 400, body = ApiError), (status = 404, body = ApiError), (status = 409, body = ApiError),
    (status = 501, body = ApiError), (status = 502, body = ApiError), (status = 503, body = ApiError),
    (status = 504, body = ApiError),
)))]
pub(crate) async fn run(
    State(served): State<Served>,
    Query(query): Query<RunQuery>,
    Body(request): Body<RunRequest>,
) -> Response {
    let timeout = request.timeout_ms.map(Duration::from_millis);
    let (exec, stdin) = match request.parts() {
        Ok(parts) => parts,
        Err(error) => return refuse(Code::InvalidRequest, error.to_string()),
    };
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let started = tokio::select! {
        started = served.service.start(exec) => started,
        () = until(deadline) => {
            return refuse(Code::TimedOut, "the guest did not start the command within timeoutMs");
        }
    };
    let mut child = match started {
        Ok(child) => child,
        Err(error) => return failed(&error),
    };
    child.feed(stdin.into());
    if query.stream {
        let running = Running::new(child, deadline);
        let lines = stream::try_unfold(Some(running), Running::next);
        let headers = [(header::CONTENT_TYPE, JSON_LINES_TYPE)];
        return (headers, ResponseBody::from_stream(lines)).into_response();
    }
    match collect(child, deadline).await {
        Ok(result) => Json(result).into_response(),
        Err(error) => failed(&ExecError::Child(error)),
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Runs the command to its end. After the deadline it is killed, and what it wrote is kept.
async fn collect(mut child: Child, deadline: Option<Instant>) -> Result<RunResult, ChildError> {
    let (mut stdout, mut stderr) = (Kept::default(), Kept::default());
    let outputs = (child.stdout.take(), child.stderr.take());
    let end = {
        let ended = async {
            tokio::join!(keep(outputs.0, &mut stdout), keep(outputs.1, &mut stderr));
            child.wait().await
        };
        tokio::select! {
            ended = ended => RunEnd::from(ended?),
            () = until(deadline) => RunEnd::TIMED_OUT,
        }
    };
    Ok(RunResult::new(stdout, stderr, end))
}

/// Reads an output to its end, and keeps the first bytes. An output that breaks ends there: the
/// child's end has the cause.
async fn keep(output: Option<impl AsyncRead + Unpin>, kept: &mut Kept) {
    let Some(mut output) = output else { return };
    let mut buffer = vec![0; READ];
    while let Ok(count @ 1..) = output.read(&mut buffer).await {
        let room = OUTPUT_LIMIT - kept.bytes.len();
        kept.bytes.extend_from_slice(&buffer[..count.min(room)]);
        if count > room {
            kept.truncated = true;
            // Dropping the output discards the rest.
            return;
        }
    }
}

/// A command whose output is sent while it runs.
struct Running {
    child: Arc<Child>,
    /// Kills the command after its time, also while the client reads nothing.
    _timer: Option<AbortOnDropHandle<()>>,
    stdout: Output,
    stderr: Output,
}

struct Output {
    /// Until its end.
    output: Option<ChildOutput>,
    lines: OutputLines,
    buffer: Vec<u8>,
}

impl Output {
    fn new(output: Option<ChildOutput>, lines: OutputLines) -> Self {
        Self { output, lines, buffer: vec![0; READ] }
    }

    fn is_open(&self) -> bool {
        self.output.is_some()
    }

    /// The next line, `None` if there is none yet. Cancel safe.
    async fn next(&mut self) -> Option<Vec<u8>> {
        let read = match &mut self.output {
            Some(output) => output.read(&mut self.buffer).await,
            None => Ok(0),
        };
        // An output that breaks ends there: the child's end has the cause.
        let count = read.unwrap_or(0);
        if count == 0 {
            self.output = None;
        }
        self.lines.line(&self.buffer[..count], count == 0)
    }
}

impl Running {
    fn new(mut child: Child, deadline: Option<Instant>) -> Self {
        let stdout = Output::new(child.stdout.take(), OutputLines::STDOUT);
        let stderr = Output::new(child.stderr.take(), OutputLines::STDERR);
        let child = Arc::new(child);
        let timer = deadline.map(|deadline| {
            let child = Arc::clone(&child);
            AbortOnDropHandle::new(tokio::spawn(async move {
                sleep_until(deadline).await;
                child.abort();
            }))
        });
        Self { child, _timer: timer, stdout, stderr }
    }

    /// The next line, and what follows it: nothing after the last one.
    async fn next(running: Option<Self>) -> io::Result<Option<(Vec<u8>, Option<Self>)>> {
        let Some(mut running) = running else { return Ok(None) };
        let Self { child, stdout, stderr, .. } = &mut running;
        while stdout.is_open() || stderr.is_open() {
            let next = tokio::select! {
                line = stdout.next(), if stdout.is_open() => line,
                line = stderr.next(), if stderr.is_open() => line,
            };
            if let Some(next) = next {
                return Ok(Some((next, Some(running))));
            }
        }
        let end = match child.wait().await {
            // By the timer: nothing else aborts it.
            Err(ChildError::Aborted) => RunEnd::TIMED_OUT,
            // A body that is cut says that the end is unknown.
            ended => RunEnd::from(ended.map_err(io::Error::from)?),
        };
        Ok(Some((line(&end), None)))
    }
}
