//! The end-points of the job itself: its description, its log, its end.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use tokio::time::timeout;

use super::description::ForceReason;
use super::extract::{Natural, Query};
use super::responses::{failed, refuse};
use super::served::Served;
#[cfg(feature = "openapi")]
use crate::control::error::ApiError;
use crate::control::error::Code;
use crate::control::log_frame::{self, FRAMES_TYPE};
use crate::control::model::{Job, JobState, KillAnswer, Killed, MISSED_HEADER};
#[cfg(feature = "openapi")]
use crate::control::paths;
use crate::job::contact::Contact;
use crate::job::log::{LogFrom, LogItem, LogReader, LogSegment};

/// The description of the job.
#[cfg_attr(feature = "openapi", utoipa::path(get, path = paths::JOB, responses((status = 200, body = Job))))]
pub(crate) async fn job(State(served): State<Served>) -> Json<Job> {
    Json(describe(&served))
}

/// What to wait for.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
pub(crate) struct WaitQuery {
    /// The event; `ended` without it.
    #[serde(default, rename = "for")]
    #[cfg_attr(feature = "openapi", param(required = false))]
    event: WaitFor,
}

/// An event in the life of a job.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub(crate) enum WaitFor {
    /// The guest has fetched the command.
    Running,
    /// The command has ended.
    #[default]
    Ended,
}

/// The description of the job, when its command has ended, or when the guest has fetched it.
#[cfg_attr(feature = "openapi", utoipa::path(get, path = paths::WAIT, params(WaitQuery), responses(
    (status = 200, body = Job),
    (status = 400, body = ApiError),
    (status = 503, body = ApiError, description = "the service has ended before the job"),
)))]
pub(crate) async fn wait(
    State(served): State<Served>,
    Query(WaitQuery { event }): Query<WaitQuery>,
) -> Response {
    let mut terminated = served.service.terminated();
    let fetched = async {
        match event {
            WaitFor::Running => served.service.fetched().await,
            WaitFor::Ended => std::future::pending().await,
        }
    };
    let ended = async {
        let result = served.service.result().await;
        if served.description.keeps_on_failure && !result.success {
            served.description.machine.kept().await;
        }
    };
    tokio::select! {
        () = ended => {}
        () = fetched => return Json(describe(&served)).into_response(),
        _ = terminated.wait_for(|terminated| *terminated) => {}
    }
    // The service ends after the job. A task that waits for both may see the later event first, so
    // only the result counts.
    match served.service.try_result() {
        Some(_) => Json(describe(&served)).into_response(),
        None => refuse(Code::Terminated, "the service has ended before the job"),
    }
}

fn describe(served: &Served) -> Job {
    let Served { description, service, started, .. } = served;
    let result = service.try_result();
    let state = match &result {
        Some(result) if result.success => JobState::Succeeded,
        Some(_) if is_kept(served) => JobState::Kept,
        Some(_) => JobState::Failed,
        None if service.is_fetched() => match service.contact() {
            Contact::Silent | Contact::Dead => JobState::Unresponsive,
            _ => JobState::Running,
        },
        None => JobState::Waiting,
    };
    let started = started.duration_since(UNIX_EPOCH).unwrap_or_default();
    Job {
        name: description.name.clone(),
        command: description.command.as_ref().unwrap_or(&service.job.execute.command).clone(),
        stdin: service.job.execute.stdin,
        tty: service.job.execute.terminal.is_some(),
        env: match description.command {
            Some(_) => Vec::new(),
            None => service.job.execute.env.keys().cloned().collect(),
        },
        state,
        status: result.as_ref().map(crate::JobResult::status),
        ending: result.and_then(|result| result.ending),
        agent: service.agent(),
        contact: service.contact(),
        log_hole: service.log_has_hole(),
        started_ms: u64::try_from(started.as_millis()).unwrap_or(u64::MAX),
        pid: std::process::id(),
        machine: description.machine.get(),
    }
}

