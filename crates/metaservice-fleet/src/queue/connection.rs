//! The connection, and what it creates on the server.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::jetstream::context::{CreateStreamError, CreateStreamErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};
use async_nats::jetstream::{self, object_store};
use async_nats::{ConnectOptions, ServerAddr};

use super::denial::Denials;
use super::error::{ConnectError, ReadError};
use super::probe;

/// The stream of the bucket of jobs.
pub(super) const JOBS: &str = "KV_ms_jobs";
/// The stream of the bucket of leases.
pub(super) const LEASES: &str = "KV_ms_leases";
/// The stream of the bucket of tenants.
pub(super) const TENANTS: &str = "KV_ms_tenants";
/// The stream of logs.
pub(super) const LOGS: &str = "ms_logs";
/// The object store.
pub(super) const FILES: &str = "ms_files";
/// The stream of the object store.
pub(super) const OBJECTS: &str = "OBJ_ms_files";
/// How long the server may take for one answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Where a queue is, and with what right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The addresses of its servers, with commas between: `nats://a:4222,tls://b`.
    pub url: String,
    /// A file of credentials (`.creds`).
    pub credentials: Option<PathBuf>,
    /// A file of certificates (PEM) that sign the servers'. With it, each connection has TLS.
    pub ca: Option<PathBuf>,
    /// The copies of each bucket and stream that this host creates: 1 to 5.
    pub replicas: usize,
}

impl Settings {
    /// The queue of this address, without credentials.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), credentials: None, ca: None, replicas: 1 }
    }
}

/// A connection to a queue. A copy is the same connection, which connects again by itself.
#[derive(Debug, Clone)]
pub struct Queue {
    client: async_nats::Client,
    context: jetstream::Context,
    denials: Denials,
    addresses: std::sync::Arc<[ServerAddr]>,
    replicas: usize,
    connections: tokio::sync::watch::Receiver<u64>,
}

impl Queue {
    /// Connects, and creates what is missing on the server.
    ///
    /// # Errors
    /// When no server answers, the credentials are refused, or the server has no JetStream.
    pub async fn connect(settings: &Settings) -> Result<Self, ConnectError> {
        let addresses: Vec<ServerAddr> = settings
            .url
            .split(',')
            .map(|address| address.trim().parse())
            .collect::<Result<_, _>>()
            .map_err(ConnectError::Url)?;
        let mut options = ConnectOptions::new()
            .name("metaservice")
            .connection_timeout(TIMEOUT)
            .request_timeout(Some(TIMEOUT))
            .ping_interval(Duration::from_secs(5))
            .reconnect_delay_callback(|tries| {
                Duration::from_millis(50 << tries.min(5)).min(Duration::from_secs(1))
            });
        let mut inbox = "_INBOX".to_owned();
        // The library does not use the user that an address names.
        let user =
            addresses.iter().find_map(|address| Some((address.username()?, address.password()?)));
        if let Some((user, password)) = user {
            options = options.user_and_password(user.to_owned(), password.to_owned());
            if is_token(user) {
                // The answers to this user, which no other role needs to read.
                inbox = format!("_INBOX.{user}");
                options = options.custom_inbox_prefix(inbox.clone());
            }
        }
        if let Some(file) = &settings.credentials {
            options = options
                .credentials_file(file)
                .await
                .map_err(|cause| ConnectError::Credentials { path: file.clone(), cause })?;
        }
        if let Some(file) = &settings.ca {
            // Without TLS, a server shows no certificate.
            options = options.add_root_certificates(file.clone()).require_tls(true);
        }
        let (count, connections) = tokio::sync::watch::channel(0);
        let denials = Denials::new(&inbox);
        let noted = denials.clone();
        let options = options.event_callback(move |event| {
            match event {
                async_nats::Event::Connected => count.send_modify(|count| *count += 1),
                async_nats::Event::ServerError(async_nats::ServerError::Other(error)) => {
                    noted.note(&error);
                }
                _ => {}
            }
            std::future::ready(())
        });
        let failed = |cause| ConnectError::Server { servers: named(&addresses), cause };
        let client = options.connect(&addresses[..]).await.map_err(failed)?;
        let mut context = jetstream::new(client.clone());
        context.set_timeout(TIMEOUT);
        let (addresses, replicas) = (addresses.into(), settings.replicas);
        let queue = Self { client, context, denials, addresses, replicas, connections };
        queue.create().await?;
        Ok(queue)
    }

