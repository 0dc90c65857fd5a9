//! What scripts and shells ask the tool for: several jobs at once, lists, and completions.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use metaservice_testing::cli::{Cli, Finished, Service, finish};
use metaservice_testing::pair::spawn_agent;

use crate::AGENT;

const METASERVICE: &str = env!("CARGO_BIN_EXE_metaservice");

/// A job whose command sleeps, its agent, and the directory of the agent.
type Job = (Service, Child, tempfile::TempDir);

fn start(cli: &Cli, name: &str) -> Job {
    let service = cli.serve(&["--name", name, "sleep", "1000"]);
    let directory = tempfile::tempdir().unwrap();
    let address = service.address.parse().unwrap();
    let agent = spawn_agent(AGENT.as_str(), address, directory.path(), &[]);
    cli.run(&["wait", "--for", "running", name]).text(0);
    (service, agent, directory)
}

fn end(jobs: impl IntoIterator<Item = Job>) {
    for (service, mut agent, _directory) in jobs {
        service.finish();
        // It would wait for a service that comes back.
        agent.kill().unwrap();
        agent.wait().unwrap();
    }
}

/// The completions of the last word, as fish gets them.
fn complete(cli: &Cli, words: &[&str]) -> Finished {
    let mut command = cli.command(["--", "metaservice"].iter().chain(words));
    finish(command.env("METASERVICE_COMPLETE", "fish").spawn().unwrap())
}

