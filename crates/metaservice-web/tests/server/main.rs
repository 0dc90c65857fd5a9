//! The server of the page over real sockets, with a real service of a job behind it.
#![allow(clippy::unwrap_used, missing_docs)]

mod access;
mod actions;
mod log;
mod uploads;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, SinkExt, StreamExt};
use metaservice::control::{self, Client};
use metaservice::{MetaService, StoredLog};
use metaservice_testing::guest::{Answer, Guest};
use metaservice_web::{
    Artifact, ArtifactBody, EndedJob, Fleet, Found, Grant, Identity, Image, Links, ListedJob,
    Listing, MadeIdentity, NewUser, Place, Reached, Role, Server, Settings, Source, SourceError,
    Trust, Users,
};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener};
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::task::AbortOnDropHandle;

/// The name of the job.
const JOB: &str = "build";

/// A job that runs, and the page of it.
struct Page {
    service: MetaService,
    guest: Guest,
    /// Where the log of the job is, when it has ended.
    ended: Arc<Mutex<Option<std::path::PathBuf>>>,
    address: SocketAddr,
    links: Links,
    cookie: Option<String>,
    directory: tempfile::TempDir,
    _serving: AbortOnDropHandle<()>,
}

struct OneJob {
    client: Client,
    ended: Arc<Mutex<Option<std::path::PathBuf>>>,
}

impl Source for OneJob {
    fn place(&self) -> Place {
        Place::Host("here".to_owned())
    }

    fn follow(&self, lists: watch::Sender<Listing>) -> BoxFuture<'static, SourceError> {
        let client = self.client.clone();
        async move {
            let job = client.job().await.unwrap();
            lists.send_replace(Listing::new(vec![ListedJob::running(&job)]));
            lists.closed().await;
            SourceError::NotFound
        }
        .boxed()
    }

    fn find<'a>(
        &'a self,
        name: &'a str,
        attempt: Option<u32>,
    ) -> BoxFuture<'a, Result<Found, SourceError>> {
        async move {
            let ended = self.ended.lock().unwrap().clone();
            match (name == JOB && attempt.is_none(), ended) {
                (false, _) => Err(SourceError::NotFound),
                (true, None) => Ok(Found::Running(Reached::here(self.client.clone()))),
                (true, Some(directory)) => {
                    let mut ended = EndedJob::of(control::Job::lost(JOB));
                    ended.directory = Some(directory);
                    ended.artifacts =
                        vec![Artifact { name: Some("core".to_owned()), ..Artifact::default() }];
                    Ok(Found::Ended(Box::new(ended)))
                }
            }
        }
        .boxed()
    }

    fn log<'a>(
        &'a self,
        job: &'a EndedJob,
    ) -> BoxFuture<'a, Result<Option<StoredLog>, SourceError>> {
        async move {
            let directory = job.directory.as_ref().unwrap();
            let open = |name| std::fs::File::open(directory.join(name)).unwrap();
            Ok(Some(StoredLog::open(open("log"), open("index")).unwrap()))
        }
        .boxed()
    }

    fn run(&self, spec: Value, trust: Trust) -> BoxFuture<'_, Result<String, SourceError>> {
        let command = spec["command"][0].as_str().unwrap_or_default().to_owned();
        async move {
            match trust {
                Trust::Owner => Ok(command),
                Trust::User => Err(SourceError::Refused("no path".to_owned())),
            }
        }
        .boxed()
    }

    fn retry<'a>(
        &'a self,
        job: &'a EndedJob,
        _: Trust,
    ) -> BoxFuture<'a, Result<String, SourceError>> {
        async move { Ok(format!("{}-2", job.job.name)) }.boxed()
    }

    fn cancel<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), SourceError>> {
        async { Err(SourceError::Unsupported) }.boxed()
    }

    fn remove<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), SourceError>> {
        async { Ok(()) }.boxed()
    }

    fn prune(&self, age: Duration) -> BoxFuture<'_, Result<usize, SourceError>> {
        async move { Ok(if age.is_zero() { 1 } else { 0 }) }.boxed()
    }

    fn images(&self) -> BoxFuture<'_, Result<Vec<Image>, SourceError>> {
        async { Ok(vec![Image { name: "debian".to_owned(), size: Some(7) }]) }.boxed()
    }

    fn artifact<'a>(
        &'a self,
        _: &'a EndedJob,
        name: &'a str,
    ) -> BoxFuture<'a, Result<ArtifactBody, SourceError>> {
        async move {
            match name {
                "core" => Ok(futures_util::stream::iter([Ok("dumped".into())]).boxed()),
                _ => Err(SourceError::NotFound),
            }
        }
        .boxed()
    }

    fn fleet(&self, _: watch::Sender<Fleet>) -> Option<BoxFuture<'static, SourceError>> {
        None
    }
}

