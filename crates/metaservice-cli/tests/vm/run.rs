//! `metaservice run` in real machines: commands, statuses, logs, artifacts.
use metaservice_testing::cli::{Cli, Finished, finish, sha256, wait_for};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::METASERVICE;

#[test]
fn a_command_greets_with_its_environment() {
    let cli = Cli::new(METASERVICE);
    std::fs::write(cli.work().join("env"), "# two\nWHO=nobody\nPLACE=machine\n").unwrap();
    let script = r#"echo "hello $WHO in the $PLACE"; id -u; cat /proc/sys/kernel/hostname"#;
    let args = [
        "run",
        "--name",
        "greeter",
        "--env-file",
        "env",
        "-e",
        "WHO=world",
        "--",
        "sh",
        "-c",
        script,
    ];
    assert_eq!(cli.run(&args).text(0), "hello world in the machine\n0\ngreeter\n");
}

#[test]
fn the_commands_status_is_ours() {
    let cli = Cli::new(METASERVICE);
    let finished = cli.run(&["run", "--", "sh", "-c", "echo before; exit 3"]);
    assert_eq!(finished.text(3), "before\n");
    assert_eq!(cli.run(&["run", "--", "sh", "-c", "kill -9 $$"]).text(137), "");
}

#[test]
fn a_command_that_cannot_be_run_or_found_says_why_in_the_log() {
    let cli = Cli::new(METASERVICE);
    let missing = cli.run(&["run", "--", "no-such-program"]).text(127);
    assert!(missing.contains("no-such-program"), "{missing}");
    let unfit = cli.run(&["run", "--", "/etc/passwd"]).text(126);
    assert!(unfit.contains("/etc/passwd"), "{unfit}");
}

#[test]
fn fifty_megabytes_of_binary_log_arrive_exactly() {
    let cli = Cli::new(METASERVICE);
    let script =
        "head -c 50000000 /dev/urandom > /tmp/b; sha256sum < /tmp/b > /tmp/sum; cat /tmp/b";
    let args = ["run", "--artifact", "/tmp/sum", "--log", "copy", "--", "sh", "-c", script];
    let finished = cli.run(&args);
    assert_eq!((finished.status, finished.stdout.len()), (Some(0), 50_000_000));
    let out = cli.work().join("out");
    std::fs::write(&out, &finished.stdout).unwrap();
    let sum = std::fs::read_to_string(cli.work().join("sum")).unwrap();
    assert_eq!(sum.split(' ').next().unwrap(), sha256(&out));
    assert_eq!(sha256(&cli.work().join("copy")), sha256(&out));
}

#[test]
fn an_artifact_of_200_megabytes_arrives_exactly_though_the_command_failed() {
    let cli = Cli::new(METASERVICE);
    let script = "head -c 200000000 /dev/urandom > /tmp/a; sha256sum < /tmp/a; exit 9";
    let finished = cli.run(&[
        "run",
        "--artifact",
        "/tmp/a:big",
        "--artifact",
        "/tmp/none",
        "--",
        "sh",
        "-c",
        script,
    ]);
    let log = finished.text(9);
    let big = cli.work().join("big");
    assert_eq!(std::fs::metadata(&big).unwrap().len(), 200_000_000);
    assert_eq!(log.split(' ').next().unwrap(), sha256(&big));
    assert!(finished.stderr.contains("cannot fetch /tmp/none: the guest has no such plain file"));
    assert!(!cli.work().join("none").exists());
}

#[test]
fn an_artifact_that_is_missing_fails_a_run_that_succeeded() {
    let cli = Cli::new(METASERVICE);
    std::fs::write(cli.work().join("x"), "what was there").unwrap();
    let finished = cli.run(&["run", "--artifact", "/tmp/x", "--", "true"]);
    finished.text(125);
    assert_eq!(std::fs::read_to_string(cli.work().join("x")).unwrap(), "what was there");
}

