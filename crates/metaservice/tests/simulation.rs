//! A guest, a host and the network between them, in one process on simulated time.
//!
//! Everything that happens is drawn from a seed: how much the command logs and when, what the host
//! asks for, which connection is slow, cut, stalled or left half-open with its last bytes still on
//! their way, when the agent is killed or a second one appears, when the service is replaced.
//! `METASERVICE_SEED` runs one seed again, `METASERVICE_SEEDS` so many of them.
//!
//! The agent here is a model of ours: it speaks the same protocol by the same types. The real one
//! meets the same troubles, on real time, in the tests of pairs.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metaservice::{MetaService, SessionMode};
use metaservice_protocol::{ActionId, LogPlace};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Longer than any of the protocol's timings, one after the other.
const LONG: Duration = Duration::from_secs(2 * 60 * 60);

/// What is shared by everything in one world.
struct World {
    random: Mutex<StdRng>,
    service: Mutex<MetaService>,
    /// How many connections may still be troubled: then the weather clears.
    troubles: Mutex<u32>,
    /// The job's log as it will be, and when the command begins to write it.
    log: Vec<u8>,
    rate: u64,
    begun: Instant,
    success: bool,
    /// What was answered to whom with 200: never twice for one id.
    answered: Mutex<BTreeMap<String, u32>>,
}

/// What survives an agent.
#[derive(Default)]
struct Kept {
    secret: Option<String>,
    confirmed: usize,
    reported: bool,
}

/// What a connection meets.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Fine,
    /// Ends for both after so many bytes.
    Cut(usize),
    /// Stands still after so many bytes, for so long.
    Stall(usize, Duration),
    /// Ends for the guest after so many bytes; what it has sent reaches the host so much later.
    HalfOpen(usize, Duration),
}

impl World {
    fn draw<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.random.lock().unwrap())
    }

    fn fate(&self) -> Fate {
        let mut troubles = self.troubles.lock().unwrap();
        if *troubles == 0 {
            return Fate::Fine;
        }
        let fate = self.draw(|random| {
            let bytes = random.random_range(0..3000);
            match random.random_range(0..10) {
                0..=4 => Fate::Fine,
                5 | 6 => Fate::Cut(bytes),
                7 => Fate::Stall(bytes, Duration::from_secs(random.random_range(1..200))),
                _ => Fate::HalfOpen(bytes, Duration::from_secs(random.random_range(1..60))),
            }
        });
        if !matches!(fate, Fate::Fine) {
            *troubles -= 1;
        }
        fate
    }

    fn connect(self: &Arc<Self>) -> DuplexStream {
        let (guest, near) = tokio::io::duplex(2048);
        let (far, host) = tokio::io::duplex(2048);
        let service = self.service.lock().unwrap().clone();
        let serving = tokio::spawn(async move { service.serve_connection(host).await });
        let (world, fate) = (Arc::clone(self), self.fate());
        tokio::spawn(async move {
            carry(&world, near, far, fate).await;
            // What the host still reads of it, it reads.
            let _ = timeout(LONG, serving).await;
        });
        guest
    }

    /// What the command has written by now, and whether that is all.
    fn written(&self) -> (usize, bool) {
        let elapsed = u64::try_from(self.begun.elapsed().as_millis()).unwrap();
        let written = usize::try_from(elapsed * self.rate / 1000).unwrap().min(self.log.len());
        (written, written == self.log.len())
    }
}

async fn carry(world: &World, near: DuplexStream, far: DuplexStream, fate: Fate) {
    let (mut from_guest, mut to_guest) = tokio::io::split(near);
    let (mut from_host, mut to_host) = tokio::io::split(far);
    let latency = Duration::from_millis(world.draw(|random| random.random_range(0..30)));
    let size = world.draw(|random| random.random_range(1..1500));
    let limit = match fate {
        Fate::Fine => usize::MAX,
        Fate::Cut(bytes) | Fate::Stall(bytes, _) | Fate::HalfOpen(bytes, _) => bytes,
    };
    // What the guest had sent when it gave the connection up.
    let mut last = Vec::new();
    let up = async {
        let (mut block, mut carried) = (vec![0; size], 0);
        while let Ok(count @ 1..) = from_guest.read(&mut block).await {
            sleep(latency).await;
            carried += count;
            if carried > limit {
                match fate {
                    Fate::Stall(_, time) => sleep(time).await,
                    Fate::HalfOpen(..) => last.extend_from_slice(&block[..count]),
                    _ => {}
                }
                if !matches!(fate, Fate::Stall(..)) {
                    return true;
                }
            }
            if to_host.write_all(&block[..count]).await.is_err() {
                break;
            }
        }
        let _ = to_host.shutdown().await;
        false
    };
    let down = async {
        let (mut block, mut carried) = (vec![0; size], 0);
        while let Ok(count @ 1..) = from_host.read(&mut block).await {
            sleep(latency).await;
            carried += count;
            if carried > limit {
                match fate {
                    Fate::Stall(_, time) => sleep(time).await,
                    _ => return true,
                }
            }
            if to_guest.write_all(&block[..count]).await.is_err() {
                break;
            }
        }
        let _ = to_guest.shutdown().await;
        false
    };
    {
        tokio::pin!(up, down);
        tokio::select! {
            cut = &mut up => if !cut { down.await; },
            cut = &mut down => if !cut { up.await; },
        }
    }
    if let Fate::HalfOpen(_, late) = fate {
        drop((from_guest, to_guest));
        sleep(late).await;
        let _ = to_host.write_all(&last).await;
    }
}

