//! The network of a guest: one card, whose gateway follows a policy.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use metaservice_testing::cli::{Cli, Finished, Job, finish, wait_for_line};
use metaservice_testing::outside::Outside;
use rustix::process::Signal;
use serde_json::Value;

use crate::METASERVICE;

/// What a [`Server`] says.
pub(crate) const CONTENT: &str = "from the host";

/// Serves one page at a port of an address of the host, to each client.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) fn start(address: Ipv4Addr) -> Self {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        // It ends with the process of the test.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                std::thread::spawn(move || serve(stream.unwrap()));
            }
        });
        Self { address }
    }

    pub(crate) fn rule(&self) -> String {
        format!("host:{}", self.address.port())
    }
}

fn serve(mut stream: TcpStream) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
        request.push(byte[0]);
    }
    let length = CONTENT.len();
    let answer = format!("HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n{CONTENT}");
    // A client that is cut goes without it.
    let _ = stream.write_all(answer.as_bytes());
    let _ = stream.shutdown(Shutdown::Both);
}

/// The events of a name that a run has reported by `--json`.
fn events(finished: &Finished, name: &str) -> Vec<Value> {
    let lines = finished.stderr.lines().filter_map(|line| serde_json::from_str(line).ok());
    lines.filter(|event: &Value| event["event"] == name).collect()
}

/// The addresses of this host besides its loopback.
fn own_addresses() -> Vec<Ipv4Addr> {
    let output = std::process::Command::new("ip").args(["-4", "-o", "addr"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let words = text.lines().filter_map(|line| line.split_whitespace().nth(3)?.split_once('/'));
    words.filter_map(|(ip, _)| ip.parse().ok()).filter(|ip: &Ipv4Addr| !ip.is_loopback()).collect()
}

#[test]
fn without_a_policy_all_is_denied_at_once_and_told_with_the_flag_that_allows_it() {
    let cli = Cli::new(METASERVICE);
    let script = "before=$(cut -d. -f1 /proc/uptime); \
                  wget -O- http://a.example/ 2>&1; wget -O- http://a.example/ 2>&1; \
                  wget -O- http://203.0.113.9:8080/ 2>&1; \
                  echo $(($(cut -d. -f1 /proc/uptime) - before))";
    let finished = cli.run(&["run", "--", "sh", "-c", script]);
    let text = finished.text(0);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..2], ["wget: bad address 'a.example'"; 2], "{text}");
    assert!(lines[3].ends_with("(203.0.113.9): Connection refused"), "{text}");
    let seconds: u32 = lines[4].parse().unwrap();
    assert!(seconds <= 2, "{text}");
    for rule in ["a.example", "203.0.113.9:8080"] {
        let told = format!("--allow-net {rule}\n");
        assert_eq!(finished.stderr.matches(&told).count(), 1, "{}", finished.stderr);
    }
    assert_eq!(finished.stderr.matches("is denied").count(), 2, "{}", finished.stderr);
}

#[test]
fn a_rule_leads_to_one_port_of_the_host_and_each_attempt_is_recorded() {
    let cli = Cli::new(METASERVICE);
    let (server, other) = (Server::start(Ipv4Addr::LOCALHOST), Server::start(Ipv4Addr::LOCALHOST));
    let (port, denied) = (server.address.port(), other.address.port());
    let script = format!(
        "wget -qO- http://host:{port}/; echo; wget -O- http://host:{denied}/ 2>&1 | tail -n 1; \
         wget -O- http://127.0.0.1:{port}/ 2>&1 | tail -n 1; \
         wget -O- http://10.0.2.2:{port}/ 2>&1 | tail -n 1"
    );
    let rule = server.rule();
    let args = ["run", "--allow-net", &rule, "--net-log", "net", "--", "sh", "-c", &script];
    let text = cli.run(&args).text(0);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert_eq!(lines[0], CONTENT);
    assert!(lines[1..].iter().all(|line| line.ends_with("Connection refused")), "{text}");
    let log = std::fs::read_to_string(cli.work().join("net")).unwrap();
    let records: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let tcp: Vec<_> = records.iter().filter(|record| record["protocol"] == "tcp").collect();
    // The guest's own loopback does not leave it.
    assert_eq!(tcp.len(), 3, "{log}");
    let verdicts = tcp.iter().map(|it| (it["verdict"].as_str().unwrap(), it["port"].as_u64()));
    let expected = [
        ("allowed", Some(port.into())),
        ("denied", Some(denied.into())),
        ("denied", Some(port.into())),
    ];
    assert_eq!(verdicts.collect::<Vec<_>>(), expected, "{log}");
    assert!(tcp[0]["received"].as_u64() > Some(CONTENT.len() as u64), "{log}");
}