#[test]
fn a_machine_that_goes_while_its_command_is_killed_has_timed_out() {
    let cli = Cli::new(METASERVICE);
    let script = "trap 'echo 1 > /proc/sys/kernel/sysrq; echo o > /proc/sysrq-trigger' TERM; \
                  echo last words; while :; do sleep 0.1; done";
    let args = ["run", "--timeout", "2s", "--artifact", "/none", "--", "sh", "-c", script];
    let finished = cli.run(&args);
    assert!(finished.text(124).starts_with("last words\n"));
    assert!(finished.stderr.contains("artifacts were not fetched"), "{}", finished.stderr);
}

#[test]
fn a_timeout_kills_the_command_and_keeps_what_it_wrote() {
    let cli = Cli::new(METASERVICE);
    let script = "trap '' TERM; echo kept > /tmp/kept; echo started; while :; do sleep 1; done";
    let args = ["run", "--timeout", "2", "--artifact", "/tmp/kept", "--", "sh", "-c", script];
    let finished = cli.run(&args);
    assert_eq!(finished.text(124), "started\n");
    assert!(finished.stderr.contains("--timeout of 2s has passed"), "{}", finished.stderr);
    assert_eq!(std::fs::read_to_string(cli.work().join("kept")).unwrap(), "kept\n");
}

#[test]
fn files_that_fill_the_memory_are_refused_and_a_command_that_does_is_killed_and_told() {
    let cli = Cli::new(METASERVICE);
    let script = "for file in /tmp/a /b /dev/shm/c /run/d /dev/e; do \
                  dd if=/dev/zero of=$file bs=1M 2>&1 | grep -o 'No space left on device'; done; \
                  tail /dev/zero; echo status $?; \
                  cat /proc/$PPID/oom_score_adj /proc/self/oom_score_adj; stat -c %a /; exit 3";
    let args = ["run", "--memory", "128M", "--", "sh", "-c", script];
    let finished = cli.run(&args);
    let full = "No space left on device\n".repeat(5);
    assert_eq!(finished.text(3), format!("{full}Killed\nstatus 137\n-1000\n0\n755\n"));
    let told = "the guest's kernel killed a process for lack of memory";
    assert!(finished.stderr.contains(told), "{}", finished.stderr);
}

#[test]
fn files_of_any_number_leave_memory_for_processes() {
    let cli = Cli::new(METASERVICE);
    // Empty files, as many as there can be, and then content.
    let script = "for folder in /tmp / /dev; do mkdir $folder/q; cd $folder/q; \
                  seq 20000 | xargs touch 2> /dev/null; rm -f 1; done; \
                  for folder in /tmp / /dev; do \
                  dd if=/dev/zero of=$folder/x bs=64k 2>&1 | grep -o 'No space left on device'; \
                  done; exit 3";
    let finished = cli.run(&["run", "--memory", "128M", "--", "sh", "-c", script]);
    assert_eq!(finished.text(3), "No space left on device\n".repeat(3));
    assert!(!finished.stderr.contains("lack of memory"), "{}", finished.stderr);
}

#[test]
fn the_least_memory_that_is_accepted_boots() {
    let cli = Cli::new(METASERVICE);
    let least = metaservice_qemu::Memory::MIN.mebibytes().to_string();
    for root in [&["--rootfs", "/"][..], &[]] {
        let args = [&["run", "--memory", &least], root, &["--", "echo", "booted"]].concat();
        assert_eq!(cli.run(&args).text(0), "booted\n", "{root:?}");
    }
    let refused = cli.run(&["run", "--memory", "64M", "--", "true"]);
    refused.text(125);
    assert!(refused.stderr.contains("64 MiB of memory is not between 96"), "{}", refused.stderr);
}

#[test]
fn a_supervisor_that_was_killed_is_told_by_status_125() {
    let cli = Cli::new(METASERVICE);
    let finished = cli.run(&["run", "--", "sh", "-c", "kill -9 $PPID; sleep 1000"]);
    assert!(finished.text(125).contains("the command is lost"), "{}", finished.stderr);
    assert!(finished.stderr.contains("its supervisor was killed"), "{}", finished.stderr);
}

#[test]
fn a_guest_that_panics_is_told_at_once_with_its_console() {
    let cli = Cli::new(METASERVICE);
    let script = "echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger; sleep 100";
    let finished = cli.run(&["run", "--", "sh", "-c", script]);
    finished.text(125);
    assert!(finished.stderr.contains("the guest's kernel panicked"), "{}", finished.stderr);
    let lost = "what the command wrote and the guest had not sent is lost";
    assert!(finished.stderr.contains(lost), "{}", finished.stderr);
    assert!(finished.stderr.contains("last console lines:"), "{}", finished.stderr);
}

