//! Real clients, in a guest whose policy has five names, with real servers on this machine.
//!
//! The clients are those of this machine, under `--rootfs /`. The servers are on the far side of
//! an [`Outside`], at the ports that clients know: 22, 80 and 443. All names are test names, and a
//! CA of the test signs the certificates.

use std::process::Command;

use metaservice_testing::cli::{Cli, Finished, finish};
use metaservice_testing::outside::{Outside, Server};
use metaservice_testing::wait::TIMEOUT;
use serde_json::Value;

use crate::METASERVICE;

/// What each guest of this file may connect to.
const POLICY: &str = r#"
allow = [
    "packages.test:443",
    "deb.test:80",
    "git.test:22,443",
    "www.test:80,443",
    "ws.test:443",
]
"#;

/// Names of the far side. The last one is not in the policy.
const HOSTS: &str = "11.0.0.2 packages.test deb.test git.test www.test other.test\n\
                     11.0.0.3 ws.test\n";

/// What clients need to trust a CA of one's own, as the guide says.
const CA: [&str; 6] = [
    "SSL_CERT_FILE=/test/ca.pem",
    "PIP_CERT=/test/ca.pem",
    "REQUESTS_CA_BUNDLE=/test/ca.pem",
    "npm_config_cafile=/test/ca.pem",
    "CARGO_HTTP_CAINFO=/test/ca.pem",
    "GIT_SSL_CAINFO=/test/ca.pem",
];

/// The servers, and the parts of clients that are not a program of this machine.
const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vm/clients");

/// Servers, their content, and a tool whose host has a way to them.
struct Site {
    servers: Vec<Server>,
    outside: Outside,
    // Last: its files are those of the servers.
    cli: Cli,
}

impl Site {
    /// Starts the servers of HTTP. So many connections ask for `/together` at once.
    fn start(connections: usize) -> Self {
        let cli = Cli::new(METASERVICE);
        let work = cli.work();
        let made = python("content.py").arg(&work).status().unwrap();
        assert!(made.success());
        std::fs::write(work.join("net.toml"), POLICY).unwrap();
        let outside = Outside::start(&work, HOSTS);
        let mut site = Self { servers: Vec::new(), outside, cli };
        site.serve(python("server.py").arg(work).arg(connections.to_string()));
        site
    }

    fn serve(&mut self, server: &Command) {
        let mut command = self.outside.far(server.get_program());
        self.servers.push(self.outside.serve(command.args(server.get_args())));
    }

    /// Runs a script with the clients of this machine. The files of the test are in `/test`.
    fn run(&self, options: &[&str], script: &str) -> Finished {
        finish(self.outside.near(&self.command(options, script)).spawn().unwrap())
    }

    fn command(&self, options: &[&str], script: &str) -> Command {
        let mut command = self.cli.command(["run", "--rootfs", "/", "-v", ".:/test"]);
        command.arg("-v").arg(format!("{PROGRAMS}:/clients"));
        command.args(["--net-policy", "./net.toml", "--net-log", "net.jsonl", "-e", "HOME=/tmp"]);
        command.arg("-e").arg(format!("PATH={}", std::env::var("PATH").unwrap()));
        for variable in CA {
            command.args(["-e", variable]);
        }
        command.args(options).args(["--", "sh", "-ec", script]);
        command
    }

    /// What the guest has tried: name and port, and the verdict.
    fn attempts(&self) -> Vec<(String, Option<u64>, String)> {
        let log = std::fs::read_to_string(self.cli.work().join("net.jsonl")).unwrap();
        let record = |line: &str| {
            let record: Value = serde_json::from_str(line).unwrap();
            let text = |field: &str| record[field].as_str().unwrap_or_default().to_owned();
            (text("name"), record["port"].as_u64(), text("verdict"))
        };
        log.lines().map(record).collect()
    }

    /// Checks that the guest has tried this, and nothing that was denied.
    #[track_caller]
    fn assert_tried(&self, expected: &[(&str, u64)]) {
        let attempts = self.attempts();
        for (name, port, verdict) in &attempts {
            assert!(verdict == "allowed", "{name}:{port:?} was {verdict}");
        }
        let mut tried: Vec<_> =
            attempts.iter().map(|it| (it.0.as_str(), it.1.unwrap_or(0))).collect();
        tried.sort_unstable();
        tried.dedup();
        assert_eq!(tried, expected);
    }

    /// The next line of the server of HTTP.
    fn said(&self) -> String {
        self.servers[0].lines.recv_timeout(TIMEOUT).unwrap()
    }
}