#[test]
fn the_log_of_a_job_that_has_ended_is_read_from_its_file() {
    let cli = Cli::new(METASERVICE);
    let script = "wget -qO- http://a.example/; wget -qO- http://203.0.113.9/; true";
    let run = |name, options: &[&str]| {
        let args = [&["run", "--name", name], options, &["--", "sh", "-c", script]].concat();
        cli.run(&args).text(0);
        cli.run(&["net", "log", name])
    };
    let named = run("named", &["--net-log", "net"]).text(0);
    assert_eq!(named, std::fs::read_to_string(cli.work().join("net")).unwrap());
    let tried = |log: &str| {
        let records = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        records.map(|it| (it["name"].clone(), it["address"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(tried(&named).last().unwrap().1, "203.0.113.9");
    // With rules, it is kept with the job.
    let kept = run("kept", &["--allow-net", "b.example"]).text(0);
    assert_eq!(tried(&kept), tried(&named));
    let none = run("none", &[]);
    none.text(125);
    let told = "cannot read the network log of none: no log is kept";
    assert!(none.stderr.contains(told), "{}", none.stderr);
    assert!(none.stderr.contains("hint: start the job with --net-log FILE"), "{}", none.stderr);
}

#[test]
fn the_log_is_a_plain_file_and_a_full_disk_ends_it_with_one_line() {
    let cli = Cli::new(METASERVICE);
    let made = std::process::Command::new("mkfifo").arg(cli.work().join("fifo")).status();
    assert!(made.unwrap().success());
    let fifo = cli.run(&["run", "--net-log", "fifo", "--", "true"]);
    fifo.text(125);
    let told = "cannot write --net-log fifo: it is not a plain file";
    assert_eq!(fifo.stderr.matches(told).count(), 1, "{}", fifo.stderr);
    assert!(fifo.stderr.contains("hint: "), "{}", fifo.stderr);

    let outside = Outside::start(&cli.work(), "");
    let script = "for name in $(seq 100); do nslookup n$name.example > /dev/null; done; echo up";
    let tool = cli.command(["run", "--net-log", "full/net", "--", "sh", "-c", script]);
    // A disk of two pages, on which the tool runs.
    let mut disk = std::process::Command::new("sh");
    let script = "mkdir full; mount -t tmpfs -o size=8k none full; \"$@\" && cat full/net";
    disk.args(["-ec", script, "sh"]).arg(tool.get_program()).args(tool.get_args());
    disk.envs(tool.get_envs().filter_map(|(name, value)| Some((name, value?))));
    disk.current_dir(cli.work());
    let finished = finish(outside.near(&disk).spawn().unwrap());
    let text = finished.text(0);
    let log = text.strip_prefix("up\n").unwrap();
    let records = log.lines().filter(|line| serde_json::from_str::<Value>(line).is_ok()).count();
    assert!((10..100).contains(&records) && log.ends_with('\n'), "{log}");
    assert_eq!(log.lines().count(), records, "{log}");
    let told = "--net-log full/net ends here, the job continues: No space left on device";
    assert_eq!(finished.stderr.matches(told).count(), 1, "{}", finished.stderr);
}

#[test]
fn what_is_open_reaches_nothing_of_this_host_and_the_service_stays() {
    let cli = Cli::new(METASERVICE);
    let own = own_addresses();
    assert!(!own.is_empty());
    let server = Server::start(Ipv4Addr::UNSPECIFIED);
    let port = server.address.port();
    let private =
        ["10.0.2.2", "10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "169.254.1.1"];
    let private = private.map(str::to_owned).into_iter();
    let all: Vec<_> = own.iter().map(ToString::to_string).chain(private).collect();
    let script = format!(
        "for ip in {}; do wget -O- http://$ip:{port}/ 2>&1 | tail -n 1; done; \
         wget -O- http://host:{port}/ 2>&1 | tail -n 1; \
         wget -O- http://169.254.170.2/ 2>&1 | tail -n 1; \
         wget -O- http://169.254.169.254/none 2>&1 | tail -n 1",
        all.join(" ")
    );
    let text = cli.run(&["run", "--net", "open", "--", "sh", "-c", &script]).text(0);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), all.len() + 3, "{text}");
    let (service, refused) = lines.split_last().unwrap();
    assert!(service.contains("404"), "{text}");
    for line in refused {
        let unknown = line.contains("bad address 'host:");
        assert!(line.ends_with("Connection refused") || unknown, "{line} in {text}");
    }
}

#[test]
fn a_card_has_one_address_a_route_and_a_resolver_also_by_dhcp_and_under_a_root() {
    let cli = Cli::new(METASERVICE);
    let script = "cat /etc/resolv.conf; ip -4 -o addr show dev eth0 | grep -o 'inet [0-9./]*'; \
                  ip route | grep -o 'default via [0-9.]*'";
    let expected = "nameserver 10.0.2.2\ninet 10.0.2.15/24\ndefault via 10.0.2.2\n";
    assert_eq!(cli.run(&["run", "--", "sh", "-c", script]).text(0), expected);
    let root = ["run", "--rootfs", "/", "--", "sh", "-c", script];
    assert_eq!(cli.run(&root).text(0), expected);
    let script = "echo '#!/bin/sh\nenv' > /tmp/script; chmod +x /tmp/script; \
                  udhcpc -i eth0 -n -q -f -s /tmp/script 2> /dev/null";
    let offered = cli.run(&["run", "--", "sh", "-c", script]).text(0);
    for option in ["ip=10.0.2.15", "mask=24", "router=10.0.2.2", "dns=10.0.2.2"] {
        assert!(offered.lines().any(|line| line == option), "{option} is not in {offered}");
    }
}

#[test]
fn a_guest_knows_its_own_name_without_a_question() {
    let cli = Cli::with_cache(METASERVICE);
    cli.run(&["image", "snapshot", "builtin"]).text(0);
    let script = "cat /etc/hosts; ping -c 1 -q $(uname -n) | head -n 1";
    let by_program = "cat /etc/hosts; getent ahostsv4 $(uname -n) | head -n 1";
    let hosts = "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 web\n";
    for (options, script, answer) in [
        (&["--no-snapshot"][..], script, "PING web (127.0.1.1): "),
        (&[], script, "PING web (127.0.1.1): "),
        (&["--rootfs", "/"], by_program, "127.0.1.1 "),
    ] {
        let run = ["run", "--hostname", "web", "--net-log", "net"];
        let finished = cli.run(&[&run[..], options, &["--", "sh", "-c", script]].concat());
        let text = finished.text(0);
        let found = text.strip_prefix(hosts).is_some_and(|rest| rest.starts_with(answer));
        assert!(found, "{options:?}: {text}");
        let log = std::fs::read_to_string(cli.work().join("net")).unwrap();
        assert!(log.is_empty() && !finished.stderr.contains("denied"), "{options:?}: {log}");
    }
}

#[test]
fn a_machine_with_a_policy_starts_from_the_snapshot_of_all() {
    let cli = Cli::with_cache(METASERVICE);
    cli.run(&["image", "snapshot", "builtin"]).text(0);
    let server = Server::start(Ipv4Addr::LOCALHOST);
    let script = format!("wget -qO- http://host:{}/", server.address.port());
    let rule = server.rule();
    for _ in 0..2 {
        let run = ["run", "--json", "--allow-net", &rule, "--", "sh", "-c", &script];
        let finished = cli.run(&run);
        assert_eq!(finished.text(0), CONTENT);
        assert_eq!(events(&finished, "restored").len(), 1, "{}", finished.stderr);
    }
    let none = cli.run(&["run", "--json", "--", "sh", "-c", &script]);
    none.text(1);
    assert_eq!(events(&none, "restored").len(), 1, "{}", none.stderr);
    assert_eq!(events(&none, "denied").len(), 1, "{}", none.stderr);
}

#[test]
fn each_failure_of_the_guest_is_explained_once() {
    let cli = Cli::new(METASERVICE);
    let script = "for url in www.evil.example none.invalid none.invalid host:1; do \
                  wget -qO- http://$url/; done; true";
    let args = ["run", "--json", "--net", "open", "--deny-net", "*.evil.example", "--"];
    let finished = cli.run(&[&args[..], &["sh", "-c", script]].concat());
    finished.text(0);
    let denied = events(&finished, "denied");
    assert_eq!(denied.len(), 2, "{}", finished.stderr);
    assert_eq!(denied[0]["attempt"]["rule"], "*.evil.example", "{}", finished.stderr);
    assert_eq!(denied[1]["attempt"]["name"], "host", "{}", finished.stderr);
    let unresolved = events(&finished, "unresolved");
    assert_eq!(unresolved.len(), 1, "{}", finished.stderr);
    assert_eq!(unresolved[0]["attempt"]["name"], "none.invalid");

    let words = cli.run(&[&["run"], &args[2..], &["sh", "-c", script]].concat()).stderr;
    for line in [
        "the guest is denied the name www.evil.example by the rule *.evil.example\n",
        "the host cannot resolve none.invalid\n",
        "is denied the name host; to allow a port of this host: --allow-net host:PORT\n",
    ] {
        assert_eq!(words.matches(line).count(), 1, "{words}");
    }
}

#[test]
fn ports_that_are_published_lead_into_the_guest() {
    let cli = Cli::new(METASERVICE);
    let script = "mkdir /tmp/www; echo from the guest > /tmp/www/index.html; httpd -h /tmp/www; \
                  echo ready; sleep 1000";
    let args = ["run", "--json", "--name", "web", "--publish", "0:80"];
    let mut child = cli.command(args).args(["--", "sh", "-c", script]).spawn().unwrap();
    let (published, stderr) = wait_for_line(&mut child, "\"event\":\"published\"");
    let mut job = Job { child, stderr, client: cli.client("unused") };
    job.wait_for_log("ready\n");
    let inspected = cli.run(&["inspect", "web"]).text(0);
    assert!(inspected.contains("\"guestPort\": 80"), "{inspected}");
    let published: Value = serde_json::from_str(&published).unwrap();
    let address: SocketAddr = published["address"].as_str().unwrap().parse().unwrap();
    assert!(address.ip().is_loopback() && address.port() != 0, "{published}");
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("\r\n\r\nfrom the guest\n"), "{answer}");

    let taken = format!("{}:80", address.port());
    let refused = cli.run(&["run", "--publish", &taken, "--", "true"]);
    refused.text(125);
    let told = format!("cannot listen on {address}");
    assert!(refused.stderr.contains(&told), "{}", refused.stderr);
    assert!(refused.stderr.contains("hint: "), "{}", refused.stderr);
    job.signal(Signal::TERM);
    assert_eq!(job.finish().status, Some(143));
}

#[test]
fn a_published_port_of_udp_leads_into_the_guest_and_back() {
    let cli = Cli::new(METASERVICE);
    let script = "import socket\n\
                  s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                  s.bind(('', 53))\n\
                  print('ready', flush=True)\n\
                  data, peer = s.recvfrom(99)\n\
                  s.sendto(data, peer)";
    let args = ["run", "--json", "--rootfs", "/", "--publish", "0:53/udp"];
    let mut child = cli.command(args).args(["--", "python3", "-c", script]).spawn().unwrap();
    let (published, stderr) = wait_for_line(&mut child, "\"event\":\"published\"");
    let mut job = Job { child, stderr, client: cli.client("unused") };
    job.wait_for_log("ready\n");
    let published: Value = serde_json::from_str(&published).unwrap();
    assert_eq!(published["guestPort"], "53/udp");
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(published["address"].as_str().unwrap()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    client.send(b"ping").unwrap();
    let mut echo = [0; 16];
    assert_eq!(client.recv(&mut echo).unwrap(), 4);
    assert!(echo.starts_with(b"ping"));
    job.finish().text(0);
}

#[test]
fn a_policy_changes_while_the_job_runs_and_cuts_what_it_no_longer_allows() {
    let cli = Cli::new(METASERVICE);
    let server = Server::start(Ipv4Addr::LOCALHOST);
    // A server that never ends its connections.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, open) = (server.address.port(), listener.local_addr().unwrap().port());
    let script = format!(
        "(nc host {open}; echo cut) & until wget -qO- http://host:{port}/ 2> /dev/null; \
         do sleep 0.1; done; echo; wait"
    );
    let args = ["--allow-net", &format!("host:{open}"), "--", "sh", "-c", &script];
    let mut job = cli.start("changer", &args);
    let (mut held, _) = listener.accept().unwrap();
    let rule = server.rule();
    let broken = cli.run(&["net", "allow", "changer", &rule, "host"]);
    assert_ne!(broken.status, Some(0));
    cli.run(&["net", "allow", "changer", &rule]).text(0);
    job.wait_for_log(CONTENT);
    cli.run(&["net", "deny", "changer", &format!("host:{open}")]).text(0);
    job.wait_for_log("cut\n");
    // The peer of the connection is cut, too.
    held.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let end = held.read(&mut [0]);
    assert!(matches!(&end, Ok(0)) || end.is_err_and(|it| it.kind() == ErrorKind::ConnectionReset));
    job.finish().text(0);
}
