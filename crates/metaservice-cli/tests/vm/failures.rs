//! Jobs and machines that fail: the exit status, the cause, and what is kept.

use metaservice_testing::cli::Cli;

use crate::METASERVICE;

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
fn files_that_fill_the_memory_are_refused_and_a_command_that_does_is_killed_and_told() {
    let cli = Cli::new(METASERVICE);
    let script = "for file in /tmp/a /b /dev/shm/c /run/d /dev/e; do \
                  dd if=/dev/zero of=$file bs=1M 2>&1 | grep -o 'No space left on device'; done; \
                  tail /dev/zero; echo status $?; \
                  cat /proc/$PPID/oom_score_adj /proc/self/oom_score_adj; stat -c %a /; exit 3";
    let options = ["run", "--stderr", "merged", "--memory", "128M", "--"];
    let finished = cli.run(&[&options[..], &["sh", "-c", script]].concat());
    let full = "No space left on device\n".repeat(5);
    assert_eq!(finished.text(3), format!("{full}Killed\nstatus 137\n-1000\n0\n755\n"));
    let told = "the guest's kernel killed a process for lack of memory";
    assert!(finished.stderr.contains(told), "{}", finished.stderr);
}

#[test]
fn files_of_any_number_leave_memory_for_processes() {
    let cli = Cli::new(METASERVICE);
    // Create as many empty files as possible, and then content.
    let script = "for directory in /tmp / /dev; do mkdir $directory/q; cd $directory/q; \
                  seq 20000 | xargs touch 2> /dev/null; rm -f 1; done; \
                  for directory in /tmp / /dev; do \
                  dd if=/dev/zero of=$directory/x bs=64k 2>&1 | grep -o 'No space left on device'; \
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
    finished.text(125);
    assert!(finished.stderr.contains("the command is lost"), "{}", finished.stderr);
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
    // All of this was sent.
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
