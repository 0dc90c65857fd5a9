//! Real `nats-server`s for tests: one, and a cluster of three. And jobs for them.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::slice;
use std::time::Duration;

use futures_util::TryStreamExt;
use metaservice_fleet::name::JobId;
use metaservice_fleet::queue::{Queue, Settings};
use metaservice_fleet::request::Request;
use metaservice_sandbox::spec::JobSpec;
use metaservice_testing::port;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep, timeout_at};

/// The program: that of the variable, of the system, or of the cache that `make setup` fills.
fn program() -> PathBuf {
    if let Some(program) = std::env::var_os("METASERVICE_NATS_SERVER") {
        return program.into();
    }
    let cache = metaservice_private::bases::BaseDirectory::cache();
    let cache = cache.map(|cache| cache.path().join("metaservice/bin/nats-server"));
    let known = [Some("/usr/sbin/nats-server".into()), cache];
    let found = known.into_iter().flatten().find(|program| program.is_file());
    found.unwrap_or_else(|| "nats-server".into())
}

/// How long the first connection waits for the servers.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The users of `contrib/nats/roles.conf`. Here, the password of each is its name.
pub(crate) const ROLES: [&str; 4] = ["admin", "worker", "client", "watcher"];

/// Whether the readers of a cluster of this program get each confirmed message, also after a server
/// was killed or stopped. Those of release 2.9 can miss one.
pub(crate) fn readers_miss_nothing() -> bool {
    let output = Command::new(program()).arg("--version").output().unwrap().stdout;
    let text = String::from_utf8(output).unwrap();
    let (_, version) = text.trim().split_once(": v").unwrap();
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or_default());
    (numbers.next(), numbers.next()) >= (Some(2), Some(10))
}

/// A server that ends with this value.
struct Server {
    child: Child,
    arguments: Vec<String>,
    /// What it says.
    log: PathBuf,
}

impl Server {
    fn start(arguments: Vec<String>, log: PathBuf) -> Self {
        let child = spawn(&arguments, &log);
        Self { child, arguments, log }
    }