#[test]
fn what_a_command_wrote_before_a_panic_is_in_the_log_without_a_hole() {
    let cli = Cli::new(METASERVICE);
    let script = "seq 1 1000; read line < /tmp/go; seq 1001 3000; \
                  echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger; sleep 100";
    let script = format!("mkfifo /tmp/go; {script}");
    let mut job = cli.start("last-words", &["--log", "log", "--", "sh", "-c", &script]);
    // All of this has been sent.
    job.wait_for_log("\n1000\n");
    cli.command(["exec", "last-words", "sh", "-c", "echo > /tmp/go"]).status().unwrap();
    job.finish().text(125);
    let log = std::fs::read_to_string(cli.work().join("log")).unwrap();
    let all: String = (1..=3000).map(|number| format!("{number}\n")).collect();
    assert!(all.starts_with(&log), "it has a hole");
    assert!(log.contains("\n1000\n"));
}

#[test]
fn a_guest_that_powers_off_before_the_job_is_done_is_told() {
    let cli = Cli::new(METASERVICE);
    let finished = cli.run(&["run", "--", "sh", "-c", "poweroff -f; sleep 100"]);
    finished.text(125);
    let told = "the machine ended before the job did: the guest powered off";
    assert!(finished.stderr.contains(told), "{}", finished.stderr);
}

#[test]
fn a_guest_that_never_fetches_its_command_is_given_up() {
    let cli = Cli::new(METASERVICE);
    let tools = metaservice_qemu::find().require().unwrap();
    let init = b"#!/bin/busybox sh\necho this init waits for nothing\nexec sleep 1000\n";
    let contents = metaservice_qemu::initramfs::Contents::new(init.to_vec(), &tools);
    let initrd = metaservice_qemu::initramfs::build(&contents.cache(cli.work())).unwrap();
    let (kernel, initrd) = (tools.kernel.image.to_str().unwrap(), initrd.path().to_str().unwrap());
    let args =
        ["run", "--kernel", kernel, "--initrd", initrd, "--boot-timeout", "40s", "--", "true"];
    let finished = cli.run(&args);
    finished.text(125);
    let told = "the guest never fetched its command within 40s; last console lines:";
    assert!(finished.stderr.contains(told), "{}", finished.stderr);
    assert!(finished.stderr.contains("this init waits for nothing"), "{}", finished.stderr);
}

#[test]
fn a_secret_does_not_stay_in_the_tools_environment() {
    let cli = Cli::new(METASERVICE);
    let args = ["run", "--json", "--name", "secret", "--secret", "TOKEN", "--", "sh", "-c"];
    let mut command = cli.command(args);
    let mut child =
        command.arg("echo \"$TOKEN\"; sleep 600").env("TOKEN", "9f3b7c").spawn().unwrap();
    let pid = child.id();
    let stderr = wait_for(&mut child, "\"event\":\"started\"");
    let mut stdout = child.stdout.take().unwrap();
    let mut said = [0; 6];
    stdout.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"9f3b7c");
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    let text = String::from_utf8_lossy(&environment);
    assert!(text.contains("TMPDIR=") && !text.contains("9f3b7c"), "{text}");
    // The file that carried it is empty.
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        let path = entry.path();
        if std::fs::read_link(&path).is_ok_and(|to| to.starts_with("/memfd:secrets")) {
            assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        }
    }
    let name = ["kill", "secret"];
    assert_eq!(cli.run(&name).status, Some(0));
    child.wait().unwrap();
    drop(stderr);
}

#[test]
fn the_kernel_has_random_addresses_if_asked_for() {
    let cli = Cli::new(METASERVICE);
    let text =
        |flag: &str| cli.run(&["run", flag, "--", "grep", "-w", "_text", "/proc/kallsyms"]).text(0);
    let fixed = "ffffffff81000000 T _text\n";
    if cfg!(target_arch = "x86_64") {
        assert_eq!(text("--no-snapshot"), fixed);
    }
    // One in 500 is the fixed address by chance, both in a row one in 250,000.
    assert!((0..2).any(|_| text("--kaslr") != fixed));
}