/// Which part of the log to read. At most one of `tail`, `sinceMs` and `offset`; without, all of
/// it.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query, rename_all = "camelCase"))]
pub(crate) struct LogQuery {
    /// The last lines: how many.
    #[cfg_attr(feature = "openapi", param(value_type = Option<u64>))]
    tail: Option<Natural>,
    /// From this time on, in milliseconds since 1970. The resolution is 1 ms, less in long logs.
    #[cfg_attr(feature = "openapi", param(value_type = Option<u64>))]
    since_ms: Option<Natural>,
    /// From this byte of the log on.
    #[cfg_attr(feature = "openapi", param(value_type = Option<u64>))]
    offset: Option<Natural>,
    /// Continue to the job's end.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", param(required = false))]
    follow: bool,
}

/// The part of the log that is kept, byte for byte. A header has the number of bytes before the
/// first one that are no longer kept. A reader that is too slow later is cut.
///
/// With the header `Accept: application/vnd.metaservice.log`, it comes in frames that say which
/// output the bytes are of and when they arrived. A frame is one byte (1 for stdout, 2 for stderr),
/// the time in milliseconds since 1970 as 8 bytes (0 if it is not known), the length as 4 bytes,
/// and the bytes. Numbers are big-endian.
#[cfg_attr(feature = "openapi", utoipa::path(get, path = paths::LOG, params(LogQuery), responses(
    (status = 200, body = Vec<u8>, content_type = "application/octet-stream",
        headers(("Metaservice-Missed" = u64, description = "bytes before the first one that are no longer kept"))),
    (status = 400, body = ApiError),
    (status = 404, body = ApiError, description = "no log is kept of this job"),
    (status = 507, body = ApiError),
)))]
pub(crate) async fn log(
    State(served): State<Served>,
    headers: HeaderMap,
    Query(query): Query<LogQuery>,
) -> Response {
    let number = |number: Option<Natural>| number.map(|Natural(number)| number);
    let from = match (number(query.tail), number(query.since_ms), number(query.offset)) {
        (None, None, None) => LogFrom::Start,
        (Some(lines), None, None) => LogFrom::Tail(lines),
        (None, Some(since), None) => {
            match SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(since)) {
                Some(since) => LogFrom::Since(since),
                None => return refuse(Code::InvalidRequest, "sinceMs is no time"),
            }
        }
        (None, None, Some(offset)) => LogFrom::Offset(offset),
        _ => return refuse(Code::InvalidRequest, "only one of tail, sinceMs and offset"),
    };
    let opened = served.service.log_reader(from, query.follow).await;
    let mut reader = match opened {
        Ok(Some(reader)) => reader,
        Ok(None) => return refuse(Code::NotFound, "no log is kept of this job"),
        Err(error) => return refuse(Code::Storage, error.to_string()),
    };
    let missed = reader.take_missed();
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    let framed = accept.flat_map(|accept| accept.split(',')).any(|kind| kind.trim() == FRAMES_TYPE);
    let kind = if framed { FRAMES_TYPE } else { "application/octet-stream" };
    let headers =
        [(header::CONTENT_TYPE.as_str(), kind.to_owned()), (MISSED_HEADER, missed.to_string())];
    let body = if framed { framed_body(reader) } else { log_body(reader) };
    (headers, body).into_response()
}

fn framed_body(reader: LogReader) -> Body {
    Body::from_stream(stream::try_unfold(reader, async |mut reader| {
        match reader.next_segment().await? {
            Some(LogSegment { missed: bytes @ 1.., .. }) => Err(overwritten(bytes)),
            Some(segment) => Ok(Some((log_frame::encode(&segment), reader))),
            None => Ok(None),
        }
    }))
}

fn log_body(reader: LogReader) -> Body {
    Body::from_stream(stream::try_unfold(reader, async |mut reader| match reader.next().await? {
        Some(LogItem::Bytes(bytes)) => Ok(Some((bytes, reader))),
        Some(LogItem::Missed(bytes)) => Err(overwritten(bytes)),
        None => Ok(None),
    }))
}

fn overwritten(bytes: u64) -> std::io::Error {
    std::io::Error::other(format!("{bytes} bytes were overwritten before they were read"))
}

/// How long the guest may take to answer the order to kill the command. After it, the machine is
/// ended.
pub const KILL_ORDER_TIMEOUT: Duration = Duration::from_secs(10);