    async fn create(&self) -> Result<(), ConnectError> {
        let replicas = self.replicas;
        let jobs = Config {
            discard: DiscardPolicy::New,
            discard_new_per_subject: true,
            deny_delete: true,
            ..bucket(JOBS, "$KV.ms_jobs.>", replicas)
        };
        let logs = Config {
            discard: DiscardPolicy::New,
            max_messages_per_subject: -1,
            deny_delete: true,
            ..bucket(LOGS, "ms.log.*.*", replicas)
        };
        let tenants = bucket(TENANTS, "$KV.ms_tenants.>", replicas);
        for config in [jobs, tenants, logs] {
            self.provide(config).await?;
        }
        match self.provide_leases().await {
            // A worker creates them before it renews its own.
            Err(ConnectError::Denied(denied)) => tracing::debug!(%denied, "there are no leases"),
            provided => provided?,
        }
        let subject = format!("$JS.API.STREAM.INFO.{OBJECTS}");
        let store = self.denials.watch(&subject, self.context.get_object_store(FILES)).await?;
        if store.is_err() {
            let config = object_store::Config {
                bucket: FILES.to_owned(),
                num_replicas: replicas,
                ..object_store::Config::default()
            };
            let subject = format!("$JS.API.STREAM.CREATE.{OBJECTS}");
            let creating = self.context.create_object_store(config);
            let created = self.denials.watch(&subject, creating).await?;
            created.map_err(ConnectError::Files)?;
        }
        Ok(())
    }

    /// Creates the bucket of leases if there is none, in the memory of the servers: a server whose
    /// files are full still takes renewals. A single server forgets it when it is restarted. Then
    /// the workers create it again.
    pub(super) async fn provide_leases(&self) -> Result<(), ConnectError> {
        let in_files = bucket(LEASES, "$KV.ms_leases.>", self.replicas);
        let in_memory = Config { storage: StorageType::Memory, ..in_files.clone() };
        match self.provide(in_memory).await {
            // The server may keep nothing in memory.
            Err(ConnectError::Stream(error)) if is_refused(&error) => {
                tracing::warn!(%error, "leases are kept in files: a full queue loses attempts");
                self.provide(in_files).await
            }
            provided => provided,
        }
    }

    /// Creates a stream if there is none. Only that needs the right to create.
    async fn provide(&self, config: Config) -> Result<(), ConnectError> {
        let name = config.name.clone();
        let (info, create) =
            (format!("$JS.API.STREAM.INFO.{name}"), format!("$JS.API.STREAM.CREATE.{name}"));
        let providing = self.context.get_or_create_stream(config);
        let provided = self.denials.watch(&create, providing);
        let provided = self.denials.watch(&info, provided).await??;
        provided.map(drop).map_err(ConnectError::Stream)
    }

    /// Whether the connection to a server is up.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }

    /// Whether the servers are down: most of them refuse connections. `false` if they only do not
    /// answer, because another host may reach them.
    pub(crate) async fn is_down(&self) -> bool {
        let named = self.client.server_info().connect_urls;
        probe::are_down(probe::servers(&self.addresses, &named)).await
    }

    /// The number of connections so far. A reader of a stream starts anew with each: a server that
    /// was restarted does not know it.
    pub(crate) fn connections(&self) -> tokio::sync::watch::Receiver<u64> {
        self.connections.clone()
    }

    pub(crate) const fn denials(&self) -> &Denials {
        &self.denials
    }

    pub(crate) fn client(&self) -> &async_nats::Client {
        &self.client
    }

    pub(crate) fn context(&self) -> &jetstream::Context {
        &self.context
    }

    pub(crate) async fn stream(
        &self,
        name: &str,
    ) -> Result<jetstream::stream::Stream<()>, ReadError> {
        self.context.get_stream_no_info(name).await.map_err(|error| ReadError::Server(error.into()))
    }
}

/// A stream whose subjects keep their last message.
fn bucket(name: &str, subject: &str, replicas: usize) -> Config {
    Config {
        name: name.to_owned(),
        subjects: vec![subject.to_owned()],
        num_replicas: replicas,
        max_messages_per_subject: 1,
        ..Config::default()
    }
}

/// Whether a server answered, and refused.
fn is_refused(error: &CreateStreamError) -> bool {
    matches!(error.kind(), CreateStreamErrorKind::JetStream(_))
}

/// Servers as text, without users and passwords.
fn named(servers: &[ServerAddr]) -> String {
    let named = servers.iter().map(|server| {
        let (scheme, host, port) = (server.scheme(), server.host(), server.port());
        match host.contains(':') {
            true => format!("{scheme}://[{host}]:{port}"),
            false => format!("{scheme}://{host}:{port}"),
        }
    });
    named.collect::<Vec<_>>().join(", ")
}

/// Whether a name of a user can be a part of a subject.
fn is_token(user: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !user.is_empty() && user.bytes().all(is_plain)
}