/// A program of this directory. Debian's Python has Debian's packages.
fn python(name: &str) -> Command {
    let mut command = Command::new("/usr/bin/python3");
    command.arg(format!("{PROGRAMS}/{name}"));
    command
}

#[test]
fn pip_installs_from_an_index() {
    let site = Site::start(1);
    let script = "/usr/bin/python3 -m pip install -q --no-cache-dir --target /tmp/pip \
                    --index-url https://packages.test/simple/ demo\n\
                  PYTHONPATH=/tmp/pip /usr/bin/python3 -c 'import demo; print(demo.VALUE)'";
    let options = ["-e", "PIP_CONFIG_FILE=/dev/null", "-e", "PIP_ROOT_USER_ACTION=ignore"];
    assert_eq!(site.run(&options, script).text(0), "42\n");
    site.assert_tried(&[("packages.test", 443)]);
}

#[test]
fn npm_installs_from_a_registry() {
    let site = Site::start(1);
    let script = "mkdir /tmp/project; cd /tmp/project\n\
                  npm install --silent --registry https://packages.test/npm/ demo\n\
                  node -p 'require(\"demo\")'";
    let options = ["-e", "npm_config_update_notifier=false", "-e", "npm_config_audit=false"];
    assert_eq!(site.run(&options, script).text(0), "42\n");
    site.assert_tried(&[("packages.test", 443)]);
}

#[test]
fn cargo_fetches_from_a_sparse_index() {
    let site = Site::start(1);
    let script = "mkdir -p /tmp/project/src; cd /tmp/project; : > src/lib.rs\n\
                  printf '[package]\\nname = \"user\"\\nedition = \"2021\"\\n[dependencies]\\n\
                    demo = { version = \"1\", registry = \"test\" }\\n' > Cargo.toml\n\
                  cargo fetch -q; cat \"$CARGO_HOME\"/registry/src/*/demo-1.0.0/src/lib.rs";
    // That of the tool chain, not the one that chooses a tool chain.
    let cargo = std::path::PathBuf::from(std::env::var_os("CARGO").unwrap());
    let path = format!("PATH={}:/usr/bin:/bin", cargo.parent().unwrap().display());
    let index = "CARGO_REGISTRIES_TEST_INDEX=sparse+https://packages.test/cargo/";
    let options = ["-e", &path, "-e", "CARGO_HOME=/tmp/cargo", "-e", index];
    assert_eq!(site.run(&options, script).text(0), "pub const VALUE: u32 = 42;\n");
    site.assert_tried(&[("packages.test", 443)]);
}

#[test]
fn apt_downloads_from_an_archive_and_pipelines_its_requests() {
    let site = Site::start(1);
    let script = "mkdir -p /tmp/apt/state/lists /tmp/apt/cache/archives; cd /tmp\n\
                  echo 'deb [trusted=yes] http://deb.test/ ./' > apt/sources.list\n\
                  apt-get -q update 1>&2; apt-get -q download $(seq -f demo%g 0 19) 1>&2\n\
                  ls -- *.deb | wc -l";
    let configuration = "Dir::Etc \"/tmp/apt\"; Dir::Etc::main \"none\"; Dir::Etc::parts \"none\";\n\
                         Dir::State \"/tmp/apt/state\"; Dir::State::status \"/dev/null\";\n\
                         Dir::Cache \"/tmp/apt/cache\"; APT::Sandbox::User \"root\";\n";
    std::fs::write(site.cli.work().join("apt.conf"), configuration).unwrap();
    let finished = site.run(&["-e", "APT_CONFIG=/test/apt.conf"], script);
    // apt has checked their digests.
    assert_eq!(finished.text(0), "20\n", "{}", finished.stderr);
    site.assert_tried(&[("deb.test", 80)]);
}