/// The completions of `before` and the unfinished `word` in bash, which splits both at colons.
fn complete_in_bash(cli: &Cli, before: &str, word: &str) -> String {
    let words = format!("{before} {word}").replace(':', " : ");
    let script = format!(
        "source <({METASERVICE} completions bash)
         COMP_LINE='{before} {word}' COMP_POINT=${{#COMP_LINE}} COMP_TYPE=9
         COMP_WORDS=({words}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
         last=${{COMP_WORDS[COMP_CWORD]}}
         if [[ $last == : ]]; then last=; fi
         _metaservice metaservice \"$last\" cp 2>/dev/null
         printf '<%s>' \"${{COMPREPLY[@]}}\""
    );
    let path = Path::new(METASERVICE).parent().unwrap().display().to_string();
    let path = format!("{path}:{}", std::env::var("PATH").unwrap());
    let environment = cli.command([""; 0]);
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", &script]).current_dir(cli.work()).env("PATH", path);
    for (name, value) in environment.get_envs().filter_map(|(name, value)| Some((name, value?))) {
        bash.env(name, value);
    }
    let bash = bash.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(bash.spawn().unwrap()).text(0)
}

#[test]
fn plain_paths_of_a_guest_complete() {
    let cli = Cli::new(METASERVICE);
    let guest = tempfile::tempdir().unwrap();
    let guest = guest.path();
    std::fs::create_dir(guest.join("etc")).unwrap();
    for name in ["etcetera", "other", "$(touch pwned)", "et`id`", "et c", "et\u{1b}[2J", ".et"] {
        std::fs::write(guest.join(name), "").unwrap();
    }
    let job = start(&cli, "paths");
    let place = format!("paths:{}", guest.display());
    let all = complete(&cli, &["cp", &format!("{place}/et")]).text(0);
    assert_eq!(all, format!("{place}/etc/\n{place}/etcetera\n"));
    assert_eq!(
        complete(&cli, &["ls", &format!("{place}/oth")]).text(0),
        format!("{place}/other\n")
    );
    assert!(complete(&cli, &["cp", "paths:"]).text(0).contains("paths:/etc/\n"));
    for none in ["paths:relative", "paths:/no/such/", "missing:/et"] {
        assert_eq!(complete(&cli, &["cp", none]).text(0), "", "{none}");
    }

    // Bash has the part after the colon.
    let in_bash = |before, word: &str| complete_in_bash(&cli, before, word);
    let below = guest.display();
    let typed = format!("{place}/et");
    assert_eq!(in_bash("metaservice cp", &typed), format!("<{below}/etc/><{below}/etcetera>"));
    assert_eq!(in_bash("metaservice cp -L", &typed).matches('<').count(), 2);
    assert!(in_bash("metaservice cp", "paths:").contains("</etc/>"));
    assert_eq!(in_bash("metaservice cp", "pat"), "<paths:>");
    // The last word is not a part of the word before it.
    assert_eq!(in_bash("metaservice cp x: ", "pat"), "<paths:>");
    cli.run(&["kill", "paths"]).text(0);
    end([job]);
    assert!(!cli.work().join("pwned").exists());
}

#[test]
fn a_verb_takes_several_names_and_says_which_ones_are_wrong() {
    let cli = Cli::new(METASERVICE);
    let jobs = ["one", "two"].map(|name| start(&cli, name));
    let inspected = cli.run(&["inspect", "two", "one"]).text(0);
    let values = serde_json::Deserializer::from_str(&inspected).into_iter::<serde_json::Value>();
    let names: Vec<_> = values.map(|value| value.unwrap()["name"].clone()).collect();
    assert_eq!(names, ["two", "one"]);

    let wrong = |args: &[&str]| {
        let finished = cli.run(args);
        assert_eq!(finished.status, Some(125), "{args:?}");
        let told = finished.stderr.lines().filter(|line| line.starts_with("metaservice: "));
        assert_eq!(told.count(), 1, "{args:?}: {}", finished.stderr);
        assert!(finished.stderr.contains("missing"), "{args:?}: {}", finished.stderr);
        finished.stdout
    };
    assert!(wrong(&["inspect", "one", "missing"]).starts_with(b"{"));
    // The others are handled before and after the wrong one.
    wrong(&["kill", "one", "missing", "two"]);
    assert_eq!(wrong(&["wait", "one", "missing", "two"]), b"143\n143\n");
    assert_eq!(cli.run(&["wait", "one", "two"]).text(143), "143\n143\n");
    end(jobs);
    wrong(&["rm", "one", "missing", "two"]);
    assert_eq!(cli.run(&["ps", "-aq"]).text(0), "");
}

#[test]
fn an_attachment_ends_with_the_reader_of_its_output() {
    let cli = Cli::new(METASERVICE);
    let job = start(&cli, "quiet");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let attached = cli.command(["attach", "quiet"]).stdout(writer).spawn().unwrap();
    let attached = finish(attached);
    assert_eq!((attached.status, attached.stderr.as_str()), (Some(128 + 13), ""));
    // The job runs on.
    assert_eq!(cli.run(&["ps", "-q"]).text(0), "quiet\n");
    cli.run(&["kill", "quiet"]).text(0);
    end([job]);
}

#[test]
fn a_list_has_the_form_of_its_template() {
    let cli = Cli::new(METASERVICE);
    let jobs = ["a", "b"].map(|name| start(&cli, name));
    let ps = |args: &[&str]| cli.run(&[&["ps"], args].concat()).text(0);
    assert_eq!(ps(&["--format", "{{.Name}}\\t{{.State}}"]), "a\trunning\nb\trunning\n");
    assert_eq!(
        ps(&["--format", "table {{.Names}}\\t{{.Command}}"]),
        "NAME  COMMAND\na     sleep 1000\nb     sleep 1000\n"
    );
    let lines = ps(&["--format", "json"]);
    let values: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let array: serde_json::Value = serde_json::from_str(&ps(&["--json"])).unwrap();
    assert_eq!(values[1]["name"], "b");
    assert_eq!(array[1]["name"], values[1]["name"]);
    let usual = ps(&[]);
    let head: Vec<&str> = usual.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(head, ["NAME", "STATE", "AGE", "IMAGE", "CPU", "MEMORY", "ACCEL", "PID", "COMMAND"]);
    let refused = cli.run(&["ps", "--format", "{{.Ports}}"]);
    refused.text(125);
    assert!(refused.stderr.contains("write .Name, .State"), "{}", refused.stderr);
    cli.run(&["kill", "a", "b"]).text(0);
    end(jobs);
}

#[test]
fn the_use_of_all_jobs_is_shown_at_once() {
    use std::io::{BufRead, BufReader};
    let cli = Cli::new(METASERVICE);
    let jobs = ["a", "b"].map(|name| start(&cli, name));
    let once = cli.run(&["stats", "--no-stream"]).text(0);
    let names: Vec<_> = once.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["NAME", "a", "b"], "{once}");
    assert!(once.contains('%') && !once.contains(" - "), "{once}");
    let one = cli.run(&["stats", "--json", "--no-stream", "b"]).text(0);
    let one: serde_json::Value = serde_json::from_str(&one).unwrap();
    assert!(one["name"] == "b" && one["memoryTotal"].as_u64() > Some(0), "{one}");

    let mut all = cli.command(["stats", "--json", "--interval", "100ms"]).spawn().unwrap();
    let mut named = cli.command(["stats", "--interval", "100ms", "a", "b"]).spawn().unwrap();
    let mut seen = BufReader::new(all.stdout.take().unwrap()).lines();
    let mut next = || {
        let line = seen.next().unwrap().unwrap();
        serde_json::from_str::<serde_json::Value>(&line).unwrap()["name"].clone()
    };
    while next() != "a" {}
    while next() != "b" {}
    // A job that starts later appears.
    let late = start(&cli, "late");
    while next() != "late" {}
    cli.run(&["kill", "a", "b", "late"]).text(0);
    end(jobs.into_iter().chain([late]));
    // That of named jobs ends with them, the other one by a signal.
    let rows = std::io::read_to_string(named.stdout.take().unwrap()).unwrap();
    assert!(rows.lines().any(|line| line.starts_with("b ") && line.contains('%')), "{rows}");
    finish(named);
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&all),
        rustix::process::Signal::INT,
    )
    .unwrap();
    assert_eq!(finish(all).status, Some(130));
}
