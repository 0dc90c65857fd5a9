//! What a job needs of its agent, with agents that cannot do it.

use metaservice_testing::cli::{Cli, Service};

use crate::METASERVICE;

/// Fetches the command as an agent of version 1, and returns the status line.
fn fetch(service: &Service) -> String {
    service.request("GET", "execute", "").0
}

#[test]
fn a_version_1_agent_does_not_get_a_command_that_it_would_start_in_another_way() {
    for (option, value, says) in [
        ("--workdir", "/src", "set the working directory of the command"),
        ("--user", "1:1", "set the user of the command"),
        ("--entrypoint", "env", "set the entry point of the command"),
        ("--copy-in", "file", "hold the command back until files are in place"),
    ] {
        let cli = Cli::new(METASERVICE);
        std::fs::write(cli.work().join("file"), "").unwrap();
        let service = cli.serve(&[option, value, "--artifact", "/x", "--", "true"]);
        assert_eq!(fetch(&service), "HTTP/1.1 409 Conflict");
        let finished = service.finish();
        assert_eq!(finished.text(125), "");
        let errors: Vec<_> =
            finished.stderr.lines().filter(|line| line.contains("\"error\"")).collect();
        let [error] = errors[..] else { panic!("{}", finished.stderr) };
        assert!(error.contains(says) && error.contains("prepare the image again"), "{error}");
        assert!(finished.stderr.contains(r#""reason":"unsupported""#), "{}", finished.stderr);
        assert!(!cli.work().join("x").exists());
    }
}

#[test]
fn a_wrong_value_is_refused_in_one_line_before_anything_starts() {
    let cli = Cli::new(METASERVICE);
    std::fs::write(cli.work().join("file"), "").unwrap();
    for (options, says) in [
        (&["--workdir", "src"][..], "in --workdir: write an absolute path in the guest"),
        (&["--user", "a b"], "in --user: write NAME, UID, NAME:GROUP or UID:GID"),
        (&["--hostname", "a_b"], "in --hostname: a host name is"),
        (&["--copy-in", "none:/x"], "in --copy-in none: cannot read none: No such file"),
        (&["--copy-in", "file:"], "in --copy-in file: there is nothing after the colon"),
        (&["--copy-in", "/dev/null"], "is neither a file, a directory nor a link"),
        (&["--artifact", "/a["], "in --artifact /a[: the pattern is wrong"),
        (&["--artifact", "/*:file"], "file is not a directory, which a pattern needs"),
        (&["--artifact", "/a:no/such/x"], "there is no directory no/such"),
        (&["--artifact", "/"], "/ has no name for the host: write /:DEST"),
        (&["--artifact", "/a/x", "--artifact", "/b/x"], "would both write x"),
        (&["--artifact", "/a/*:out", "--artifact", "/b:out"], "would both write out"),
    ] {
        let finished = cli.run(&[&["run"], options, &["--", "true"]].concat());
        assert_eq!(finished.text(125), "");
        let lines: Vec<_> = finished.stderr.lines().collect();
        assert!(lines.len() == 1 && lines[0].contains(says), "{options:?}: {}", finished.stderr);
        assert_eq!(std::fs::read_dir(cli.work()).unwrap().count(), 1);
    }
    let wrong = cli.run(&["run", "--artifacts-on", "never", "--", "true"]);
    assert!(wrong.stderr.contains("always, failure, success"), "{}", wrong.stderr);
}

#[test]
fn a_version_1_agent_keeps_its_host_name_and_that_is_said() {
    let cli = Cli::new(METASERVICE);
    let service = cli.serve(&["--hostname", "db", "--", "true"]);
    assert_eq!(fetch(&service), "HTTP/1.1 200 OK");
    assert_eq!(service.request("PUT", "success", "").0, "HTTP/1.1 200 OK");
    let finished = service.finish();
    finished.text(0);
    assert!(finished.stderr.contains(r#""event":"without""#), "{}", finished.stderr);
}
