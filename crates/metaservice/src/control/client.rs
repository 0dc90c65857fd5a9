//! The calling end.

use std::io;
use std::path::{Path, PathBuf};

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::{Code, Job, Problem};
use crate::shell::{Shell, Wire};
use metaservice_protocol::limits::SHELL_MESSAGE;

/// The largest answer that is kept in memory: a list of files is at most 10 MiB.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// Why a call has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens at the socket.
    #[error("cannot reach the job at {}", .0.display())]
    Unreachable(PathBuf, #[source] io::Error),
    /// The job was reached and refused.
    #[error("{message}")]
    Refused {
        /// The word for programs.
        code: Code,
        /// The sentence for people.
        message: String,
    },
    /// The connection to the job broke.
    #[error("the connection to the job broke")]
    Connection(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What was fetched cannot be written.
    #[error("cannot write what was fetched")]
    Write(#[source] io::Error),
}

fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClientError {
    ClientError::Connection(error.into())
}

/// A job's control socket. Every call makes a connection of its own; dropping the
/// future of a call closes it, which withdraws what was asked.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The client of the job behind `socket`. Nothing is connected yet.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// The path of the socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What is to be told of the job.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn job(&self) -> Result<Job, ClientError> {
        let body = self.fetch(Method::GET, "/v1/job").await?;
        serde_json::from_slice(&body).map_err(broken)
    }

    /// As [`MetaService::kill_process`](crate::MetaService::kill_process).
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn kill(&self) -> Result<(), ClientError> {
        self.fetch(Method::POST, "/v1/kill").await.map(drop)
    }

    /// As [`MetaService::list_folder`](crate::MetaService::list_folder).
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_folder(&self, path: &str) -> Result<Vec<String>, ClientError> {
        let body = self.fetch(Method::GET, &target("files", &[("path", path)])).await?;
        serde_json::from_slice(&body).map_err(broken)
    }

    /// Writes a file of the guest's to `to`; returns its length in bytes.
    ///
    /// # Errors
    /// [`ClientError`]; then `to` may have got a part.
    pub async fn get_artifact(
        &self,
        path: &str,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Result<u64, ClientError> {
        let mut body = self.request(Method::GET, &target("artifact", &[("path", path)])).await?;
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(broken)?.into_data() {
                length += data.len() as u64;
                to.write_all(&data).await.map_err(ClientError::Write)?;
            }
        }
        to.flush().await.map_err(ClientError::Write)?;
        Ok(length)
    }

    /// As [`MetaService::exec_shell`](crate::MetaService::exec_shell).
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn exec_shell(&self, command: &[String], tty: bool) -> Result<Shell, ClientError> {
        let command = serde_json::to_string(command).map_err(broken)?;
        let tty = tty.to_string();
        let target = target("shell", &[("command", &command), ("tty", &tty)]);
        let config = WebSocketConfig::default()
            .max_message_size(Some(SHELL_MESSAGE))
            .max_frame_size(Some(SHELL_MESSAGE));
        let url = format!("ws://localhost{target}");
        let stream = self.connect().await?;
        match tokio_tungstenite::client_async_with_config(url, stream, Some(config)).await {
            Ok((socket, _)) => {
                // A client is never shut down: its shells end with their connections.
                let (_, never) = watch::channel(false);
                Ok(Shell::start(Wire::from_tungstenite(socket), never))
            }
            Err(tungstenite::Error::Http(response)) => {
                Err(refused(response.status(), response.body().as_deref().unwrap_or_default()))
            }
            Err(error) => Err(broken(error)),
        }
    }

    async fn connect(&self) -> Result<UnixStream, ClientError> {
        let stream = UnixStream::connect(&self.socket).await;
        stream.map_err(|error| ClientError::Unreachable(self.socket.clone(), error))
    }

    async fn request(&self, method: Method, target: &str) -> Result<Incoming, ClientError> {
        let io = TokioIo::new(self.connect().await?);
        let (mut sender, connection) = http1::handshake(io).await.map_err(broken)?;
        // The connection ends with the request that it is for.
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(target).header("Host", "localhost");
        let request = request.body(Empty::<bytes::Bytes>::new()).map_err(broken)?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let (status, body) = (response.status(), response.into_body());
        if status.is_success() {
            return Ok(body);
        }
        Err(refused(status, &read_all(body).await?))
    }

    async fn fetch(&self, method: Method, target: &str) -> Result<bytes::Bytes, ClientError> {
        read_all(self.request(method, target).await?).await
    }
}

async fn read_all(body: Incoming) -> Result<bytes::Bytes, ClientError> {
    let body = http_body_util::Limited::new(body, MAX_ANSWER).collect().await;
    Ok(body.map_err(broken)?.to_bytes())
}

fn refused(status: StatusCode, body: &[u8]) -> ClientError {
    match serde_json::from_slice(body) {
        Ok(Problem { code, message }) => ClientError::Refused { code, message },
        Err(_) => broken(format!("the job answered {status}")),
    }
}

/// A request target with its query escaped (RFC 3986 section 2.1).
fn target(name: &str, query: &[(&str, &str)]) -> String {
    let mut target = format!("/v1/{name}");
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
    use super::target;

    #[test]
    fn a_query_keeps_what_it_is_given() {
        let target = target("files", &[("path", "/a b&c=ä/%\n"), ("tty", "true")]);
        assert_eq!(target, "/v1/files?path=/a%20b%26c%3D%C3%A4/%25%0A&tty=true");
    }
}
