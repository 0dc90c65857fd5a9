//! `metaservice net` without a job, and the flags of the network.

use metaservice_testing::cli::Cli;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::METASERVICE;

#[test]
fn a_check_says_which_rule_decides() {
    let cli = Cli::new(METASERVICE);
    std::fs::write(cli.work().join("net.toml"), "include = ['pip']\ndeny = ['*.ads.example']")
        .unwrap();
    let check = ["net", "check", "--net-policy", "net.toml", "--allow-net", "*.example:443"];
    let allowed = cli.run(&[&check[..], &["--", "pypi.org:443"]].concat()).text(0);
    assert!(allowed.starts_with("allowed  pypi.org:443  by pypi.org:443"), "{allowed}");
    let both = ["--", "a.example:443", "x.ads.example:443", "pypi.org:22"];
    let denied = cli.run(&[&check[..], &both].concat()).text(1);
    let lines: Vec<_> = denied.lines().collect();
    assert!(lines[0].starts_with("allowed  a.example:443      by *.example:443"), "{denied}");
    assert_eq!(lines[1], "denied   x.ads.example:443  by *.ads.example");
    assert_eq!(lines[2], "denied   pypi.org:22        no rule allows it: --allow-net pypi.org:22");
}

#[test]
fn a_check_is_json_for_programs_and_a_status_alone() {
    let cli = Cli::new(METASERVICE);
    let check = ["net", "check", "--net", "open", "--json", "--", "1.1.1.1:53/udp", "10.0.0.1:80"];
    let answers: Value = serde_json::from_str(&cli.run(&check).text(1)).unwrap();
    let expected = json!([
        { "target": "1.1.1.1:53/udp", "verdict": "allowed", "rule": "public" },
        {
            "target": "10.0.0.1:80",
            "verdict": "denied",
            "reason": "not-public",
            "class": "private",
            "suggestion": "10.0.0.1:80",
        },
    ]);
    assert_eq!(answers, expected);
    assert_eq!(cli.run(&["net", "check", "-q", "--", "a.example:443"]).text(1), "");
}

#[test]
fn a_wrong_argument_is_an_error_with_its_place() {
    let cli = Cli::new(METASERVICE);
    let write = |name: &str, text: &str| std::fs::write(cli.work().join(name), text).unwrap();
    write("wrong.toml", "allow = [\n  'a.example',\n  'https://b.example',\n]");
    write("circle.toml", "include = ['./circle.toml']");
    for (arguments, says) in [
        (&["--", "a.example"][..], "in \"a.example\": write it as NAME:PORT or ADDRESS:PORT"),
        (&["--allow-net", "a b", "--", "a:1"], "in --allow-net a b: the rule has no valid name"),
        (&["--allow-net", "pip", "--", "a:1"], "'pip' is a preset of policies, not a rule"),
        (&["--net-policy", "pipp", "--", "a:1"], "there is no preset \"pipp\""),
        (&["--net-policy", "./no", "--", "a:1"], "in --net-policy: cannot read ./no: No such file"),
        (
            &["--net-policy", "wrong.toml", "--", "a:1"],
            "in wrong.toml, line 3: in the rule \"https://b.example\": ",
        ),
        (
            &["--net-policy", "circle.toml", "--", "a:1"],
            "in circle.toml, line 1: ./circle.toml includes itself",
        ),
        (&["--net-policy", "pip"], "TARGET"),
    ] {
        let finished = cli.run(&[&["net", "check"], arguments].concat());
        assert_eq!(finished.text(125), "");
        assert!(finished.stderr.contains(says), "{arguments:?}: {}", finished.stderr);
    }
}

#[test]
fn a_printed_preset_is_a_policy() {
    let cli = Cli::new(METASERVICE);
    let names = cli.run(&["net", "presets", "-q"]).text(0);
    assert_eq!(names, "apt\ncargo\ngit\nnpm\npip\n");
    for name in names.lines() {
        let text = cli.run(&["net", "presets", name]).text(0);
        std::fs::write(cli.work().join("net.toml"), text).unwrap();
        cli.run(&["net", "check", "--net-policy", "net.toml", "--", "a:1"]).text(1);
    }
    let unknown = cli.run(&["net", "presets", "pipp"]);
    assert_eq!(unknown.text(125), "");
    assert!(unknown.stderr.contains("one of: apt, cargo, git, npm, pip"), "{}", unknown.stderr);
    let hint = unknown.stderr.lines().find(|line| line.starts_with("hint: one of: "));
    assert!(hint.is_some(), "{}", unknown.stderr);
}

#[test]
fn the_network_is_in_the_description_of_a_job() {
    let cli = Cli::new(METASERVICE);
    std::fs::write(cli.work().join("net.toml"), "").unwrap();
    let flags = ["--net", "open", "--deny-net", "a.example", "--net-policy", "net.toml"];
    let more = ["--net-log", "net.jsonl", "--publish", "0:80", "--dry-run=json", "--", "true"];
    let described = cli.run(&[&["run"], &flags[..], &more].concat()).text(0);
    let described: Value = serde_json::from_str(&described).unwrap();
    let expected = json!({
        "mode": "open",
        "deny": ["a.example"],
        "policy": "net.toml",
        "log": "net.jsonl",
        "publish": ["0:80"],
    });
    assert_eq!(described["machine"]["network"], expected);
}

#[test]
fn a_dry_run_says_what_the_network_is_made_of() {
    let cli = Cli::new(METASERVICE);
    let rows = |flags: &[&str]| {
        let text = cli.run(&[&["run", "--dry-run"], flags, &["--", "true"]].concat()).text(0);
        let lines = text.lines().skip_while(|line| !line.starts_with("network"));
        let rows = lines.take_while(|line| !line.starts_with("start"));
        rows.collect::<Vec<_>>().join("\n")
    };
    assert_eq!(rows(&[]), "network       none");
    let log = cli.work().canonicalize().unwrap().join("net");
    assert_eq!(
        rows(&["--net", "open", "--net-log", log.to_str().unwrap(), "--publish", "8080:80"]),
        format!(
            "network       open\nnetwork log   {}\npublished     127.0.0.1:8080:80",
            log.display()
        )
    );
    assert_eq!(
        rows(&["--allow-net", "a.example", "--allow-net", "b.example", "--deny-net", "c.example"]),
        "network       policy\nallow rules   2\ndeny rules    1"
    );
}

#[test]
fn a_job_without_a_network_says_so() {
    let cli = Cli::new(METASERVICE);
    let service = cli.serve(&["--name", "plain", "--", "true"]);
    for (words, says) in [
        (&["show", "plain"][..], "cannot show the network of plain: "),
        (&["log", "plain"], "cannot read the network log of plain: "),
        (&["allow", "plain", "a.example"], "cannot change the network of plain: "),
        (&["publish", "plain", "0:80"], "cannot publish 0:80 of plain: "),
    ] {
        let finished = cli.run(&[&["net"], words].concat());
        assert_eq!(finished.text(125), "");
        let expected = format!("metaservice: {says}the guest of this job has no network\n");
        assert_eq!(finished.stderr, expected);
    }
    // What is wrong in the words is found before the job is looked for.
    let wrong = cli.run(&["net", "deny", "none", "*"]);
    assert!(wrong.stderr.contains("in \"*\": write 'public'"), "{}", wrong.stderr);
    let gone = cli.run(&["net", "show", "none"]);
    assert!(gone.stderr.contains("there is no job named \"none\""), "{}", gone.stderr);
    service.stop(Signal::TERM);
}
