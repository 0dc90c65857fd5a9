//! Requests over the control socket.
//!
//! Each request has a connection of its own. While nothing arrives, the job is asked now and then
//! whether it still answers.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::request::Builder;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use metaservice_private::SocketPath;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::error::{ApiError, ClientError};
use super::paths;
use crate::handle::error::BoxError;

/// The largest response that is kept in memory, in bytes: a list of files has at most 10 MiB.
const MAX_RESPONSE: usize = 16 * 1024 * 1024;

/// When a silent job is asked first. The pause doubles after each question, up to
/// [`LAST_QUESTION`].
const FIRST_QUESTION: Duration = Duration::from_secs(1);
const LAST_QUESTION: Duration = Duration::from_secs(16);

/// How long the job may take to answer the question.
const ANSWER: Duration = Duration::from_secs(5);

pub(super) type RequestBody = http_body_util::combinators::UnsyncBoxBody<Bytes, io::Error>;

/// The control socket of a job.
#[derive(Debug, Clone)]
pub(super) struct ControlSocket {
    pub(super) path: PathBuf,
}

pub(super) fn broken(error: impl Into<BoxError>) -> ClientError {
    ClientError::Connection(error.into())
}

impl ControlSocket {
    pub(super) async fn connect(&self) -> Result<UnixStream, ClientError> {
        let stream = async {
            let path = SocketPath::of(&self.path)?;
            UnixStream::connect(path.as_path()).await
        };
        stream.await.map_err(|error| match error.kind() {
            // The queue of connections to be accepted is full.
            io::ErrorKind::WouldBlock => ClientError::Silent(self.path.clone()),
            _ => ClientError::Unreachable(self.path.clone(), error),
        })
    }

    /// Runs a call until it ends, or until the job does not answer any longer.
    pub(super) async fn attended<T>(
        &self,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        tokio::select! {
            biased;
            done = work => done,
            silent = self.clone().silence() => Err(silent),
        }
    }

    /// Completes when the job does not answer any longer. If the job is gone, the call itself sees
    /// that.
    pub(super) async fn silence(self) -> ClientError {
        let mut pause = FIRST_QUESTION;
        loop {
            tokio::time::sleep(pause).await;
            pause = LAST_QUESTION.min(pause * 2);
            let question = self.exchange(head(Method::GET, paths::JOB), no_body());
            if tokio::time::timeout(ANSWER, question).await.is_err() {
                return ClientError::Silent(self.path);
            }
        }
    }

    pub(super) async fn request(
        &self,
        method: Method,
        target: &str,
    ) -> Result<Response<Incoming>, ClientError> {
        self.send(head(method, target), no_body()).await
    }

    pub(super) async fn send(
        &self,
        head: Builder,
        body: RequestBody,
    ) -> Result<Response<Incoming>, ClientError> {
        self.attended(self.exchange(head, body)).await
    }

    async fn exchange(
        &self,
        head: Builder,
        body: RequestBody,
    ) -> Result<Response<Incoming>, ClientError> {
        let request = head.body(body).map_err(broken)?;
        let io = TokioIo::new(self.connect().await?);
        let (mut sender, connection) = http1::handshake(io).await.map_err(broken)?;
        // The connection ends with its one request.
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(broken)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let refusal = refused(status, &read_all(response, MAX_RESPONSE).await?);
        // The rest of the body is not needed.
        connection.abort();
        Err(refusal)
    }

    pub(super) async fn fetch<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
    ) -> Result<T, ClientError> {
        let work = async { read_json(self.exchange(head(method, target), no_body()).await?).await };
        self.attended(work).await
    }
}

pub(super) fn head(method: Method, target: &str) -> Builder {
    Request::builder().method(method).uri(target).header(header::HOST, "localhost")
}

pub(super) fn no_body() -> RequestBody {
    Full::default().map_err(|never| match never {}).boxed_unsync()
}

pub(super) fn to_json(value: &impl Serialize) -> Result<Bytes, ClientError> {
    serde_json::to_vec(value).map(Bytes::from).map_err(broken)
}

pub(super) async fn read_json<T: DeserializeOwned>(
    response: Response<Incoming>,
) -> Result<T, ClientError> {
    read_json_within(response, MAX_RESPONSE).await
}

pub(super) async fn read_json_within<T: DeserializeOwned>(
    response: Response<Incoming>,
    most: usize,
) -> Result<T, ClientError> {
    serde_json::from_slice(&read_all(response, most).await?).map_err(broken)
}

async fn read_all(response: Response<Incoming>, most: usize) -> Result<Bytes, ClientError> {
    let body = http_body_util::Limited::new(response.into_body(), most).collect().await;
    Ok(body.map_err(broken)?.to_bytes())
}

pub(super) fn refused(status: StatusCode, body: &[u8]) -> ClientError {
    match serde_json::from_slice::<ApiError>(body) {
        Ok(problem) => problem.into(),
        Err(_) => broken(format!("the job answered {status}")),
    }
}

/// A request target with its query escaped (RFC 3986 section 2.1).
pub(super) fn target(path: &str, query: &[(&str, &str)]) -> String {
    let mut target = path.to_owned();
    for (n, (key, value)) in query.iter().enumerate() {
        target += if n == 0 { "?" } else { "&" };
        target += key;
        target.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
                target.push(char::from(byte));
            } else {
                target += &format!("%{byte:02X}");
            }
        }
    }
    target
}

#[cfg(test)]
mod tests {
    use super::super::paths;
    use super::target;

    #[test]
    fn a_query_is_escaped() {
        let target = target(paths::FILES, &[("path", "/a b&c=ä/%\n"), ("tty", "true")]);
        assert_eq!(target, "/v1/files?path=/a%20b%26c%3D%C3%A4/%25%0A&tty=true");
    }
}