/// How.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
pub(crate) struct KillQuery {
    /// End the machine at once, without its guest. What the guest has not sent is lost.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", param(required = false))]
    force: bool,
}

/// Kills the command and everything under it. If the guest does not take the order within 10 s, the
/// machine is ended.
#[cfg_attr(feature = "openapi", utoipa::path(post, path = paths::KILL, params(KillQuery), responses(
    (status = 200, body = KillAnswer),
    (status = 400, body = ApiError),
    (status = 501, body = ApiError, description = "the machine of this job cannot be ended"),
    (status = 502, body = ApiError), (status = 503, body = ApiError), (status = 504, body = ApiError),
)))]
pub(crate) async fn kill(State(served): State<Served>, Query(query): Query<KillQuery>) -> Response {
    let killing = served.service.kill();
    let killed = match &served.description.force {
        Some(force) if query.force || is_kept(&served) => Err((force, ForceReason::Asked)),
        None if query.force => {
            let message = "what serves this job cannot end its machine";
            return refuse(Code::Unsupported, message);
        }
        Some(force) => match timeout(KILL_ORDER_TIMEOUT, killing).await {
            Ok(killed) => Ok(killed),
            Err(_) => Err((force, ForceReason::KillNotTaken)),
        },
        None => Ok(killing.await),
    };
    let killed = match killed {
        Ok(Ok(())) => Killed::Command,
        Ok(Err(error)) => return failed(&error),
        Err((force, reason)) => {
            force.end(reason).await;
            Killed::Machine
        }
    };
    Json(KillAnswer { killed }).into_response()
}

/// Whether the command has failed and its machine is kept: then there is no command to kill.
fn is_kept(served: &Served) -> bool {
    served.description.machine.is_kept()
}

/// Which signal.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
pub(crate) struct SignalQuery {
    /// Its number on Linux.
    #[cfg_attr(feature = "openapi", param(minimum = 1, maximum = 31))]
    signal: u8,
}

/// Sends the command's main process a signal.
#[cfg_attr(feature = "openapi", utoipa::path(post, path = paths::SIGNAL, params(SignalQuery), responses(
    (status = 204, description = "it was sent"),
    (status = 400, body = ApiError),
    (status = 409, body = ApiError, description = "the command is not running"),
    (status = 501, body = ApiError), (status = 502, body = ApiError),
    (status = 503, body = ApiError), (status = 504, body = ApiError),
)))]
pub(crate) async fn signal(
    State(served): State<Served>,
    Query(query): Query<SignalQuery>,
) -> Response {
    if !(1..=31).contains(&query.signal) {
        return refuse(Code::InvalidRequest, "signals have the numbers 1 to 31");
    }
    match served.service.signal(query.signal).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => failed(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::description::Description;
    use super::*;
    use crate::MetaService;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_client_that_waits_gets_the_result_when_the_service_ends_at_once() {
        // The order in which waiters are woken differs: many, and again.
        for _ in 0..20 {
            let service = MetaService::builder(["true"]).start().unwrap();
            let ending = tokio::spawn({
                let service = service.clone();
                async move {
                    service.result().await;
                    service.shutdown().await.unwrap();
                }
            });
            let served = Served::new(Description::from("job"), service.clone());
            let before = service.job.terminated.receiver_count();
            let waiting: Vec<_> = (0..500)
                .map(|_| tokio::spawn(wait(State(served.clone()), Query(WaitQuery::default()))))
                .collect();
            while service.job.terminated.receiver_count() < before + waiting.len() {
                tokio::task::yield_now().await;
            }
            let result = crate::JobResult { success: true, ending: None };
            service.job.result.resolve(result).unwrap();
            for waiter in waiting {
                assert_eq!(waiter.await.unwrap().status(), StatusCode::OK);
            }
            ending.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_client_that_waits_for_a_job_without_a_result_gets_an_error_when_the_service_ends() {
        let service = MetaService::builder(["true"]).start().unwrap();
        let served = Served::new(Description::from("job"), service.clone());
        let waiting = tokio::spawn(wait(State(served), Query(WaitQuery::default())));
        service.shutdown().await.unwrap();
        assert_eq!(waiting.await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
