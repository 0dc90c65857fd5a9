//! Errors of the command line: one line and status 125. Requests for help succeed.

use std::io::Write;
use std::process::Stdio;

use metaservice_testing::cli::{Cli, finish, wait_for};

use crate::METASERVICE;
#[track_caller]
fn refused(args: &[&str], told: &str) {
    let cli = Cli::new(METASERVICE);
    let finished = cli.run(args);
    assert_eq!(finished.text(125), "");
    assert!(finished.stderr.contains(told), "{args:?}: {}", finished.stderr);
}

#[test]
fn a_wrong_value_is_told_before_anything_starts() {
    refused(&["run"], "COMMAND");
    refused(&["run", "--memory", "1", "--", "true"], "in --memory: 1 MiB of memory");
    refused(&["run", "--memory", "much", "--", "true"], "in --memory: \"much\"");
    refused(&["run", "--cpus", "0", "--", "true"], "in --cpus: 0 processors");
    refused(
        &["run", "--timeout", "soon", "--", "true"],
        "in --timeout: \"soon\" is not a duration",
    );
    refused(&["run", "--boot-timeout", "0", "--", "true"], "in --boot-timeout");
    refused(&["run", "--env-file", "none", "--", "true"], "cannot read --env-file none");
    refused(&["run", "-e", "=x", "--", "true"], "a variable needs a name");
    refused(
        &["run", "--artifact", "/x:/no/where/f", "--", "true"],
        "there is no directory /no/where",
    );
    refused(&["run", "--name", "a b", "--", "true"], "in --name: a name is 1 to 63 letters");
    refused(&["run", "--log", "/no/where", "--", "true"], "cannot write --log /no/where");
    refused(&["run", "--pcap", "/no/where", "--", "true"], "cannot write --pcap /no/where");
    refused(&["run", "--image", "/no/where", "--", "true"], "in --image");
    refused(&["run", "--rootfs", "/no/where", "--", "true"], "/no/where");
    refused(&["run", "--show", "/srv", "--", "true"], "--rootfs");
    refused(&["run", "--rootfs", "/", "--show", "/proc", "--", "true"], "cannot be shown");
    refused(&["run", "--rootfs", "/", "--show", "/tmp", "--", "true"], "cannot be shown");
    refused(&["run", "--rootfs", "/", "--hide", "/no/where", "--", "true"], "/no/where");
    refused(&["run", "--image", "a", "--rootfs", "b", "--", "true"], "cannot be used with");
    refused(&["run", "--kernel", "/no/where", "--", "true"], "needs the --initrd");
    refused(&["run", "--accel", "magic", "--", "true"], "magic");
    refused(&["serve", "--listen", "localhost:80", "--", "true"], "neither IP:PORT nor unix:PATH");
    refused(&["serve", "--listen", "192.0.2.1:1", "--", "true"], "cannot listen on 192.0.2.1:1");
    refused(&["exec", "missing", "ls"], "there is no job named \"missing\"");
    refused(&["kill", "../x"], "there is no job named \"../x\"");
}

#[test]
fn a_mistyped_option_is_none_of_the_command() {
    refused(&["run", "--memroy", "2G", "--", "true"], "--memory");
    refused(&["run", "--mac", "52:54:00:12:34:56", "--", "true"], "unexpected argument '--mac'");
    refused(&["serve", "--listne", "127.0.0.1:0", "--", "true"], "--listen");
    refused(&["image", "prepare", "x", "--image", "y"], "unexpected argument '--image'");
    refused(&["exec", "missing", "--usr", "me", "ls"], "--user");
    // An unknown option before "--" must not become part of the command.
    for args in [&["run", "-x", "--", "true"][..], &["kill", "-9", "x"]] {
        let told = Cli::new(METASERVICE).run(args).stderr;
        assert!(told.contains("unexpected argument") && !told.contains("tip:"), "{told}");
    }
    // After the first word, everything belongs to the command.
    refused(&["exec", "missing", "ls", "--usr"], "there is no job named \"missing\"");
    refused(&["exec", "missing", "--", "--usr"], "there is no job named \"missing\"");
}

