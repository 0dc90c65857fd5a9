//! Stock images that know nothing of us: what their cloud-init reads, how the agent gets in, and
//! what runs then. The distribution's own image and code, made by `scripts/cloud-image.sh`.
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use metaservice_testing::cli::{
    Cli, finish,
    images::{bare_image, cloud_image},
    sha256,
};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::METASERVICE;

/// Starts a service for cloud images; returns it and its address.
fn serve(cli: &Cli, args: &[&str]) -> (Child, String) {
    let args = ["serve", "--json", "--listen", "127.0.0.1:0", "--cloud"].iter().chain(args);
    let mut child = cli.command(args).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    let event: Value = serde_json::from_str(&line).unwrap();
    std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
    (child, event["address"].as_str().unwrap().to_owned())
}

/// Ends a service that no guest has come to.
fn stop(mut service: Child) {
    let pid = service.id().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    assert_eq!(service.wait().unwrap().code(), Some(129));
}

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
    let (service, address) = serve(&cli, &args);
    // The image's own interpreter, with everything that it would have in a machine.
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
    stop(service);
}

/// Programs of this host by their names, and nothing else, in a folder for a `PATH`.
fn tools(work: &Path, name: &str, programs: &[&str]) -> PathBuf {
    let folder = work.join(name);
    std::fs::create_dir(&folder).unwrap();
    for program in programs {
        let found = std::env::split_paths(&std::env::var_os("PATH").unwrap())
            .map(|folder| folder.join(program))
            .find(|path| path.exists());
        let found = match *program {
            "busybox" => metaservice_qemu::find().require().unwrap().busybox,
            "python3" => "/usr/bin/python3".into(),
            _ => found.unwrap_or_else(|| panic!("there is no {program}")),
        };
        std::os::unix::fs::symlink(found, folder.join(program)).unwrap();
    }
    folder
}

#[test]
fn the_script_works_with_whatever_programs_there_are() {
    let cli = Cli::new(METASERVICE);
    let work = cli.work();
    let (service, address) = serve(&cli, &["--", "true"]);
    let script = curl(&[&format!("{address}/engine/v1/agent/install")]);
    // Its functions alone: this host is not to have an agent.
    let functions = script.strip_suffix("main \"$@\"\n").unwrap();
    let (_, digests) = functions.split_once(") expected=").unwrap();
    let (expected, _) = digests.split_once(" ;;").unwrap();
    let calls = format!(
        "{functions}\nauthority={address} platform=linux-{} expected=$1\nplace \"$2\" && echo placed",
        std::env::consts::ARCH
    );
    std::fs::write(work.join("script"), calls).unwrap();
    let place = |name: &str, shell: &[&str], programs: &[&str], expected: &str| {
        let mut all = vec!["mkdir", "chmod", "mv", "rm", "sleep"];
        all.extend(programs);
        let path = tools(&work, name, &all);
        let into = work.join(format!("{name}.bin"));
        let output = Command::new(path.join(shell[0]))
            .args(&shell[1..])
            .args(["script", expected])
            .arg(&into)
            .current_dir(&work)
            .env_clear()
            .env("PATH", &path)
            .output()
            .unwrap();
        (output, into.join("metaservice-guest"))
    };
    let sets: [(&str, &[&str], &[&str]); 5] = [
        ("curl", &["sh"], &["sh", "curl", "sha256sum"]),
        ("wget", &["dash"], &["dash", "wget", "openssl"]),
        ("busybox", &["busybox", "sh"], &["busybox"]),
        ("python", &["bash", "--posix"], &["bash", "python3"]),
        ("mixed", &["sh"], &["sh", "python3", "busybox"]),
    ];
    for (name, shell, programs) in sets {
        let (output, agent) = place(name, shell, programs, expected);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "placed\n", "{name}: {output:?}");
        assert_eq!(sha256(&agent), expected, "{name}");
    }
    let (refused, agent) = place("forged", &["sh"], &["sh", "curl", "sha256sum"], &"0".repeat(64));
    assert!(!refused.status.success());
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(told.contains("its digest is wrong"), "{told}");
    assert!(
        !agent.exists() && std::fs::read_dir(agent.parent().unwrap()).unwrap().next().is_none()
    );
    let (refused, _) = place("nothing", &["sh"], &["sh", "sha256sum"], expected);
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(told.contains("none of curl, wget, busybox and python"), "{told}");
    stop(service);
}

#[test]
fn a_stock_image_finds_the_service_and_runs_the_command() {
    let cli = Cli::new(METASERVICE);
    let (image, _) = cloud_image();
    let before = sha256(Path::new(&image));
    std::fs::write(cli.work().join("own"), "#!/bin/sh\necho mine > /root/mark\n").unwrap();
    // The image has no ssh to make host keys for, and no data of locales: that is not our doing.
    let script = "apt-get --version | head -n 1; hostname; cat /root/mark; cloud-id; \
                  systemctl is-active metaservice; \
                  grep -E '\\[(WARNING|ERROR|CRITICAL)]' /var/log/cloud-init.log \
                  | grep -v -e 'Failed generating key type' -e cc_locale -e cc_set_passwords | wc -l; \
                  cat /home/debian/.ssh/authorized_keys; \
                  ip -4 -o addr show scope global | grep -c ' 10\\.0\\.2\\.'; \
                  ip route get 169.254.169.254 | head -n 1; ip route | grep -c ^default";
    let args = [
        "run",
        "--image",
        &image,
        "--name",
        "stock",
        "--net",
        "user",
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
        script,
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
    // The second card has an address and the way out; the service is behind the first one.
    assert_eq!((lines[7], lines[9]), ("1", "1"), "{text}");
    assert!(lines[8].contains("src 169.254.1.2"), "{text}");
    assert_eq!(sha256(Path::new(&image)), before, "the image was written");
}

#[test]
fn an_image_with_neither_systemd_nor_cloud_init_fetches_the_agent_by_one_line() {
    let cli = Cli::new(METASERVICE);
    let image = bare_image(&cli.work());
    // Again: what keeps the agent running finds that it is there already, and ends.
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

#[test]
fn a_published_port_leads_into_the_guest_and_the_outside_has_no_metadata() {
    let cli = Cli::new(METASERVICE);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let publish = format!("{free}:80");
    // Nobody on the second card answers to the service's address; its gateway is there.
    let script = "mkdir /tmp/www; echo from the guest > /tmp/www/index.html; httpd -h /tmp/www; \
                  arping -q -c 1 -w 5 -I eth1 10.0.2.2 && echo gateway; \
                  arping -q -c 2 -w 2 -I eth1 169.254.169.254 || echo nobody; \
                  ip route get 169.254.169.254 | grep -o 'dev eth.'; echo ready; sleep 1000";
    let args = ["--net", "user", "--publish", &publish, "--", "sh", "-c", script];
    let mut job = cli.start("publisher", &args);
    job.wait_for_log("gateway\nnobody\ndev eth0\nready\n");
    assert_eq!(curl(&[&format!("http://127.0.0.1:{free}/")]), "from the guest\n");
    let taken = cli.run(&["run", "--net", "user", "--publish", &publish, "--", "true"]);
    taken.text(125);
    let told = format!("port 127.0.0.1:{free} of the host cannot be published");
    assert!(taken.stderr.contains(&told), "{}", taken.stderr);
    job.signal(Signal::TERM);
    assert_eq!(finish(job.child).status, Some(143));
}