#[test]
fn what_the_parent_ignores_or_blocks_changes_nothing() {
    let cli = Cli::new(METASERVICE);
    let tool = cli.command(["run", "--", "echo", "up"]);
    let mut command = std::process::Command::new("python3");
    // Ignores and blocks what a parent may, and becomes the tool.
    let script = "import os, signal, sys\n\
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n\
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR1})\n\
        os.execv(sys.argv[1], sys.argv[1:])";
    command.args(["-c", script]).arg(tool.get_program()).args(tool.get_args());
    command.envs(tool.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(cli.work()).stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    assert_eq!(finish(command.spawn().unwrap()).text(0), "up\n");
}

#[test]
fn a_machine_begins_with_the_usual_dispositions_and_limits() {
    let cli = Cli::new(METASERVICE);
    let tool = cli.command(["run", "--name", "child", "--json", "--", "sleep", "600"]);
    let mut command = std::process::Command::new("python3");
    let script = "import os, resource, signal, sys\n\
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n\
        resource.setrlimit(resource.RLIMIT_NOFILE, (1500, most))\n\
        for number in range(1, 65):\n\
            \x20\x20if number not in (1, 2, 3, 9, 11, 15, 19, 20, 21, 22, 32, 33):\n\
            \x20\x20\x20\x20signal.signal(number, signal.SIG_IGN)\n\
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n\
        os.execv(sys.argv[1], sys.argv[1:])";
    command.args(["-c", script]).arg(tool.get_program()).args(tool.get_args());
    command.envs(tool.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(cli.work()).stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    let mut job = command.spawn().unwrap();
    let _stderr = wait_for(&mut job, "\"event\":\"started\"");
    let of =
        |pid: &str, file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let machine = cli.machine();
    let limits = of(&machine, "limits");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().nth(3), Some("1500"), "{files}");
    let status = of(&machine, "status");
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
    };
    // QEMU itself ignores SIGPIPE and blocks what its threads take; 32 and 33 are the C library's.
    assert_eq!(mask("SigIgn") & !(1 << 12 | 0b11 << 31), 0, "{status}");
    assert_eq!(mask("SigBlk") & (1 << 14 | 1 << 16), 0, "SIGTERM and SIGCHLD: {status}");
    cli.run(&["kill", "child"]).text(0);
    job.wait().unwrap();
}

#[test]
fn what_waits_for_the_reader_of_a_fifo_ends_by_a_signal() {
    let cli = Cli::new(METASERVICE);
    let made = std::process::Command::new("mkfifo").arg(cli.work().join("fifo")).status();
    assert!(made.unwrap().success());
    let job = cli.start("there", &["--", "sleep", "600"]);
    for args in [
        &["run", "-v", "--console", "fifo", "--", "true"][..],
        &["run", "-v", "--pcap", "fifo", "--", "true"],
        &["cp", "-v", "there:/etc/passwd", "fifo"],
    ] {
        let mut child = cli.command(args).spawn().unwrap();
        let _stderr = wait_for(&mut child, "opening a file to write to");
        let pid = child.id().to_string();
        assert!(
            std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success()
        );
        assert_eq!(child.wait().unwrap().code(), Some(130), "{args:?}");
    }
    cli.run(&["kill", "there"]).text(0);
    job.finish();
}

#[test]
fn two_machines_run_side_by_side() {
    let cli = Cli::new(METASERVICE);
    let script = "cat /proc/sys/kernel/random/boot_id; echo $N > /tmp/n; sleep 2; cat /tmp/n";
    let start = |n: &str| {
        let variable = format!("N={n}");
        let artifact = format!("/tmp/n:n{n}");
        let args = ["run", "-e", &variable, "--artifact", &artifact, "--", "sh", "-c", script];
        cli.command(args).spawn().unwrap()
    };
    let running = [start("1"), start("2")];
    let [one, two] = running.map(|child| finish(child).text(0));
    assert_ne!(one.lines().next(), two.lines().next(), "one machine, not two");
    assert_eq!((one.lines().nth(1), two.lines().nth(1)), (Some("1"), Some("2")));
    for n in ["1", "2"] {
        let artifact = std::fs::read_to_string(cli.work().join(format!("n{n}")));
        assert_eq!(artifact.unwrap().trim(), n);
    }
}

