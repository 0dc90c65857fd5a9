//! Stock images that do not know metaservice: what cloud-init reads, how the agent is installed,
//! and what runs then. `scripts/cloud-image.sh` makes the image from packages of Debian.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use metaservice_testing::cli::{
    Cli, Service,
    images::{bare_image, cloud_image},
    sha256,
};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::METASERVICE;
use crate::network::{CONTENT, Server};

fn curl(args: &[&str]) -> String {
    let output = Command::new("curl").arg("-sS").args(args).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_distributions_cloud_init_reads_the_service_without_complaint() {
    let cli = Cli::new(METASERVICE);
    let (_, root) = cloud_image();
    std::fs::write(cli.work().join("keys"), "ssh-ed25519 AAAA me@here\n").unwrap();
    std::fs::write(cli.work().join("own"), "#cloud-config\nruncmd: [[\"true\"]]\n").unwrap();
    let macs = ["52:54:00:00:00:01", "52:54:00:00:00:02"];
    let args = [
        "--name",
        "stock",
        "--mac",
        macs[0],
        "--mac",
        macs[1],
        "--ssh-key",
        "keys",
        "--user-data",
        "own",
        "--",
        "true",
    ];
    let service = cli.serve(&[&["--cloud"], &args[..]].concat());
    let address = &service.address;
    // The interpreter of the image, with its own libraries.
    let libraries = root.join("usr/lib/x86_64-linux-gnu");
    let mut python = Command::new(libraries.join("ld-linux-x86-64.so.2"));
    python
        .arg("--library-path")
        .arg(&libraries)
        .arg(root.join("usr/bin/python3.11"))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vm/cloud_init.py"))
        .arg(format!("http://{address}"))
        .args(macs)
        .env("PYTHONHOME", root.join("usr"))
        .env("PYTHONPATH", root.join("usr/lib/python3/dist-packages"))
        .env("TMPDIR", cli.work());
    let output = python.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read: Value = serde_json::from_slice(&output.stdout).unwrap();

    assert_eq!(read["complaints"], json!([]));
    for (form, token) in [("aws", true), ("older", false)] {
        let read = &read[form];
        assert_eq!((&read["token"], &read["version"]), (&json!(token), &json!("2021-03-23")));
        assert_eq!(read["hostname"], "stock");
        assert_eq!(read["classic"], false);
        assert_eq!(read["keys"], json!(["ssh-ed25519 AAAA me@here"]));
        assert_eq!((&read["zone"], &read["region"]), (&json!("local-1a"), &json!("local-1")));
        let parts = read["parts"].as_array().unwrap();
        assert_eq!(parts.len(), 2);
        assert_eq!(parts[0], json!(["text/cloud-config", "#cloud-config\nruncmd: [[\"true\"]]\n"]));
        assert_eq!(parts[1][0], "text/x-shellscript");
        let script = curl(&[&format!("{address}/engine/v1/agent/install")]);
        assert_eq!(parts[1][1], script.as_str());
        for (n, mac) in macs.iter().enumerate() {
            let card = &read["network"]["ethernets"][format!("eth{n}")];
            assert_eq!(card["match"]["macaddress"], *mac);
            assert_eq!(
                (&card["dhcp4"], &card["dhcp4-overrides"]["route-metric"]),
                (&json!(true), &json!((n + 1) * 100))
            );
        }
    }
    let instance = &read["aws"]["instance"];
    assert!(instance.as_str().unwrap().starts_with("i-"));
    for version in ["latest", "2009-04-04"] {
        assert_eq!(read["helpers"][version][0], *instance);
    }
    assert_eq!(read["seed"]["meta-data"]["instance-id"], *instance);
    service.stop(Signal::HUP);
}

/// The installation script of a service, run on the host.
///
/// Only its functions run, because the host must not get an agent.
struct Installation {
    service: Service,
    /// The digest of the agent, in hex.
    digest: String,
    cli: Cli,
}

impl Installation {
    fn new() -> Self {
        let cli = Cli::new(METASERVICE);
        let service = cli.serve(&["--cloud", "--", "true"]);
        let address = &service.address;
        let script = curl(&[&format!("{address}/engine/v1/agent/install")]);
        let functions = script.strip_suffix("main \"$@\"\n").unwrap();
        let (_, digests) = functions.split_once(") expected=").unwrap();
        let (digest, _) = digests.split_once(" ;;").unwrap();
        let calls = format!(
            "{functions}\nauthority={address} platform=linux-{} expected=$1\n\
             place \"$2\" && echo placed",
            std::env::consts::ARCH
        );
        std::fs::write(cli.work().join("script"), calls).unwrap();
        Self { digest: digest.to_owned(), service, cli }
    }

    /// Runs the script in `shell`, where a few common programs and `programs` are installed.
    fn run(&self, shell: &[&str], programs: &[&str], digest: &str) -> Output {
        let work = self.cli.work();
        let mut all = vec!["mkdir", "chmod", "mv", "rm", "sleep"];
        all.extend(programs);
        let path = directory_of(&work, &all);
        Command::new(path.join(shell[0]))
            .args(&shell[1..])
            .args(["script", digest, "installed"])
            .current_dir(&work)
            .env_clear()
            .env("PATH", &path)
            .output()
            .unwrap()
    }

    /// Checks that the script installs the agent.
    #[track_caller]
    fn assert_works(self, shell: &[&str], programs: &[&str]) {
        let output = self.run(shell, programs, &self.digest);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "placed\n", "{output:?}");
        let agent = self.cli.work().join("installed/metaservice-guest");
        assert_eq!(sha256(&agent), self.digest);
        self.service.stop(Signal::HUP);
    }
}