#[test]
fn what_is_wrong_is_told_once_where_a_saved_machine_could_be_too() {
    let cli = Cli::with_cache(METASERVICE);
    for args in [["run", "--memory", "1", "true"], ["run", "--pcap", "/no/where", "true"]] {
        let finished = cli.run(&args);
        finished.text(125);
        assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
    }
}

#[test]
fn user_data_without_an_end_are_refused() {
    let cli = Cli::new(METASERVICE);
    std::fs::write(cli.work().join("disk"), [0; 512]).unwrap();
    let args = ["run", "--image", "./disk", "--user-data", "/dev/zero", "--", "true"];
    let finished = cli.run(&args);
    finished.text(125);
    assert!(finished.stderr.contains("user data have at most"), "{}", finished.stderr);
}

#[test]
fn help_and_completions_go_to_stdout() {
    let cli = Cli::new(METASERVICE);
    assert!(cli.run(&["--help"]).text(0).contains("Run a command inside a virtual machine"));
    assert!(cli.run(&["run", "--help"]).text(0).contains("124 after --timeout"));
    assert!(cli.run(&["--version"]).text(0).starts_with("metaservice "));
    for shell in ["bash", "zsh", "fish"] {
        let script = cli.run(&["completions", shell]).text(0);
        assert!(script.contains("METASERVICE_COMPLETE"), "{shell}: {script}");
    }
}

#[test]
fn errors_are_json_for_programs() {
    let cli = Cli::new(METASERVICE);
    let finished = cli.run(&["--json", "kill", "missing"]);
    finished.text(125);
    let error: serde_json::Value = serde_json::from_str(finished.stderr.trim()).unwrap();
    assert_eq!((error["event"].as_str(), error["hint"].is_string()), (Some("error"), true));
}

#[test]
fn the_doctor_says_what_is_missing_and_what_to_type() {
    let cli = Cli::new(METASERVICE);
    let well = cli.run(&["doctor"]).text(0);
    for thing in ["qemu", "kernel", "busybox"] {
        assert!(well.lines().any(|line| line.starts_with("ok") && line.contains(thing)), "{well}");
    }
    let mut command = cli.command(["doctor"]);
    command
        .env("PATH", "/nowhere")
        .env("XDG_CACHE_HOME", cli.work())
        .env("METASERVICE_KERNEL", "/nowhere")
        .env("METASERVICE_NATS_SERVER", "/nowhere");
    let ill = finish(command.spawn().unwrap());
    let told = ill.text(1);
    assert!(told.contains("optional nats      /nowhere is no nats-server that runs"), "{told}");
    assert!(
        told.contains("missing  qemu") && told.contains("metaservice doctor --install"),
        "{told}"
    );

    // A host without a queue of its own needs no server.
    let mut command = cli.command(["doctor", "--json"]);
    command.env("METASERVICE_NATS_SERVER", "/nowhere");
    let shown: serde_json::Value =
        serde_json::from_str(&finish(command.spawn().unwrap()).text(0)).unwrap();
    assert!(shown["nats-server"]["hint"].as_str().unwrap().contains("METASERVICE_NATS_SERVER"));

    let mut command = cli.command(["run", "--", "true"]);
    command.env("PATH", "/nowhere").env("XDG_CACHE_HOME", cli.work());
    let failed = finish(command.spawn().unwrap());
    failed.text(125);
    assert!(
        failed.stderr.contains("hint: type 'metaservice doctor --install'"),
        "{}",
        failed.stderr
    );
}

