//! Each verb with a real machine.
use metaservice_testing::cli::{Cli, finish};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use crate::METASERVICE;

const WAIT: &str = "while [ ! -e /tmp/done ]; do sleep 1; done";

#[test]
fn a_job_is_seen_and_waited_for() {
    let cli = Cli::new(METASERVICE);
    let script = format!("echo one; echo two; echo three; echo ready; {WAIT}; echo last; exit 5");
    let mut job = cli.start("seen", &["--", "sh", "-c", &script]);
    job.wait_for_log("ready");
    assert_eq!(cli.run(&["logs", "seen"]).text(0), "one\ntwo\nthree\nready\n");
    assert_eq!(cli.run(&["logs", "--tail", "2", "seen"]).text(0), "three\nready\n");
    assert_eq!(cli.run(&["logs", "--since", "1h", "-n", "1", "seen"]).text(0), "ready\n");
    assert_eq!(cli.run(&["logs", "--since", "4102444800", "seen"]).text(0), "");

    let entry: serde_json::Value =
        serde_json::from_str(&cli.run(&["inspect", "seen"]).text(0)).unwrap();
    assert_eq!(entry["state"], "running");
    let machine = &entry["machine"];
    assert_eq!((&machine["cpus"], &machine["memory"]), (&1.into(), &(1_u64 << 30).into()));
    assert_eq!((&machine["image"], &machine["snapshot"]), (&"builtin".into(), &false.into()));
    // The guest has fetched its command over the card.
    assert!(machine["card"]["bytesReceived"].as_u64() > Some(0), "{machine}");
    assert!(machine["card"]["connections"].as_u64() > Some(0), "{machine}");
    assert!(machine["accelerator"] == "tcg" || machine["accelerator"] == "kvm", "{machine}");
    assert!(entry["agent"]["capabilities"].as_array().unwrap().len() > 5, "{entry}");
    let jobs: serde_json::Value =
        serde_json::from_str(&cli.run(&["ps", "--json"]).text(0)).unwrap();
    assert_eq!(jobs[0]["name"], "seen");

    let stats: serde_json::Value =
        serde_json::from_str(&cli.run(&["stats", "--json", "--no-stream", "seen"]).text(0))
            .unwrap();
    assert!(stats["memoryTotal"].as_u64().unwrap() > 100_000_000, "{stats}");
    assert!(stats["cpus"] == 1 && stats["processes"].as_u64().unwrap() > 1, "{stats}");
    let table = cli.run(&["stats", "--no-stream", "seen"]).text(0);
    assert!(table.lines().count() == 2 && table.contains("CPU %"), "{table}");
    let mut followed = cli.command(["stats", "--interval", "200ms", "seen"]).spawn().unwrap();
    let lines = BufReader::new(followed.stdout.take().unwrap()).lines().take(4);
    assert_eq!(lines.map_while(Result::ok).count(), 4);

    let following = cli.command(["logs", "-f", "--tail", "1", "seen"]).spawn().unwrap();
    let mut watching = cli.command(["stats", "--interval", "100ms", "seen"]).spawn().unwrap();
    let mut seen = BufReader::new(watching.stdout.take().unwrap()).lines();
    assert!(seen.next().unwrap().unwrap().contains("CPU %"));
    let waiting = cli.command(["wait", "seen"]).spawn().unwrap();
    cli.release("seen");
    assert_eq!(finish(waiting).text(5), "5\n");
    assert_eq!(finish(following).text(0), "ready\nlast\n");
    job.finish().text(5);
    assert!(seen.map_while(Result::ok).count() > 0);
    let watched = finish(watching);
    assert_eq!((watched.status, watched.stderr.as_str()), (Some(0), ""));
    finish(followed);
}

