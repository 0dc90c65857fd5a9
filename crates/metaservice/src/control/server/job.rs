//! The job itself: what it is, its log, its end.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::{StatusCode, header};
use serde::Deserialize;

use super::super::{Code, Job, JobState, MISSED_HEADER, Problem};
use super::Served;
use super::problem::{Natural, Query, refuse};
use crate::job::log::{LogFrom, LogItem, LogReader};

/// What is to be told of the job.
#[utoipa::path(get, path = "/v1/job", responses((status = 200, body = Job)))]
pub(crate) async fn job(State(served): State<Served>) -> Json<Job> {
    Json(describe(&served))
}

/// The job, once its command has ended.
#[utoipa::path(get, path = "/v1/wait", responses(
    (status = 200, body = Job),
    (status = 503, body = Problem, description = "the service has ended before the job"),
))]
pub(crate) async fn wait(State(served): State<Served>) -> Response {
    let mut terminated = served.service.0.terminated.subscribe();
    tokio::select! {
        _ = served.service.result() => {}
        _ = terminated.wait_for(|terminated| *terminated) => {}
    }
    // A job that ends ends its service too. Who waits for both is woken for each in turn, and may
    // see the later one first: what counts is whether there is a result.
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
        Some(_) => JobState::Failed,
        None if service.is_fetched() => JobState::Running,
        None => JobState::Waiting,
    };
    let started = started.duration_since(UNIX_EPOCH).unwrap_or_default();
    Job {
        name: description.name.clone(),
        command: description.command.as_ref().unwrap_or(&service.0.execute.command).clone(),
        env: match description.command {
            Some(_) => Vec::new(),
            None => service.0.execute.env.keys().cloned().collect(),
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

/// Which part of the log is wanted. One of `tail`, `sinceMs` and `offset`; none means all.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
pub(crate) struct LogQuery {
    /// So many lines before the end.
    #[param(value_type = Option<u64>)]
    tail: Option<Natural>,
    /// What came since this time, in milliseconds since 1970; to the second, and more coarsely in long jobs.
    #[param(value_type = Option<u64>)]
    since_ms: Option<Natural>,
    /// From this byte on, counted from the log's beginning.
    #[param(value_type = Option<u64>)]
    offset: Option<Natural>,
    /// Go on until the job's end.
    #[serde(default)]
    #[param(required = false)]
    follow: bool,
}

/// What is kept of the log, byte for byte. A header tells how many bytes before the first one
/// are no longer kept; a reader that is overtaken later is cut off.
#[utoipa::path(get, path = "/v1/log", params(LogQuery), responses(
    (status = 200, body = Vec<u8>, content_type = "application/octet-stream",
        headers(("Metaservice-Missed" = u64, description = "bytes before the first one that are no longer kept"))),
    (status = 400, body = Problem),
    (status = 404, body = Problem, description = "no log is kept of this job"),
    (status = 507, body = Problem),
))]
pub(crate) async fn log(State(served): State<Served>, Query(query): Query<LogQuery>) -> Response {
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
    let headers = [
        (header::CONTENT_TYPE.as_str(), "application/octet-stream".to_owned()),
        (MISSED_HEADER, missed.to_string()),
    ];
    (headers, log_body(reader)).into_response()
}

fn log_body(reader: LogReader) -> Body {
    Body::from_stream(stream::try_unfold(reader, async |mut reader| match reader.next().await? {
        Some(LogItem::Bytes(bytes)) => Ok(Some((bytes, reader))),
        Some(LogItem::Missed(bytes)) => {
            let message = format!("{bytes} bytes were overwritten before they were read");
            Err(std::io::Error::other(message))
        }
        None => Ok(None),
    }))
}

/// Kills the command and everything under it.
#[utoipa::path(post, path = "/v1/kill", responses(
    (status = 204, description = "the guest has killed it"),
    (status = 502, body = Problem), (status = 503, body = Problem), (status = 504, body = Problem),
))]
pub(crate) async fn kill(State(served): State<Served>) -> Response {
    match served.service.kill_process().await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => error.into_response(),
    }
}

/// Which signal.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SignalQuery {
    /// Its number on Linux.
    #[param(minimum = 1, maximum = 31)]
    signal: u8,
}

/// Sends the command's main process a signal.
#[utoipa::path(post, path = "/v1/signal", params(SignalQuery), responses(
    (status = 204, description = "it was sent"),
    (status = 400, body = Problem),
    (status = 409, body = Problem, description = "the command is not running"),
    (status = 501, body = Problem), (status = 502, body = Problem),
    (status = 503, body = Problem), (status = 504, body = Problem),
))]
pub(crate) async fn signal(
    State(served): State<Served>,
    Query(query): Query<SignalQuery>,
) -> Response {
    if !(1..=31).contains(&query.signal) {
        return refuse(Code::InvalidRequest, "signals have the numbers 1 to 31");
    }
    match served.service.signal(query.signal).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => error.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Description;
    use super::*;
    use crate::MetaService;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn whoever_waited_for_a_job_with_a_result_hears_of_the_job() {
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
            let served = Served {
                description: Description::from("job"),
                service: service.clone(),
                started: SystemTime::now(),
                described: Arc::default(),
            };
            let before = service.0.terminated.receiver_count();
            let waiting: Vec<_> =
                (0..500).map(|_| tokio::spawn(wait(State(served.clone())))).collect();
            while service.0.terminated.receiver_count() < before + waiting.len() {
                tokio::task::yield_now().await;
            }
            let result = crate::JobResult { success: true, ending: None };
            service.0.outcome.resolve(result).unwrap();
            for waiter in waiting {
                assert_eq!(waiter.await.unwrap().status(), StatusCode::OK);
            }
            ending.await.unwrap();
        }
    }

    #[tokio::test]
    async fn whoever_waits_for_a_job_without_one_hears_that_its_service_has_ended() {
        let service = MetaService::builder(["true"]).start().unwrap();
        let description = Description::from("job");
        let served = Served {
            description,
            service: service.clone(),
            started: SystemTime::now(),
            described: Arc::default(),
        };
        let waiting = tokio::spawn(wait(State(served)));
        service.shutdown().await.unwrap();
        assert_eq!(waiting.await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