#[test]
fn a_profile_gives_options_and_its_errors_name_the_file() {
    let cli = Cli::new(METASERVICE);
    let directory = cli.work().join("config/metaservice");
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join("config.toml");
    let with = |text: &str, args: &[&str]| {
        std::fs::write(&file, text).unwrap();
        let mut command = cli.command(args);
        command.env_remove("METASERVICE_CONFIG").env("XDG_CONFIG_HOME", cli.work().join("config"));
        finish(command.spawn().unwrap())
    };
    let text = "[profile.ci]\nmemory = \"2G\"\nenv = [\"A=1\"]\n";
    let args = ["run", "--profile", "ci", "-e", "B=2", "--dry-run=json", "--", "make"];
    let shown: serde_json::Value = serde_json::from_str(&with(text, &args).text(0)).unwrap();
    assert_eq!(shown["env"], serde_json::json!({ "A": "1", "B": "2" }));
    assert_eq!(shown["machine"]["memory"], "2G");
    assert!(with(text, &["doctor"]).text(0).contains("profiles: ci"));

    let place = format!("{}:2: in profile ci: ", file.display());
    for (entry, says) in [("memory = \"1X\"", "in --memory"), ("timeout = 0", "in --timeout")] {
        let failed = with(&format!("[profile.ci]\n{entry}\n"), &args);
        failed.text(125);
        assert!(failed.stderr.contains(&format!("{place}{says}")), "{}", failed.stderr);
        assert_eq!(failed.stderr.lines().count(), 1, "{}", failed.stderr);
    }
    let wrong = with("[profile.ci]\nx = 1\n", &["doctor"]).text(1);
    assert!(wrong.contains(&format!("wrong    config    {place}")), "{wrong}");
    // A file that the variable names has to exist. An empty variable names none.
    for (value, says) in
        [("/no/where", "cannot read /no/where"), ("", "METASERVICE_CONFIG is empty")]
    {
        let mut command = cli.command(args);
        command.env("METASERVICE_CONFIG", value);
        let failed = finish(command.spawn().unwrap());
        failed.text(125);
        assert!(failed.stderr.contains(says), "{}", failed.stderr);
    }
}

#[test]
fn the_names_of_running_jobs_complete() {
    let cli = Cli::new(METASERVICE);
    let args = ["serve", "--json", "--listen", "127.0.0.1:0", "--name", "builder", "--", "true"];
    let mut service = cli.command(args).spawn().unwrap();
    let mut line = String::new();
    let stderr = service.stderr.take().unwrap();
    let mut stderr = std::io::BufReader::new(stderr);
    std::io::BufRead::read_line(&mut stderr, &mut line).unwrap();
    let complete = |words: &[&str]| {
        let mut command = cli.command(["--", "metaservice"].iter().chain(words));
        command.env("METASERVICE_COMPLETE", "fish");
        finish(command.spawn().unwrap()).text(0)
    };
    assert_eq!(complete(&["shell", "bu"]), "builder\n");
    assert_eq!(complete(&["cp", "bu"]), "builder:\n");
    assert_eq!(complete(&["kill", "x"]), "");
    assert!(complete(&["insp"]).starts_with("inspect"));

    let missing = cli.run(&["logs", "bui"]);
    missing.text(125);
    assert!(missing.stderr.contains("hint: running: builder"), "{}", missing.stderr);
    assert_eq!(cli.run(&["ps", "-q"]).text(0), "builder\n");
    let inspected = cli.run(&["inspect", "builder"]).text(0);
    let job: serde_json::Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!((job["name"].as_str(), job["state"].as_str()), (Some("builder"), Some("waiting")));
    let pid = service.id().to_string();
    assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    assert_eq!(service.wait().unwrap().code(), Some(129));
}

#[test]
fn every_verb_has_a_manual_page_and_an_example() {
    let cli = Cli::new(METASERVICE);
    cli.run(&["man", "man1"]).text(0);
    for verb in
        ["ps", "inspect", "wait", "logs", "exec", "shell", "ls", "cp", "kill", "stats", "forward"]
    {
        let page = cli.work().join(format!("man1/metaservice-{verb}.1"));
        let page = std::fs::read_to_string(page).unwrap();
        assert!(page.contains(&format!("metaservice {verb}")), "{verb}: {page}");
        let help = cli.run(&[verb, "--help"]).text(0);
        assert!(help.contains("Example"), "{verb}");
    }
    assert!(cli.run(&["man"]).text(0).starts_with(".ie"));
}