#[test]
fn git_clones_and_pushes_over_https_and_ssh() {
    let mut site = Site::start(1);
    let work = site.cli.work();
    let mut server = Command::new("sh");
    let script = "mount --bind passwd /etc/passwd\n\
                  exec dropbear -F -E -s -r host_key -p 11.0.0.2:22 -P pid \
                    -c \"PATH=$PATH exec sh -c \\\"\\$SSH_ORIGINAL_COMMAND\\\"\" 2>&1";
    server.args(["-ec", &format!("cd '{}'\n{script}", work.display())]);
    site.serve(&server);
    let script = "cp /test/client_key /tmp/key; chmod 600 /tmp/key; cd /tmp\n\
                  git clone -q https://git.test/demo.git a; cat a/value; echo 43 > a/value\n\
                  git -C a commit -qam second; git -C a push -q\n\
                  export GIT_SSH_COMMAND='ssh -F none -i /tmp/key \
                    -o UserKnownHostsFile=/test/known_hosts'\n\
                  git clone -q \"ssh://git@git.test$1/repositories/demo.git\" b; cat b/value\n\
                  echo 44 > b/value; git -C b commit -qam third; git -C b push -q";
    let script = format!("set -- '{}'\n{script}", work.display());
    let config = "[user]\nname = Test\nemail = test@example.org\n[safe]\ndirectory = *\n";
    std::fs::write(work.join("gitconfig"), config).unwrap();
    let options = ["-e", "GIT_CONFIG_GLOBAL=/test/gitconfig"];
    assert_eq!(site.run(&options, &script).text(0), "42\n43\n");
    site.assert_tried(&[("git.test", 22), ("git.test", 443)]);
    let log = ["log", "--format=%s", "main"];
    let repository = work.join("repositories/demo.git");
    let output = Command::new("git").arg("-C").arg(repository).args(log).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "third\nsecond\nfirst\n");
}

#[test]
fn curl_wget_and_requests_reach_the_names_of_the_policy_and_no_other() {
    let site = Site::start(1);
    let script = "for scheme in http https; do url=$scheme://www.test/page\n\
                    curl -sS $url\n\
                    wget -qO- --ca-certificate=/test/ca.pem $url\n\
                    /usr/bin/python3 /clients/requests_client.py $url\n\
                  done\n\
                  curl -sS https://other.test/ || echo $?\n\
                  curl -sS --connect-to other.test:443:www.test:443 https://other.test/ || echo $?";
    let text = site.run(&[], script).text(0);
    // curl: 6 is a name that does not resolve, 35 a handshake that is cut.
    assert_eq!(text, format!("{}6\n35\n", "a page\n".repeat(10)));
    let denied = site.attempts().into_iter().filter(|it| it.2 == "denied");
    let denied: Vec<_> = denied.map(|it| (it.0, it.1)).collect();
    let other = |port| ("other.test".to_owned(), port);
    assert!(denied[..denied.len() - 1].iter().all(|it| *it == other(None)), "{denied:?}");
    assert_eq!(denied.last(), Some(&("www.test".to_owned(), Some(443))), "{denied:?}");
}

#[test]
fn a_websocket_exchanges_messages_both_ways() {
    let mut site = Site::start(1);
    let work = site.cli.work();
    let address = ["address", "add", "11.0.0.3/24", "dev", "far"];
    assert!(site.outside.far("ip").args(address).status().unwrap().success());
    site.serve(python("websocket_server.py").arg(work));
    let script = "/usr/bin/python3 /clients/websocket_client.py";
    assert_eq!(site.run(&[], script).text(0), "1\n100\n70000\n3000000\n");
    site.assert_tried(&[("ws.test", 443)]);
}

#[test]
fn a_quarter_of_a_gibibyte_arrives_complete_in_both_directions() {
    let site = Site::start(1);
    // What comes from the server goes back to it at once.
    let script = "curl -sS https://www.test/big/64 | curl -sST - https://www.test/back\n\
                  curl -sS http://www.test/big/256 | curl -sST - http://www.test/back";
    site.run(&[], script).text(0);
    for (port, size) in [(443, 64 << 20), (80, 256 << 20)] {
        let said = [site.said(), site.said()];
        let [sent, received] = ["sent ", "received "]
            .map(|word| said.iter().find_map(|line| line.strip_prefix(word)).unwrap());
        assert_eq!(sent, received, "port {port}");
        let log = std::fs::read_to_string(site.cli.work().join("net.jsonl")).unwrap();
        let records = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let of_port: Vec<_> = records.filter(|record| record["port"] == port).collect();
        for direction in ["sent", "received"] {
            let bytes = of_port.iter().filter_map(|record| record[direction].as_u64()).sum::<u64>();
            assert!(bytes > size, "{direction}: {log}");
        }
    }
    site.assert_tried(&[("www.test", 80), ("www.test", 443)]);
}

#[test]
fn a_thousand_connections_are_open_at_once_and_each_exchanges_data() {
    let site = Site::start(1000);
    let script = "/usr/bin/python3 /clients/together.py 1000";
    let command = site.command(&[], script);
    // As a shell starts it.
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -Sn 1024; exec \"$@\"", "sh"]).arg(command.get_program());
    limited.args(command.get_args()).current_dir(site.cli.work());
    limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let finished = finish(site.outside.near(&limited).spawn().unwrap());
    assert_eq!(finished.text(0), "1000\n1000\n");
    let attempts = site.attempts();
    assert_eq!(attempts.len(), 1000);
    site.assert_tried(&[("www.test", 80)]);
}