#[test]
fn the_hosts_own_userland_runs_and_stays_as_it_is() {
    let cli = Cli::new(METASERVICE);
    let mark = format!("/var/tmp/metaservice-{}", std::process::id());
    let script = format!(
        "import os; open('{mark}', 'w').write('x'); print(sorted(os.listdir('/'))[:1], 6 * 7)"
    );
    let finished = cli.run(&["run", "--rootfs", "/", "--", "python3", "-c", &script]);
    assert!(finished.text(0).ends_with("42\n"));
    assert!(!Path::new(&mark).exists(), "the guest wrote to the host");
}

#[test]
fn a_guest_finds_no_process_and_no_secret_of_the_host_under_its_root() {
    let cli = Cli::new(METASERVICE);
    let hidden = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::write(hidden.path().join("key"), "host's own").unwrap();
    let (here, pid) = (hidden.path().display(), std::process::id());
    // The sample of a bug report: past the caches of the guest.
    let script = format!(
        "mkdir /m; mount --bind / /m; ls /m/proc /m/sys /m/dev; \
         for path in /m/proc/{pid}/environ /m/proc/1/environ /m/etc/shadow {here}/key; do \
           dd if=$path iflag=direct bs=64k count=1 2>/dev/null; \
         done; umount /m; su -s /bin/sh -c 'echo still a host' daemon 2>/dev/null || echo still"
    );
    let path = hidden.path().to_str().unwrap();
    let args = ["run", "--rootfs", "/", "--hide", path, "--", "sh", "-c", &script];
    let said = cli.run(&args).text(0);
    let lines: Vec<&str> = said.lines().filter(|line| !line.ends_with(':')).collect();
    assert!(matches!(lines[..], [.., last] if last.starts_with("still")), "{said}");
    assert!(lines.iter().filter(|line| !line.is_empty()).count() == 1, "{said}");
}

#[test]
fn a_file_that_the_host_changes_is_read_as_it_is() {
    let cli = Cli::new(METASERVICE);
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "old".repeat(3000)).unwrap();
    let path = file.to_str().unwrap();
    let job = cli.start("host", &["--rootfs", "/", "--", "sleep", "600"]);
    let look = |script: &str| cli.run(&["exec", "host", "--", "sh", "-c", script]).text(0);
    look(&format!("stat {path}; head -c 5000 {path}"));
    // Length by stat, length and bytes by reading; half of it was read before.
    for content in ["two".repeat(2), "longer".repeat(5000)] {
        std::fs::write(&file, &content).unwrap();
        let said = look(&format!("stat -c %s {path}; wc -c < {path}; cat {path}"));
        let length = content.len();
        assert!(
            said == format!("{length}\n{length}\n{content}"),
            "{}",
            &said[..40.min(said.len())]
        );
    }
    assert_eq!(cli.run(&["kill", "host"]).status, Some(0));
    drop(job.finish());
}

