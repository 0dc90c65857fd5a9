//! Ways around the policy of a guest, in a machine that sends what it likes: none passes.
//!
//! The tool runs in a network of its own, whose other side has servers at each address
//! (`bypass/outside.py`). A program in the guest (`bypass/guest`) tries each way, and prints a line
//! for it. It runs twice. First with a policy that allows everything: there each way must lead
//! somewhere, or else the probe is broken. Then with a strict one.
//!
//! A name in other letters or with its final dot is the same name, so these spellings pass.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use metaservice_testing::cli::{Cli, finish};
use metaservice_testing::outside::{Outside, Server};
use serde_json::Value;

use crate::METASERVICE;

const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vm/bypass");

/// Small tables, which the guest can fill.
const LIMITS: [&str; 7] = [
    "net-connections=64",
    "net-per-name=24",
    "net-names=64",
    "net-queries=100",
    "net-udp=16",
    "net-dial=5s",
    "half-open=32",
];

/// The rows of the tables of one run.
struct Run {
    cases: BTreeMap<String, Value>,
    /// What the servers have seen.
    arrivals: Vec<String>,
    /// The log of the network.
    records: Vec<Value>,
    stderr: String,
}

/// A host at each address that is not the tool's, with a resolver and servers.
struct World {
    outside: Outside,
    _servers: [Server; 2],
    arrivals: PathBuf,
}

impl World {
    fn start(cli: &Cli, mode: &str) -> Self {
        let directory = cli.work();
        let path = |name: &str| directory.join(format!("{name}.{mode}"));
        let outside = Outside::start(&directory, "");
        let [resolver, sources] = [path("resolv"), path("nsswitch")];
        std::fs::write(&resolver, "nameserver 11.1.0.53\noptions timeout:5\n").unwrap();
        std::fs::write(&sources, "passwd: files\ngroup: files\nhosts: files dns\n").unwrap();
        let script = |name: &str| format!("{FILES}/{name}.sh");
        let mut near = Command::new("sh");
        near.args(["-e", &script("near")]).args([resolver, sources]);
        succeed(&mut outside.near(&near));
        succeed(outside.far("sh").args(["-e", &script("far")]));
        let (chain, key, arrivals) = (path("chain"), path("key"), path("arrivals"));
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        openssl.args(["-nodes", "-days", "2", "-subj", "/CN=test", "-keyout"]).arg(&key);
        succeed(openssl.arg("-out").arg(&chain));
        let file = File::options().create(true).append(true).open(&arrivals).unwrap();
        let program = format!("{FILES}/outside.py");
        let serve =
            |command: &mut Command| outside.serve(command.stderr(file.try_clone().unwrap()));
        let mut far = outside.far("python3");
        far.args([&program, "outside"]).args([&chain, &key]);
        let mut host = Command::new("python3");
        host.args([&program, "host"]).args([&chain, &key]);
        let servers = [serve(&mut far), serve(&mut outside.near(&host))];
        Self { outside, _servers: servers, arrivals }
    }
}

#[track_caller]
fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Lets the guest try everything under a policy.
fn run(cli: &Cli, mode: &str, limits: &[&str]) -> Run {
    let world = World::start(cli, mode);
    let [log, stderr] = ["log", "stderr"].map(|name| cli.work().join(format!("{name}.{mode}")));
    let policy = format!("{FILES}/{mode}.toml");
    // The directory of the checkout may be below one that the guest has for itself.
    let volume = format!("{FILES}/guest:/mnt:ro");
    let mut args = vec!["run", "-i", "--name", mode, "--net-policy", &policy];
    args.extend(["--net-log", log.to_str().unwrap(), "--rootfs", "/", "--volume", &volume]);
    for limit in limits {
        args.extend(["--limit", limit]);
    }
    args.extend(["--", "python3", "-u", "/mnt/main.py", mode]);
    let mut command = world.outside.near(&cli.command(args));
    command.stdin(Stdio::piped()).stderr(File::create(&stderr).unwrap());
    let mut child = command.spawn().unwrap();
    let cases = follow(cli, mode, &mut child);
    let status = finish(child).status;
    let stderr = std::fs::read_to_string(stderr).unwrap();
    assert_eq!(status, Some(0), "{stderr}");
    let read = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    let records = read(&log).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let arrivals = read(&world.arrivals).lines().map(str::to_owned).collect();
    Run { cases, arrivals, records, stderr }
}

/// Prints the line of each case, and changes the policy when the guest waits for that.
fn follow(cli: &Cli, mode: &str, child: &mut Child) -> BTreeMap<String, Value> {
    let mut stdin = child.stdin.take();
    let mut cases = BTreeMap::new();
    let mut last = String::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        last = line.unwrap();
        if last == "RELOAD" {
            if mode == "strict" {
                for name in ["reload.test", "slow.test"] {
                    cli.run(&["net", "deny", mode, name]).text(0);
                }
            }
            stdin.take().unwrap().write_all(b"\n").unwrap();
        }
        let Some(case) = last.strip_prefix("CASE ") else { continue };
        let case: Value = serde_json::from_str(case).unwrap();
        let name = case["name"].as_str().unwrap().to_owned();
        println!("{mode}: {name}: {} {}", case["result"], case["detail"]);
        assert!(cases.insert(name, case).is_none(), "a case is there twice: {last}");
    }
    assert_eq!(last, "DONE");
    cases
}