#[test]
fn a_command_runs_in_its_own_surroundings() {
    let cli = Cli::new(METASERVICE);
    let script = format!("trap 'echo hup' HUP; echo ready; {WAIT}");
    let mut job = cli.start("around", &["-e", "A=1", "--", "sh", "-c", &script]);
    job.wait_for_log("ready");
    let show = [
        "exec",
        "-e",
        "B=2",
        "-w",
        "/tmp",
        "-u",
        "7:8",
        "around",
        "--",
        "sh",
        "-c",
        "echo $A $B $(pwd) $(id -u):$(id -g)",
    ];
    assert_eq!(cli.run(&show).text(0), "1 2 /tmp 7:8\n");
    let unknown = cli.run(&["exec", "-u", "no-such-user", "around", "true"]);
    assert!(unknown.stderr.contains("no-such-user"), "{}", unknown.stderr);
    let pid = cli.run(&["exec", "-d", "around", "sh", "-c", "echo $$ > /tmp/pid"]).text(0);
    let read = "while [ ! -s /tmp/pid ]; do sleep 0.1; done; cat /tmp/pid";
    assert_eq!(cli.run(&["exec", "around", "sh", "-c", read]).text(0), pid);
    cli.run(&["kill", "-s", "SIGHUP", "around"]).text(0);
    job.wait_for_log("hup");

    let make = "mkdir -p /tmp/d/e; cd /tmp/d; echo 12345 > f; chmod 4711 f; ln -s f l; : > e/g; \
        touch -d '2024-05-01 12:00:00' f; : > \"$(printf 'a\\033b')\"";
    cli.run(&["exec", "around", "sh", "-c", make]).text(0);
    assert_eq!(cli.run(&["ls", "around", "/tmp/d"]).text(0), "a\x1bb\ne\nf\nl\n");
    let deep = cli.run(&["ls", "-R", "around", "/tmp/d"]).text(0);
    assert!(deep.lines().any(|line| line == "e/g"), "{deep}");
    let long = cli.run(&["ls", "-l", "around", "/tmp/d"]).text(0);
    let line = long.lines().find(|line| line.ends_with(" f")).unwrap();
    assert!(line.starts_with("-rws--x--x 1 root root"), "{long}");
    assert!(line.contains(" 6 2024-05-01 12:00"), "{long}");
    assert!(long.contains(" l -> f") && long.contains("a\u{fffd}b"), "{long}");
    let missing = cli.run(&["ls", "around", "/no/such"]);
    assert!(missing.status == Some(125) && missing.stderr.lines().count() == 1, "{missing:?}");
    cli.run(&["kill", "around"]).text(0);
    // The shell ends by SIGTERM.
    assert_eq!(job.finish().status, Some(143));
}

#[test]
fn ports_lead_into_the_guest() {
    let cli = Cli::new(METASERVICE);
    let script = format!("ip link set lo up; nc -ll -p 7 -e cat & echo ready; {WAIT}; kill %1");
    let mut job = cli.start("ports", &["--", "sh", "-c", &script]);
    job.wait_for_log("ready");
    let mut forward = cli.command(["forward", "ports", "0:7", "0:9"]).spawn().unwrap();
    let mut told = BufReader::new(forward.stdout.take().unwrap()).lines();
    let mut address = |port: u16| {
        let line = told.next().unwrap().unwrap();
        let (address, to) = line.split_once(" -> ").unwrap();
        assert_eq!(to, port.to_string());
        address.to_owned()
    };
    let (echo, closed) = (address(7), address(9));
    let talk = |address: String, content: Vec<u8>| {
        std::thread::spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            let mut to = stream.try_clone().unwrap();
            let sent = content.clone();
            let sending = std::thread::spawn(move || {
                to.write_all(&sent).unwrap();
                to.shutdown(std::net::Shutdown::Write).unwrap();
            });
            let mut back = Vec::new();
            stream.read_to_end(&mut back).unwrap();
            sending.join().unwrap();
            assert!(back == content, "{} of {} bytes", back.len(), content.len());
        })
    };
    let connections: Vec<_> =
        (1..=4u8).map(|n| talk(echo.clone(), vec![n; 300_000 * usize::from(n)])).collect();
    connections.into_iter().for_each(|connection| connection.join().unwrap());
    // Without a listener in the guest, this connection ends. The others stay.
    let mut refused = TcpStream::connect(&closed).unwrap();
    let _ = refused.read_to_end(&mut Vec::new());
    talk(echo, b"still".to_vec()).join().unwrap();
    cli.release("ports");
    job.finish();
    // The verb ends with the job.
    finish(forward).text(0);
}

#[test]
fn the_main_command_has_a_terminal_where_it_is_asked_for() {
    let cli = Cli::new(METASERVICE);
    let seen = cli.run(&["run", "-t", "--", "sh", "-c", "test -t 0 && stty size"]).text(0);
    assert_eq!(seen, "24 80\r\n");
    let late = ["run", "--json", "--timeout", "2", "--", "sleep", "1000"];
    let late = cli.run(&late);
    assert_eq!(late.status, Some(124));
}