#[test]
fn no_guest_writes_through_its_root_folder_whatever_it_mounts() {
    let cli = Cli::new(METASERVICE);
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::write(folder.path().join("kept"), "kept").unwrap();
    let here = folder.path().display();
    // The share by another mount, the one that the overlay is on, and the init's own view of it.
    let script = format!(
        "mkdir /tmp/m; mount -t 9p -o trans=virtio,version=9p2000.L,rw metaservice /tmp/m; \
         grep 9p /proc/mounts | while read -r tag place rest; do mount -o remount,rw $place; done; \
         for root in '' /tmp/m /proc/1/root /sysroot /proc/1/root/sysroot; do \
           echo lost > $root{here}/kept; echo new > $root{here}/new; chmod 777 $root{here}; \
           ln -s / $root{here}/link; \
         done; echo tried"
    );
    let finished = cli.run(&["run", "--rootfs", "/", "--", "sh", "-c", &script]);
    assert!(finished.text(0).ends_with("tried\n"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the guest wrote to the host");
    assert_eq!(std::fs::read_to_string(folder.path().join("kept")).unwrap(), "kept");
}

#[test]
fn a_disk_image_is_the_root_and_stays_as_it_is() {
    let cli = Cli::new(METASERVICE);
    let image = disk_image(&cli.work());
    let before = sha256(&image);
    let script = "cat /etc/mark; echo changed > /etc/mark; sync; cat /etc/mark";
    let args = ["run", "--image", "disk.qcow2", "--kernel", "builtin", "--", "sh", "-c", script];
    assert_eq!(cli.run(&args).text(0), "the image's own\nchanged\n");
    assert_eq!(sha256(&image), before, "the image was written");
}

#[test]
fn an_image_boots_by_its_own_boot_loader() {
    let cli = Cli::new(METASERVICE);
    let image = bootable_image(&cli.work());
    let before = sha256(&image);
    let args = ["run", "--image", "boot.qcow2", "--", "sh", "-c", "echo booted; exit 4"];
    assert_eq!(cli.run(&args).text(4), "booted\n");
    assert_eq!(sha256(&image), before, "the image was written");
}

/// A qcow2 image with a boot loader, a kernel, and an initramfs with the agent in it: what
/// knows nothing of `--kernel`.
fn bootable_image(work: &Path) -> std::path::PathBuf {
    let tools = metaservice_qemu::find().require().unwrap();
    let agent = std::fs::read(env!("METASERVICE_AGENT")).unwrap();
    let contents = metaservice_qemu::initramfs::Contents::new(agent, &tools);
    let initramfs = metaservice_qemu::initramfs::build(&contents.cache(work)).unwrap();
    std::fs::copy(&tools.kernel.image, work.join("kernel")).unwrap();
    std::fs::rename(initramfs.path(), work.join("initrd")).unwrap();
    let menu =
        "default job\nlabel job\n kernel kernel\n append initrd=initrd console=ttyS0 quiet\n";
    std::fs::write(work.join("syslinux.cfg"), menu).unwrap();
    tool(work, "truncate", &["-s", "64M", "boot.raw"]);
    tool(work, "mkfs.fat", &["boot.raw"]);
    tool(work, "mcopy", &["-i", "boot.raw", "kernel", "initrd", "syslinux.cfg", "::"]);
    tool(work, "syslinux", &["--install", "boot.raw"]);
    tool(work, "qemu-img", &["convert", "-f", "raw", "-O", "qcow2", "boot.raw", "boot.qcow2"]);
    work.join("boot.qcow2")
}

/// Runs a program that makes a part of an image.
fn tool(work: &Path, program: &str, args: &[&str]) {
    let output = std::process::Command::new(program).args(args).current_dir(work).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program}: {output:?}");
}

/// A qcow2 image of an ext4 file system with a busybox userland.
fn disk_image(work: &Path) -> std::path::PathBuf {
    let tools = metaservice_qemu::find().require().unwrap();
    let root = work.join("root");
    for folder in ["bin", "sbin", "etc", "proc", "sys", "dev", "run", "tmp", "usr"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    std::fs::copy(&tools.busybox, root.join("bin/busybox")).unwrap();
    for applet in ["sh", "cat", "echo", "sync"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    std::fs::write(root.join("etc/mark"), "the image's own\n").unwrap();
    tool(work, "mke2fs", &["-q", "-t", "ext4", "-d", "root", "disk.raw", "64M"]);
    tool(work, "qemu-img", &["convert", "-f", "raw", "-O", "qcow2", "disk.raw", "disk.qcow2"]);
    work.join("disk.qcow2")
}

#[test]
fn the_wire_and_the_console_can_be_kept() {
    let cli = Cli::new(METASERVICE);
    let args = ["run", "--pcap", "wire.pcap", "--console", "console.txt", "--", "echo", "done"];
    assert_eq!(cli.run(&args).text(0), "done\n");
    let wire = std::fs::read(cli.work().join("wire.pcap")).unwrap();
    let magic = u32::from_le_bytes(wire[..4].try_into().unwrap());
    assert!([0xa1b2_c3d4, 0xa1b2_3c4d].contains(&magic), "{magic:x}");
    let fetch = b"GET /engine/v1/execute HTTP/1.1";
    assert!(wire.windows(fetch.len()).any(|bytes| bytes == fetch), "the wire lacks the fetch");
    assert!(cli.work().join("console.txt").exists());
}

#[test]
fn a_second_card_reaches_the_outside_and_the_service_stays_on_ours() {
    let cli = Cli::new(METASERVICE);
    let script = "ip -4 -o addr show | grep -c inet; ip route | grep -c ^default; ip route get 169.254.169.254 | head -n 1";
    let isolated = cli.run(&["run", "--", "sh", "-c", script]).text(0);
    assert!(isolated.starts_with("2\n0\n"), "{isolated}");
    let networked = cli.run(&["run", "--net", "user", "--", "sh", "-c", script]).text(0);
    assert!(networked.starts_with("3\n1\n"), "{networked}");
    assert!(networked.contains("169.254.169.254 dev eth0"), "{networked}");
}

#[test]
fn qemu_has_a_filter_and_nothing_of_our_environment_that_is_secret() {
    let cli = Cli::new(METASERVICE);
    let args = ["run", "--json", "--secret", "TOKEN", "--", "sh", "-c", "echo $TOKEN; sleep 1000"];
    let mut child = cli.command(args).env("TOKEN", "t0ken-of-mine").spawn().unwrap();
    let _said = wait_for(&mut child, "\"event\":\"started\"");
    let mut log = [0; 13];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut log).unwrap();
    assert_eq!(&log, b"t0ken-of-mine");
    let machine = cli.machine();
    let read = |name: &str| std::fs::read(format!("/proc/{machine}/{name}")).unwrap();
    let environment = String::from_utf8(read("environ")).unwrap();
    assert!(!environment.contains("TOKEN") && !environment.contains("t0ken"), "{environment:?}");
    let status = String::from_utf8(read("status")).unwrap();
    assert!(status.contains("Seccomp:\t2\n"), "{status}");
    child.kill().unwrap();
    child.wait().unwrap();
    cli.wait_for_exits();
    cli.remove_sockets();
}

#[test]
fn files_of_the_wire_and_the_console_end_at_their_bounds_and_the_job_does_not() {
    let cli = Cli::new(METASERVICE);
    let script = "head -c 40000 /dev/zero | tr '\\0' x > /dev/console; head -c 100000 /dev/zero";
    let args = ["run", "--pcap", "wire", "--console", "console", "--limit", "pcap=20K"];
    let finished =
        cli.run(&[&args[..], &["--limit", "console=20K", "--", "sh", "-c", script]].concat());
    assert_eq!(finished.text(0).len(), 100_000);
    let length = |name: &str| std::fs::metadata(cli.work().join(name)).unwrap().len();
    assert!((1 << 10..=20 << 10).contains(&length("wire")), "{}", length("wire"));
    let console = std::fs::read(cli.work().join("console")).unwrap();
    let (kept, end) = console.split_at(20 << 10);
    assert!(!kept.windows(9).any(|text| text == b"ends here"));
    assert_eq!(end, b"\nmetaservice: the console's file ends here, at 20480 bytes\n");
    for told in ["--pcap wire ends at 20480 bytes", "--console console ends at 20480 bytes"] {
        assert_eq!(finished.stderr.matches(told).count(), 1, "{}", finished.stderr);
    }
}

/// A sandbox with kernels and first file systems of its own.
fn with_cache() -> (Cli, std::path::PathBuf) {
    let cli = Cli::with_cache(METASERVICE);
    let cache = cli.work().join("cache/metaservice");
    for name in ["vmlinux", "initramfs"] {
        // It is a link to the user's.
        let _ = std::fs::remove_file(cache.join(name));
    }
    (cli, cache)
}

/// Boots a machine within a script, `$0` being the tool, in a mount namespace of its own.
fn boot_within(cli: &Cli, script: &str) -> Finished {
    let inner = cli.command::<&str>([]);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-ec"]);
    command.arg(format!("{script}\n\"$0\" run -- echo fine")).arg(inner.get_program());
    command.current_dir(cli.work()).env("METASERVICE_NO_SNAPSHOT", "1");
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(command.spawn().unwrap())
}

#[test]
fn a_damaged_cache_is_mended_with_one_note() {
    let (cli, cache) = with_cache();
    let run = || {
        let finished = boot_within(&cli, "");
        assert_eq!(finished.text(0), "fine\n");
        finished.stderr
    };
    let damage = |length: u64| {
        for name in ["vmlinux", "initramfs"] {
            for entry in std::fs::read_dir(cache.join(name)).unwrap() {
                let path = entry.unwrap().path();
                if !path.file_name().unwrap().to_str().unwrap().starts_with('.') {
                    let file = std::fs::File::options().write(true).open(path).unwrap();
                    file.set_len(length).unwrap();
                }
            }
        }
    };
    assert!(!run().contains("damaged"));
    for length in [0, 1_000_000] {
        damage(length);
        let said = run();
        let expected = if cfg!(target_arch = "x86_64") { 2 } else { 1 };
        assert_eq!(said.matches("was damaged").count(), expected, "{said}");
    }
    assert!(!run().contains("damaged"));
}

#[test]
fn a_cache_that_cannot_be_written_costs_time_and_not_the_run() {
    let (cli, _) = with_cache();
    let closed = "mount --bind cache/metaservice cache/metaservice; \
                  mount -o remount,bind,ro cache/metaservice";
    let full = "mkdir -p full/metaservice; mount -t tmpfs -o size=1M none full; \
                cp -a cache/metaservice full/; export XDG_CACHE_HOME=$PWD/full";
    for (way, notes) in [(closed, 1), (full, 1), ("", 0), (closed, 0)] {
        let finished = boot_within(&cli, way);
        assert_eq!(finished.text(0), "fine\n");
        let said = finished.stderr.matches("the cache cannot be written").count();
        assert_eq!(said, notes, "{way}: {}", finished.stderr);
    }
}

/// Whatever becomes of what is said on stderr, artifacts and status are the job's.
#[test]
fn a_stderr_that_cannot_be_written_changes_nothing() {
    let cli = Cli::new(METASERVICE);
    let args = ["run", "--artifact", "/etc/passwd:p", "--", "sh", "-c", "echo log; exit 3"];
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let finished = finish(cli.command(args).stderr(full).spawn().unwrap());
    assert_eq!(finished.text(3), "log\n");
    assert!(std::fs::read_to_string(cli.work().join("p")).unwrap().contains("root"));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let args = ["run", "-vv", "--", "sh", "-c", "echo log; exit 4"];
    let finished = finish(cli.command(args).stderr(writer).spawn().unwrap());
    assert_eq!(finished.text(4), "log\n");
}

#[test]
fn a_machine_that_the_host_has_no_room_for_is_told_in_words() {
    let cli = Cli::new(METASERVICE);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let publish = format!("{port}:80");
    let finished = cli.run(&["run", "--net", "user", "--publish", &publish, "--", "true"]);
    finished.text(125);
    let told = format!("port 127.0.0.1:{port} of the host cannot be published");
    assert!(finished.stderr.contains(&told), "{}", finished.stderr);
    assert!(finished.stderr.contains("hint: ") && !finished.stderr.contains("qemu"));
}

#[test]
fn a_log_without_a_reader_or_a_place_is_told_as_shells_do() {
    let cli = Cli::new(METASERVICE);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let finished = finish(cli.command(["run", "--", "yes"]).stdout(writer).spawn().unwrap());
    assert_eq!((finished.status, finished.stderr.as_str()), (Some(141), ""));
    // What was asked for besides the log comes.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let args = ["run", "--artifact", "/etc/passwd:p", "--", "yes"];
    let finished = finish(cli.command(args).stdout(writer).spawn().unwrap());
    assert_eq!(finished.status, Some(141), "{}", finished.stderr);
    assert!(cli.work().join("p").exists() && !finished.stderr.contains("log"));

    let closed = ["-c", "exec \"$0\" \"$@\" >&-", env!("CARGO_BIN_EXE_metaservice")];
    let template = cli.command([""]);
    let mut shell = std::process::Command::new("sh");
    shell.args(closed).args(["run", "--", "echo", "lost"]).current_dir(cli.work());
    shell.envs(template.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let told = shell.output().unwrap();
    let stderr = String::from_utf8(told.stderr).unwrap();
    assert_eq!(told.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("the log is shown nowhere (--log FILE"), "{stderr}");
}