/// One request, on a connection of its own: the status and the body, unless it was cut.
async fn exchange(world: &Arc<World>, head: String, body: &[u8]) -> Option<(u16, Vec<u8>)> {
    let mut stream = world.connect();
    let length = body.len();
    let head = format!("{head}Host: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    let talk = async {
        stream.write_all(head.as_bytes()).await.ok()?;
        stream.write_all(body).await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
        let status = std::str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()?;
        let text = String::from_utf8_lossy(&answer[..end]).to_lowercase();
        let wanted = text.lines().find_map(|line| line.strip_prefix("content-length: "));
        let body = answer.split_off(end + 4);
        // Half an answer is none.
        (wanted.is_none_or(|wanted| wanted.parse() == Ok(body.len()))).then_some((status, body))
    };
    timeout(Duration::from_secs(45), talk).await.ok().flatten()
}

/// A model of the agent. May be dropped at any moment; another one goes on with what is kept.
async fn agent(world: Arc<World>, kept: Arc<Mutex<Kept>>) {
    let pause = || sleep(Duration::from_millis(world.draw(|random| random.random_range(50..2000))));
    let secret = loop {
        if let Some(secret) = kept.lock().unwrap().secret.clone() {
            break secret;
        }
        let head = "PUT /engine/v1/session HTTP/1.1\r\nMetaservice-Claim: word\r\n".to_owned();
        if let Some((200, body)) = exchange(&world, head, b"").await {
            let grant: serde_json::Value = serde_json::from_slice(&body).unwrap();
            kept.lock().unwrap().secret = Some(grant["secret"].as_str().unwrap().to_owned());
        }
        pause().await;
    };
    let head = |request: &str| format!("{request} HTTP/1.1\r\nMetaservice-Session: {secret}\r\n");
    while exchange(&world, head("GET /engine/v1/execute"), b"").await.is_none_or(|a| a.0 != 200) {
        pause().await;
    }
    let job = async {
        loop {
            let confirmed = kept.lock().unwrap().confirmed;
            let (written, all) = world.written();
            if confirmed < written {
                let most = world.draw(|random| random.random_range(1..5000));
                let end = written.min(confirmed + most);
                let stream = ActionId::parse("s").unwrap();
                let place = LogPlace { stream, offset: confirmed as u64 }.to_header();
                let request =
                    head("POST /engine/v1/log") + &format!("Metaservice-Log: {place}\r\n");
                match exchange(&world, request, &world.log[confirmed..end]).await {
                    Some((200, _)) => {
                        let mut kept = kept.lock().unwrap();
                        kept.confirmed = kept.confirmed.max(end);
                    }
                    Some((status, body)) => {
                        panic!("{status} {}", String::from_utf8_lossy(&body))
                    }
                    None => pause().await,
                }
            } else if all {
                break;
            } else {
                pause().await;
            }
        }
        let word = if world.success { "success" } else { "failed" };
        loop {
            match exchange(&world, head(&format!("PUT /engine/v1/{word}")), b"").await {
                Some((200, _)) => break,
                Some((status, _)) => panic!("the result is refused with {status}"),
                None => pause().await,
            }
        }
        kept.lock().unwrap().reported = true;
        std::future::pending::<()>().await;
    };
    let polls = async {
        loop {
            let Some((200, body)) = exchange(&world, head("GET /engine/v1/poll"), b"").await else {
                pause().await;
                continue;
            };
            let action: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let id = action["id"].as_str().unwrap().to_owned();
            let path = action["path"].as_str().unwrap();
            let (content, reply) = match action["type"].as_str().unwrap() {
                "none" => continue,
                "list-folder" => ("application/json", listing(path)),
                "get-artifact" => ("application/octet-stream", content(path)),
                other => panic!("{other}"),
            };
            let request = head(&format!("POST /engine/v1/reply?id={id}"));
            let request = request + &format!("Content-Type: {content}\r\n");
            if let Some((200, _)) = exchange(&world, request, &reply).await {
                *world.answered.lock().unwrap().entry(id).or_default() += 1;
            }
        }
    };
    tokio::join!(job, polls);
}