#[test]
fn what_cannot_be_meant_is_told() {
    refused(&["run", "-p", "80:80", "true"], "hint: docker's -p is --publish [ADDR:]PORT:GUEST");
    refused(&["kill", "-s", "NOSUCH", "x"], "\"NOSUCH\" is no signal");
    refused(&["logs", "--since", "soon", "x"], "\"soon\" is no time");
    refused(&["forward", "x", "80"], "\"80\" is not [ADDR:]PORT:GUEST_PORT");
    refused(&["cp", "a", "b"], "one of SRC and DEST must be in a guest, as JOB:PATH");
    refused(&["cp", "a:/b", "c:/d"], "SRC and DEST are both in a guest");
    refused(&["exec", "--detach-keys", "ctrl", "x"], "in --detach-keys");
    refused(&["exec", "-d", "-i", "x"], "cannot be used with");
    refused(&["stats", "--interval", "1ms", "x"], "--interval must be 100ms to 10s");
    refused(&["shell", "x"], "a shell needs a terminal");
    refused(&["exec", "x"], "exec needs a command");
    refused(&["exec", "-d", "x"], "hint: write `metaservice exec x -- COMMAND`");
    refused(&["exec", "-t", "x", "sh"], "there is no job named \"x\"");
    let period = ["run", "--keep-on-failure", "5m", "--", "make"];
    refused(&period, "hint: write --keep-on-failure=5m");
    refused(&["man", "no/such"], "hint: make it first: mkdir -p no/such");
    refused(&["exec", "x", "true"], "hint: none is running");
    refused(&["logs", "x"], "hint: `metaservice ps -a` lists all jobs");
}

#[test]
fn a_directory_that_a_variable_names_wrongly_is_told_and_not_made() {
    let cli = Cli::new(METASERVICE);
    let none = cli.work().join("none");
    let run = |args: &[&str], wrong: &[&str]| {
        let mut command = cli.command(args);
        command.env_remove("XDG_DATA_HOME").env_remove("XDG_CACHE_HOME");
        for variable in wrong {
            command.env(variable, &none);
        }
        finish(command.spawn().unwrap())
    };
    run(&["ps"], &["XDG_RUNTIME_DIR", "TMPDIR"]).text(0);
    let job = run(&["serve", "--listen", "127.0.0.1:0", "--", "true"], &["TMPDIR"]);
    job.text(125);
    assert!(job.stderr.contains("(TMPDIR)"), "{}", job.stderr);
    // The password database has another home directory for this user.
    run(&["image", "ls"], &["HOME"]).text(0);
    assert!(!none.exists());
}

/// Jobs are in one place for each user, whatever the environment of a session has.
#[test]
fn a_job_is_found_from_cron_and_from_another_session() {
    let cli = Cli::new(METASERVICE);
    let home = cli.work().join("home");
    std::fs::create_dir(&home).unwrap();
    let in_session = |args: &[&str]| {
        let mut command = cli.command(args);
        command.env_remove("XDG_STATE_HOME").env("HOME", &home);
        command
    };
    let args = ["serve", "--json", "--listen", "127.0.0.1:0", "--name", "nightly", "--", "true"];
    let mut service = in_session(&args).spawn().unwrap();
    drop(wait_for(&mut service, "\"event\":\"serving\""));
    let elsewhere = cli.work().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let mut cron = in_session(&["ps", "-q"]);
    cron.env_clear().env("HOME", &home);
    assert_eq!(finish(cron.spawn().unwrap()).text(0), "nightly\n");
    let mut other = in_session(&["ps", "-q"]);
    other.env("TMPDIR", &elsewhere).env("XDG_RUNTIME_DIR", &elsewhere);
    assert_eq!(finish(other.spawn().unwrap()).text(0), "nightly\n");

    let missing = finish(in_session(&["kill", "daily"]).spawn().unwrap());
    missing.text(125);
    let place = home.join(".local/state/metaservice/jobs").display().to_string();
    assert!(missing.stderr.contains(&format!("(looked in {place})")), "{}", missing.stderr);
    let mode = std::fs::metadata(&place).unwrap().permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o700);
    service.kill().unwrap();
    service.wait().unwrap();
}