/// Makes a directory for `PATH` that has only `programs` of the host.
fn directory_of(work: &Path, programs: &[&str]) -> PathBuf {
    let directory = work.join("bin");
    std::fs::create_dir(&directory).unwrap();
    for program in programs {
        let found = match *program {
            "busybox" => metaservice_qemu::find().require().unwrap().busybox,
            "python3" => "/usr/bin/python3".into(),
            _ => std::env::split_paths(&std::env::var_os("PATH").unwrap())
                .map(|directory| directory.join(program))
                .find(|path| path.exists())
                .unwrap_or_else(|| panic!("there is no {program}")),
        };
        std::os::unix::fs::symlink(found, directory.join(program)).unwrap();
    }
    directory
}

#[test]
fn the_script_installs_with_curl() {
    Installation::new().assert_works(&["sh"], &["sh", "curl", "sha256sum"]);
}

#[test]
fn the_script_installs_with_wget_and_openssl() {
    Installation::new().assert_works(&["dash"], &["dash", "wget", "openssl"]);
}

#[test]
fn the_script_installs_with_busybox_alone() {
    Installation::new().assert_works(&["busybox", "sh"], &["busybox"]);
}

#[test]
fn the_script_installs_with_python_alone() {
    Installation::new().assert_works(&["bash", "--posix"], &["bash", "python3"]);
}

#[test]
fn the_script_installs_with_python_and_busybox() {
    Installation::new().assert_works(&["sh"], &["sh", "python3", "busybox"]);
}

#[test]
fn the_script_installs_no_agent_with_a_wrong_digest() {
    let installation = Installation::new();
    let output = installation.run(&["sh"], &["sh", "curl", "sha256sum"], &"0".repeat(64));
    assert!(!output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("its digest is wrong"), "{stderr}");
    let installed = installation.cli.work().join("installed");
    assert_eq!(std::fs::read_dir(installed).unwrap().count(), 0, "a file is left");
    installation.service.stop(Signal::HUP);
}

#[test]
fn the_script_names_the_programs_of_which_it_needs_one() {
    let installation = Installation::new();
    let output = installation.run(&["sh"], &["sh", "sha256sum"], &installation.digest);
    assert!(!output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("none of curl, wget, busybox and python"), "{stderr}");
    installation.service.stop(Signal::HUP);
}