impl Page {
    async fn start() -> Self {
        Self::keeping(1 << 20).await
    }

    /// A page of a job that keeps this many bytes of its log.
    async fn keeping(bytes: u64) -> Self {
        Self::with(bytes, Settings::new("127.0.0.1:0".parse().unwrap())).await
    }

    async fn with(bytes: u64, settings: Settings) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("job.sock");
        let service = MetaService::builder(["make", "test"]).keep_log(bytes).start().unwrap();
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(control::serve(JOB, service.clone(), listener));
        let served = service.clone();
        let guest = Guest::new(move |connection| {
            let service = served.clone();
            tokio::spawn(async move { drop(service.serve_connection(connection).await) });
        });
        let ended = Arc::default();
        let source = OneJob { client: Client::new(socket), ended: Arc::clone(&ended) };
        let server = Server::bind(settings, Arc::new(source)).await.unwrap();
        let (address, links) = (server.address(), server.links());
        let serving = tokio::spawn(async move { panic!("{}", server.serve().await) });
        let _serving = AbortOnDropHandle::new(serving);
        Self { service, guest, ended, address, links, cookie: None, directory, _serving }
    }

    /// A page that a browser has opened.
    async fn open() -> Self {
        let mut page = Self::start().await;
        page.enter().await;
        page
    }

    /// A client of the job, without the page.
    fn client(&self) -> Client {
        Client::new(self.directory.path().join("job.sock"))
    }

    async fn enter(&mut self) {
        let token = self.token();
        self.enter_with(&token).await;
    }

    async fn enter_with(&mut self, token: &str) {
        let answer = self.exchange(token).await;
        assert_eq!(answer.status, 204, "{answer:?}");
        let cookie = answer.headers["set-cookie"].split(';').next().unwrap();
        self.cookie = Some(cookie.to_owned());
    }

    /// The token of the current link.
    fn token(&mut self) -> String {
        let link = self.links.current();
        let (page, token) = link.split_once("/#token=").unwrap();
        assert_eq!(page, format!("http://{}", self.address));
        token.to_owned()
    }

    async fn exchange(&self, token: &str) -> Answer {
        self.request("POST", "/session", &self.own(), &format!("{{\"token\":\"{token}\"}}")).await
    }

    /// The headers of the page itself.
    fn own(&self) -> Vec<(&'static str, String)> {
        vec![
            ("Host", self.address.to_string()),
            ("Origin", format!("http://{}", self.address)),
            ("Content-Type", "application/json".to_owned()),
        ]
    }

    async fn request(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, String)],
        body: &str,
    ) -> Answer {
        let length = ("Content-Length", body.len().to_string());
        let cookie = self.cookie.iter().map(|cookie| ("Cookie", cookie.clone()));
        let all = headers.iter().cloned().chain([length, ("Connection", "close".to_owned())]);
        let lines: String =
            all.chain(cookie).map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let text = format!("{method} {target} HTTP/1.1\r\n{lines}\r\n{body}");
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let mut answer = Answer::parse(&answer);
        if answer.headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
            answer.body = unchunk(&answer.body);
        }
        answer
    }

    async fn get(&self, target: &str) -> Answer {
        self.request("GET", target, &self.own(), "").await
    }

    /// Opens a websocket. The error is the status of a refusal.
    async fn socket(
        &self,
        target: &str,
        headers: &[(&'static str, String)],
    ) -> Result<WebSocketStream<TcpStream>, u16> {
        let mut request = format!("ws://{}{target}", self.address).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        if let Some(cookie) = &self.cookie {
            request.headers_mut().insert("Cookie", cookie.parse().unwrap());
        }
        let stream = TcpStream::connect(self.address).await.unwrap();
        match tokio_tungstenite::client_async(request, stream).await {
            Ok((socket, _)) => Ok(socket),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }
}

/// The next value of a websocket.
async fn next(socket: &mut WebSocketStream<TcpStream>) -> Value {
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn unchunk(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|bytes| bytes == b"\r\n").unwrap();
        let length = std::str::from_utf8(&body[..end]).unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            return whole;
        }
        whole.extend_from_slice(&body[end + 2..end + 2 + length]);
        body = &body[end + 2 + length + 2..];
    }
}