fn listing(path: &str) -> Vec<u8> {
    format!(r#"{{"files":["{path}/a","{path}/b"],"notFound":false}}"#).into_bytes()
}

fn content(path: &str) -> Vec<u8> {
    path.bytes().cycle().take(path.len() * 997 % 9000).collect()
}

fn service(folder: &std::path::Path) -> MetaService {
    let builder = MetaService::builder(["job"]).session(SessionMode::Required);
    builder.state(folder.join("state")).start().unwrap()
}

async fn simulate(seed: u64, folder: &std::path::Path) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut log = vec![0; random.random_range(0..40_000)];
    random.fill_bytes(&mut log);
    let success = random.random_bool(0.5);
    let troubles = random.random_range(0..30);
    let rate = random.random_range(50..20_000);
    let agents: Vec<u64> =
        (0..random.random_range(1..4)).map(|_| random.random_range(0..90)).collect();
    let wishes: Vec<(u64, bool, u32)> = (0..random.random_range(0..12))
        .map(|_| (random.random_range(0..120), random.random_bool(0.5), random.random()))
        .collect();
    let restarts: Vec<u64> =
        (0..random.random_range(0..3)).map(|_| random.random_range(1..80)).collect();
    let lingers = random.random_bool(0.3);
    let world = Arc::new(World {
        service: Mutex::new(service(folder)),
        troubles: Mutex::new(troubles),
        log,
        rate,
        begun: Instant::now(),
        success,
        answered: Mutex::default(),
        random: Mutex::new(random),
    });
    let kept = Arc::new(Mutex::new(Kept::default()));

    let asking = async {
        let mut asking = JoinSet::new();
        for (after, list, name) in wishes {
            let world = Arc::clone(&world);
            asking.spawn(async move {
                sleep(Duration::from_secs(after)).await;
                let path = format!("/{name:x}");
                let service = world.service.lock().unwrap().clone();
                if list {
                    // An error is an end; a wrong answer is none.
                    if let Ok(files) = service.list_folder(&path).await {
                        assert_eq!(files, [format!("{path}/a"), format!("{path}/b")]);
                    }
                } else if let Ok(mut artifact) = service.get_artifact(&path).await {
                    let mut all = Vec::new();
                    artifact.read_to_end(&mut all).await.unwrap();
                    assert!(all == content(&path));
                }
            });
        }
        while let Some(asked) = asking.join_next().await {
            asked.unwrap();
        }
    };
    let agents = async {
        let mut running = JoinSet::new();
        for lifetime in agents {
            if !lingers {
                running.abort_all();
            }
            running.spawn(agent(Arc::clone(&world), Arc::clone(&kept)));
            tokio::select! {
                () = sleep(Duration::from_secs(lifetime)) => {}
                ended = running.join_next() => drop(ended.unwrap().unwrap()),
            }
        }
        while let Some(ended) = running.join_next().await {
            // An agent never ends by itself; that it was killed is no error.
            assert!(ended.unwrap_err().is_cancelled());
        }
    };
    let replaced = async {
        for after in restarts {
            sleep(Duration::from_secs(after)).await;
            let old = world.service.lock().unwrap().clone();
            old.shutdown().await.unwrap();
            drop(old);
            // Its last connections hold it, until they are through.
            let next = loop {
                let builder = MetaService::builder(["job"]).session(SessionMode::Required);
                match builder.state(folder.join("state")).start() {
                    Ok(service) => break service,
                    Err(_) => {
                        // A clone in the world holds it too.
                        let spare = MetaService::builder(["spare"]).start().unwrap();
                        *world.service.lock().unwrap() = spare;
                        sleep(Duration::from_secs(1)).await;
                    }
                }
            };
            *world.service.lock().unwrap() = next;
        }
    };
    let resolved = async {
        tokio::join!(asking, replaced);
        while !kept.lock().unwrap().reported {
            sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        () = agents => unreachable!("agents do not end"),
        ended = timeout(LONG, resolved) => ended.expect("something never ends"),
    }
    let service = world.service.lock().unwrap().clone();
    let result = timeout(LONG, service.result()).await.expect("there is a result");
    assert_eq!(result.success, success);
    service.shutdown().await.unwrap();
    let written = std::fs::read(folder.join("state/log")).unwrap();
    assert!(written == world.log, "{} of {} bytes", written.len(), world.log.len());
    let answered = world.answered.lock().unwrap();
    let twice: BTreeSet<_> = answered.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
}

#[test]
fn whatever_the_weather_the_job_is_whole() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match number("METASERVICE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("METASERVICE_SEEDS").unwrap_or(2000),
    };
    for seed in seeds {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().start_paused(true).max_blocking_threads(1);
        let runtime = runtime.build().unwrap();
        let run = || runtime.block_on(simulate(seed, folder.path()));
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        assert!(ran.is_ok(), "METASERVICE_SEED={seed} fails");
    }
}