/// Prints what the card has.
const CARD: &str = "ip -4 -o addr show scope global | grep -o '10[0-9./]*' | head -n 1; \
    ip route | grep -o '^default via [0-9.]*'; grep ^nameserver /etc/resolv.conf";

/// Gives the card to another program.
const NETWORKD: &str = "card=$(ip -o route get 203.0.113.1 | grep -o 'dev [^ ]*' | cut -c5-); \
    pkill dhclient; ip addr flush dev $card; \
    printf '[Match]\\nName=%s\\n[Network]\\nDHCP=ipv4\\n' $card > /etc/systemd/network/9.network; \
    systemctl start systemd-networkd; \
    /lib/systemd/systemd-networkd-wait-online -i $card --timeout=120";

#[test]
fn a_stock_image_finds_the_service_and_runs_the_command() {
    let cli = Cli::new(METASERVICE);
    let (image, _) = cloud_image();
    let before = sha256(Path::new(&image));
    std::fs::write(cli.work().join("own"), "#!/bin/sh\necho mine > /root/mark\n").unwrap();
    // The image has no ssh and no locales. cloud-init warns about both.
    let script = "apt-get --version | head -n 1; hostname; cat /root/mark; cloud-id; \
                  systemctl is-active metaservice; \
                  grep -E '\\[(WARNING|ERROR|CRITICAL)]' /var/log/cloud-init.log \
                  | grep -v -e 'Failed generating key type' -e cc_locale -e cc_set_passwords | wc -l; \
                  cat /home/debian/.ssh/authorized_keys; ";
    let server = Server::start(Ipv4Addr::LOCALHOST);
    let script = format!(
        "{script} {CARD}; python3 -c 'import urllib.request as u; \
         print(u.urlopen(\"http://host:{}/\").read().decode())'; {NETWORKD}; {CARD}",
        server.address.port()
    );
    let rule = server.rule();
    let args = [
        "run",
        "--image",
        &image,
        "--name",
        "stock",
        "--allow-net",
        &rule,
        "--ssh-key",
        "ssh-ed25519 AAAA me@here",
        "--user-data",
        "own",
        "--boot-timeout",
        "330s",
        "--console",
        "console",
        "--",
        "sh",
        "-c",
        &script,
    ];
    let finished = cli.run(&args);
    let console = || std::fs::read_to_string(cli.work().join("console")).unwrap_or_default();
    assert_eq!(finished.status, Some(0), "{}\n{}", finished.stderr, console());
    let text = finished.text(0);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("apt "), "{text}");
    assert_eq!(
        lines[1..7],
        ["stock", "mine", "aws", "active", "0", "ssh-ed25519 AAAA me@here"],
        "{text}"
    );
    let card = ["10.0.2.15/24", "default via 10.0.2.2", "nameserver 10.0.2.2"];
    assert_eq!(lines[7..10], card, "by ifupdown: {text}");
    assert_eq!(lines[10], CONTENT, "{text}");
    // The file of the resolver is dhclient's.
    assert_eq!(lines[11..13], card[..2], "by systemd-networkd: {text}");
    assert_eq!(sha256(Path::new(&image)), before, "the image was written");
}

#[test]
fn an_image_with_neither_systemd_nor_cloud_init_fetches_the_agent_by_one_line() {
    let cli = Cli::new(METASERVICE);
    let image = bare_image(&cli.work());
    // A second installation finds that the agent runs, and ends.
    let script = "wget -qO- http://169.254.169.254/engine/v1/agent/install | sh; \
                  timeout 60 /usr/local/bin/metaservice-guest-keeper && echo one; ls /usr/local/bin";
    let args = ["run", "--image", &image, "--console", "console", "--", "sh", "-c", script];
    let finished = cli.run(&args);
    let console = std::fs::read_to_string(cli.work().join("console")).unwrap_or_default();
    assert_eq!(finished.status, Some(0), "{}\n{console}", finished.stderr);
    let text = finished.text(0);
    assert_eq!(
        text,
        "metaservice: the agent is started\none\nmetaservice-guest\nmetaservice-guest-keeper\n"
    );
}