#[test]
fn too_few_descriptors_are_told() {
    let cli = Cli::new(METASERVICE);
    let inner = cli.command::<&str>([]);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -n 20; exec \"$0\" run -- true"]).arg(inner.get_program());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let refused = finish(command.spawn().unwrap());
    refused.text(125);
    assert!(refused.stderr.contains("limit of open files is 20"), "{}", refused.stderr);
    assert!(refused.stderr.contains("ulimit -n"), "{}", refused.stderr);
}

#[test]
fn a_state_directory_of_others_is_refused_and_what_it_leads_to_stays() {
    use std::os::unix::fs::PermissionsExt;
    let cli = Cli::new(METASERVICE);
    let at = |name: &str| cli.work().join(name);
    std::fs::write(at("victim"), "precious").unwrap();
    std::fs::create_dir(at("D")).unwrap();
    std::os::unix::fs::symlink(at("victim"), at("D/log")).unwrap();
    for (mode, says) in [(0o777, "can be written by other users"), (0o700, "\"log\" is in it")] {
        std::fs::set_permissions(at("D"), std::fs::Permissions::from_mode(mode)).unwrap();
        let args = ["serve", "--state", "D", "--listen", "127.0.0.1:0", "--", "true"];
        let served = cli.run(&args);
        served.text(125);
        assert!(served.stderr.contains(says), "{}", served.stderr);
    }
    assert_eq!(std::fs::read(at("victim")).unwrap(), b"precious");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let cli = Cli::new(METASERVICE);
    for args in [&["doctor"][..], &["man"], &["completions", "bash"], &["--help"], &["ps"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let finished = finish(cli.command(args).stdout(writer).spawn().unwrap());
        assert_eq!((finished.status, finished.stderr.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn traces_have_colours_on_terminals_alone() {
    let cli = Cli::new(METASERVICE);
    let args = ["--verbose", "serve", "--listen", "127.0.0.1:0", "--log", "/no/where", "true"];
    let told = cli.run(&args).stderr;
    assert!(told.contains("DEBUG") && !told.contains('\u{1b}'), "{told}");
}

/// The process waits for a reader of a FIFO or of standard error. A signal ends the wait.
#[test]
fn what_waits_in_the_kernel_ends_by_a_signal() {
    let cli = Cli::new(METASERVICE);
    let fifo = cli.work().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    let signal = |child: &std::process::Child, name: &str| {
        let pid = child.id().to_string();
        assert!(std::process::Command::new("kill").args([name, &pid]).status().unwrap().success());
    };
    for args in [
        &["run", "--verbose", "--log", "fifo", "--", "true"][..],
        &["serve", "--verbose", "--listen", "127.0.0.1:0", "--log", "fifo", "--", "true"],
    ] {
        let mut child = cli.command(args).spawn().unwrap();
        let _stderr = wait_for(&mut child, "opening the log's file");
        signal(&child, "-INT");
        assert_eq!(child.wait().unwrap().code(), Some(130), "{args:?}");
    }
    // The last messages find no room. The first signal ends the job, the second one the wait.
    let (_reader, mut writer) = std::io::pipe().unwrap();
    let room = rustix::pipe::fcntl_getpipe_size(&writer).unwrap();
    std::io::Write::write_all(&mut writer, &vec![b'x'; room]).unwrap();
    let args = ["serve", "--listen", "127.0.0.1:0", "--log", "fifo", "--", "true"];
    let mut child = cli.command(args).stderr(writer).spawn().unwrap();
    // The open completes when the tool opens the FIFO. It listens for signals by then.
    let _log = std::fs::File::open(&fifo).unwrap();
    signal(&child, "-INT");
    signal(&child, "-TERM");
    let status = child.wait().unwrap().code();
    assert!(matches!(status, Some(130 | 143)), "{status:?}");
}

#[test]
fn a_value_that_cannot_be_read_is_told_with_one_that_can() {
    let run = |flag: &'static str, value: &'static str, told: &str| {
        refused(&["run", flag, value, "--", "true"], told);
    };
    run("--cpus", "two", "write a number of processors");
    run("--cpus", "256", "256 processors is not between 1 and 255");
    run("--memory", "1.5X", "\"1.5X\" is no size: write it like 512M, 1.5G or 2G");
    run("--memory", "100T", "100 TiB of memory is not between");
    run("--max-log", "1,5G", "\"1,5G\" is not a size; write 512, 64M, 1.5G or 1T");
    run("--timeout", "1.5 weeks or so", "is not a duration; write 90, 0.5s, 5m or 1h30m");
    refused(&["kill", "-s", "RTMIN", "x"], "\"RTMIN\" is a real-time signal");
    refused(&["logs", "--tail", "some", "x"], "write a number of lines, or \"all\"");
    refused(&["logs", "--tail", "all", "x"], "there is no job named \"x\"");
    refused(&["logs", "--since", "2026-11-26", "x"], "there is no job named \"x\"");
    refused(&["logs", "--since", "2026-26-11", "x"], "is no time; write 10m, 2024-05-01");
    refused(&["ls", "x:/etc"], "there is no job named \"x\"");
    refused(&["ls", "x"], "hint: write `metaservice ls x /`");
    refused(&["ls", "x:", "/etc"], "\"x:\" is not JOB:PATH");
    refused(&["ls", "x:/etc", "/etc"], "the directory is given twice");
    refused(&["ls", "-lh", "x", "/"], "there is no job named \"x\"");
    refused(&["ls", "-la", "x:/"], "there is no job named \"x\"");
}

#[test]
fn help_is_a_verb_and_a_mistyped_verb_is_recognised() {
    let cli = Cli::new(METASERVICE);
    assert!(cli.run(&["help"]).text(0).contains("Run a command inside a virtual machine"));
    assert!(cli.run(&["help", "run"]).text(0).contains("124 after --timeout"));
    assert!(cli.run(&["help", "image", "prepare"]).text(0).contains("metaservice image prepare"));
    assert!(cli.run(&["ls", "--help"]).text(0).contains("Example"));
    for args in [&["help"][..], &["help", "run"]] {
        let help = cli.run(args).text(0);
        assert!(!help.contains('\u{1b}'), "escape sequences in a pipe: {args:?}: {help:?}");
    }
    refused(&["help", "run", "x"], "hint: metaservice run has no verbs of its own");
    refused(&["help", "rnu"], "hint: did you mean \"run\"?");
    refused(&["rnu"], "hint: did you mean \"run\"?");
    refused(&["image", "lss"], "ls");
    let told = cli.run(&["--json", "rnu"]);
    told.text(125);
    let error: serde_json::Value = serde_json::from_str(told.stderr.trim()).unwrap();
    assert_eq!(
        (&error["event"], &error["hint"]),
        (&"error".into(), &"did you mean \"run\"?".into())
    );
}

#[test]
fn a_service_waits_for_its_guest_as_long_as_it_is_told() {
    let cli = Cli::new(METASERVICE);
    let args = ["serve", "--listen", "127.0.0.1:0", "--timeout", "1h", "--boot-timeout", "0.2s"];
    let finished = cli.run(&[&args[..], &["--", "true"]].concat());
    finished.text(125);
    assert!(finished.stderr.contains("no guest has fetched its command within 200ms"));
}

/// With a secret, the tool executes itself again, after it has read the pipe.
#[test]
fn a_description_can_come_from_a_pipe() {
    let cli = Cli::new(METASERVICE);
    let plain = r#"{"version":1,"command":["from","a","pipe"]}"#;
    let secret = r#"{"version":1,"command":["from","a","pipe"],"secrets":["TOKEN"]}"#;
    for (file, spec) in [("-", plain), ("/dev/stdin", plain), ("-", secret), ("/dev/stdin", secret)]
    {
        let mut command = cli.command(["run", "--spec", file, "--dry-run=json"]);
        let mut child = command.env("TOKEN", "x").stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(spec.as_bytes()).unwrap();
        let described = finish(child).text(0);
        assert!(described.contains("\"pipe\""), "{file}: {described}");
    }
}