    /// Starts it again after it was killed.
    fn revive(&mut self) {
        self.child = spawn(&self.arguments, &self.log);
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn signal(&self, signal: Signal) {
        let process = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        kill_process(process, signal).unwrap();
    }
}

fn spawn(arguments: &[String], log: &Path) -> Child {
    let log = File::options().create(true).append(true).open(log).unwrap();
    let mut command = Command::new(program());
    for role in ROLES {
        command.env(format!("QUEUE_{}_PASSWORD", role.to_uppercase()), role);
    }
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().expect("nats-server is installed: `make setup`")
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Connects as soon as the servers answer.
async fn connect(url: String, replicas: usize, servers: &[Server]) -> Queue {
    let mut settings = Settings::new(url);
    settings.replicas = replicas;
    let until = Instant::now() + START_TIMEOUT;
    let mut last = None;
    while let Ok(connected) = timeout_at(until, Queue::connect(&settings)).await {
        match connected {
            Ok(queue) => return queue,
            Err(error) => last = Some(error),
        }
        // A server that has just been started refuses connections. It has no other sign.
        sleep(Duration::from_millis(100)).await;
    }
    let said = servers.iter().map(|server| std::fs::read_to_string(&server.log).unwrap());
    panic!("the servers do not start: {last:?}\n{}", said.collect::<String>());
}

/// One server.
pub(crate) struct One {
    server: Server,
    address: String,
    port: u16,
    _directory: tempfile::TempDir,
}

impl One {
    pub(crate) async fn start() -> Self {
        Self::on("127.0.0.1").await
    }

    /// A server that listens on this address.
    pub(crate) async fn on(address: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = port::reserve();
        let arguments = ["-a", address, "-p", &port.to_string(), "-js", "-sd"];
        let mut arguments: Vec<String> = arguments.map(ToOwned::to_owned).to_vec();
        arguments.push(directory.path().display().to_string());
        let address = address.to_owned();
        Self {
            server: Server::start(arguments, directory.path().join("log")),
            address,
            port,
            _directory: directory,
        }
    }

    /// A server that keeps nothing.
    pub(crate) fn without_jetstream() -> Self {
        let (directory, port) = (tempfile::tempdir().unwrap(), port::reserve());
        let arguments = ["-a", "127.0.0.1", "-p", &port.to_string()];
        let server =
            Server::start(arguments.map(ToOwned::to_owned).to_vec(), directory.path().join("log"));
        Self { server, address: "127.0.0.1".to_owned(), port, _directory: directory }
    }

    /// A server that keeps only so many bytes in files.
    pub(crate) fn of_size(bytes: u64) -> Self {
        let store = format!("max_file_store: {bytes}");
        Self::configured(&store, "")
    }

    /// A server with the users of `contrib/nats/roles.conf`.
    pub(crate) fn with_roles() -> Self {
        Self::configured("", include_str!("../../../../contrib/nats/roles.conf"))
    }

    /// A server with these users, without these words in their permissions.
    pub(crate) fn with_roles_but(words: &[&str]) -> Self {
        let mut text = include_str!("../../../../contrib/nats/roles.conf").to_owned();
        for word in words {
            assert!(text.contains(word), "{word}");
            text = text.replace(word, "\"none\"");
        }
        Self::configured("", &text)
    }

    /// A server with more lines in its configuration: for JetStream, and in all.
    fn configured(jetstream: &str, more: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = port::reserve();
        std::fs::write(directory.path().join("more.conf"), more).unwrap();
        let config = directory.path().join("server.conf");
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\njetstream {{\nstore_dir: \"{}\"\n{jetstream}\n}}\n\
             include \"more.conf\"\n",
            directory.path().join("data").display()
        );
        std::fs::write(&config, text).unwrap();
        let server = Server::start(
            vec!["-c".to_owned(), config.display().to_string()],
            directory.path().join("log"),
        );
        let address = "127.0.0.1".to_owned();
        Self { server, address, port, _directory: directory }
    }

    /// The address for this role.
    pub(crate) fn url_of(&self, role: &str) -> String {
        format!("nats://{role}:{role}@127.0.0.1:{}", self.port)
    }

    /// A connection of this role.
    pub(crate) async fn queue_of(&self, role: &str) -> Queue {
        connect(self.url_of(role), 1, slice::from_ref(&self.server)).await
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://{}:{}", self.address, self.port)
    }

    pub(crate) async fn queue(&self) -> Queue {
        connect(self.url(), 1, slice::from_ref(&self.server)).await
    }

    /// Stores something in it until it takes no more.
    pub(crate) async fn fill(&self) {
        let context = async_nats::jetstream::new(async_nats::connect(self.url()).await.unwrap());
        for length in [512 << 10, 4 << 10] {
            let filler = bytes::Bytes::from(vec![1; length]);
            let store = || context.publish("$O.ms_files.C.filler", filler.clone());
            while store().await.unwrap().await.is_ok() {}
        }
    }

    /// Kills the server, and starts it again with its data.
    pub(crate) async fn restart(&mut self) {
        self.server.kill();
        self.server.revive();
    }

    /// Kills the server.
    pub(crate) fn kill(&mut self) {
        self.server.kill();
    }

    /// Stops its process. It keeps its connections, and accepts more.
    pub(crate) fn pause(&self) {
        self.server.signal(Signal::STOP);
    }

    /// Continues its process.
    pub(crate) fn resume(&self) {
        self.server.signal(Signal::CONT);
    }

    /// Starts it again.
    pub(crate) fn revive(&mut self) {
        self.server.revive();
    }
}

/// Three servers, each of which has a copy of all.
pub(crate) struct Cluster {
    servers: Vec<Server>,
    ports: Vec<u16>,
    _directory: tempfile::TempDir,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ports: Vec<u16> = (0..3).map(|_| port::reserve()).collect();
        let routes: Vec<u16> = (0..3).map(|_| port::reserve()).collect();
        let route_list: Vec<String> =
            routes.iter().map(|port| format!("nats-route://127.0.0.1:{port}")).collect();
        let servers = (0..3)
            .map(|number| {
                let config = directory.path().join(format!("{number}.conf"));
                let data = directory.path().join(number.to_string());
                let text = format!(
                    "server_name: s{number}\nlisten: \"127.0.0.1:{}\"\n\
                     jetstream {{ store_dir: \"{}\" }}\n\
                     cluster {{ name: c, listen: \"127.0.0.1:{}\", routes: [{}] }}\n",
                    ports[number],
                    data.display(),
                    routes[number],
                    route_list.join(", "),
                );
                std::fs::write(&config, text).unwrap();
                Server::start(
                    vec!["-c".to_owned(), config.display().to_string()],
                    directory.path().join(format!("{number}.log")),
                )
            })
            .collect();
        Self { servers, ports, _directory: directory }
    }

    pub(crate) fn url(&self) -> String {
        let urls: Vec<String> =
            self.ports.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        urls.join(",")
    }

    pub(crate) async fn queue(&self) -> Queue {
        connect(self.url(), 3, &self.servers).await
    }

    /// Waits until each stream has a leader, and two copies that have caught up with it.
    pub(crate) async fn whole(&self) {
        let url = self.url();
        let servers: Vec<async_nats::ServerAddr> =
            url.split(',').map(|url| url.parse().unwrap()).collect();
        let client = async_nats::connect(servers).await.unwrap();
        let context = async_nats::jetstream::new(client);
        loop {
            let streams = context.streams().try_collect::<Vec<_>>().await;
            if streams.is_ok_and(|streams| !streams.is_empty() && streams.iter().all(is_whole)) {
                return;
            }
            // No server says when.
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Kills a server.
    pub(crate) fn kill(&mut self, number: usize) {
        self.servers[number].kill();
    }

    /// Ends a server in order.
    pub(crate) fn end(&mut self, number: usize) {
        self.servers[number].signal(Signal::TERM);
        self.servers[number].child.wait().unwrap();
    }

    /// Starts a server again.
    pub(crate) fn revive(&mut self, number: usize) {
        self.servers[number].revive();
    }

    /// Stops the process of a server. It keeps its connections, and accepts more.
    pub(crate) fn pause(&self, number: usize) {
        self.servers[number].signal(Signal::STOP);
    }

    /// Continues the process of a server.
    pub(crate) fn resume(&self, number: usize) {
        self.servers[number].signal(Signal::CONT);
    }
}

fn is_whole(stream: &async_nats::jetstream::stream::Info) -> bool {
    stream.cluster.as_ref().is_some_and(|cluster| {
        let current = cluster.replicas.iter().filter(|copy| copy.current && !copy.offline);
        cluster.leader.is_some() && current.count() == 2
    })
}

/// The id of this name.
pub(crate) fn id(name: &str) -> JobId {
    name.parse().unwrap()
}

/// A job that runs this script in a small machine.
pub(crate) fn shell(script: &str) -> Request {
    let mut request = Request::new(JobSpec::new(["sh", "-c", script]));
    request.spec.machine.memory.0 = 256 << 20;
    request
}