fn names(run: &Run, wanted: impl Fn(&Value) -> bool) -> Vec<&str> {
    run.cases.iter().filter(|(_, case)| wanted(case)).map(|(name, _)| &name[..]).collect()
}

/// Whether a record is of an attempt `[protocol, name or address, port]`, as the guest calls it.
fn is_of(record: &Value, attempt: &Value) -> bool {
    record["protocol"] == attempt[0]
        && (record["name"] == attempt[1] || record["address"] == attempt[1])
        && record["port"] == attempt[2]
}

#[test]
fn no_way_around_the_policy_passes() {
    let cli = Cli::new(METASERVICE);
    let open = run(&cli, "open", &["net-queries=100000"]);
    let broken = |case: &Value| case["result"] != "passed" && case["result"] != "skipped";
    assert_eq!(names(&open, broken), [""; 0], "probes that find no way at all");

    let strict = run(&cli, "strict", &LIMITS);
    assert!(strict.cases.keys().eq(open.cases.keys()));
    let legitimate = |case: &Value| case["legitimate"] == true;
    let passed = |case: &Value| !legitimate(case) && case["result"] == "passed";
    assert_eq!(names(&strict, passed), [""; 0], "ways around the policy");
    let waits = |case: &Value| !legitimate(case) && case["result"] != "refused";
    assert_eq!(names(&strict, waits), [""; 0], "cases whose client gets no answer, or breaks");
    let lost = |case: &Value| legitimate(case) && case["result"] != "passed";
    assert_eq!(names(&strict, lost), [""; 0], "what is allowed and does not pass");
    assert!(strict.cases.len() >= 250, "{}", strict.cases.len());

    nothing_else_arrived(&strict);
    each_denial_is_recorded(&strict);
    // The user reads some of what a guest is denied, and not thousands of lines.
    let told = strict.stderr.lines().filter(|line| line.contains("denied")).count();
    assert!((5..=21).contains(&told), "{told} lines: {}", strict.stderr);
    assert!(strict.stderr.contains("more is denied: metaservice net log"), "{}", strict.stderr);
}

/// The servers have their own view: what the guest did not see may have arrived there.
fn nothing_else_arrived(strict: &Run) {
    let allowed = [
        "asked ",
        "accept at 11.0.0.2 ",
        "accept at 11.0.0.4 443",
        "http probe.test at 11.0.0.2 8000 /",
        "http allowed.test at 11.0.0.2 80 /",
        "http ALLOWED.Test at 11.0.0.2 80 /",
        "http allowed.test:80 at 11.0.0.2 80 /",
        "http allowed.test. at 11.0.0.2 80 /",
        "tls allowed.test at 11.0.0.2 443",
        "tls ALLOWED.test at 11.0.0.2 443",
        "tls tls.test at 11.0.0.4 443",
        "udp allowed at 11.0.0.2 4000",
        "udp large at 11.0.0.2 4000",
        "udp association at 11.0.0.2 4000",
        "udp datagram at 11.0.0.2 9001",
        "error ",
    ];
    let outside = |line: &&String| {
        !line.strip_prefix("outside ").is_some_and(|it| allowed.iter().any(|ok| it.starts_with(ok)))
    };
    assert_eq!(strict.arrivals.iter().filter(outside).collect::<Vec<_>>(), [""; 0]);
    // Frames whose form is wrong had a port each.
    let connected =
        |port: &u16| strict.arrivals.contains(&format!("outside accept at 11.0.0.2 {port}"));
    assert_eq!((9000..9098).filter(connected).collect::<Vec<_>>(), [9000]);
    // Names that are not allowed did not leave the host.
    let asked = |name: &str| strict.arrivals.iter().any(|line| line.contains(name));
    for name in ["other.test", "denied.test", "aaaa.", "www.allowed"] {
        assert!(!asked(&format!("asked {name}")) && !asked(&format!("{name} ")), "{name}");
    }
}

/// Each thing that was refused has its own line in the log.
fn each_denial_is_recorded(strict: &Run) {
    let mut attempts: BTreeMap<String, (Value, usize)> = BTreeMap::new();
    for case in strict.cases.values().filter(|case| case["result"] == "refused") {
        if let Some(attempt) = case["attempts"].as_array().unwrap().last() {
            attempts.entry(attempt.to_string()).or_insert((attempt.clone(), 0)).1 += 1;
        }
    }
    assert!(attempts.len() > 60, "{attempts:?}");
    for (attempt, count) in attempts.values() {
        let denied = |it: &&Value| it["verdict"] == "denied" || it["reason"] == "policy";
        let records = strict.records.iter().filter(denied);
        let found = records.filter(|record| is_of(record, attempt)).count();
        assert!(found >= *count, "{found} records of {count} attempts: {attempt}");
    }
    for reason in ["limit", "wrong-name", "packet", "not-public", "no-rule", "policy"] {
        assert!(strict.records.iter().any(|it| it["reason"] == reason), "{reason}");
    }
}
