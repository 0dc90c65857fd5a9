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
    ] {
        let cli = Cli::new(METASERVICE);
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
fn a_version_1_agent_keeps_its_host_name_and_that_is_said() {
    let cli = Cli::new(METASERVICE);
    let service = cli.serve(&["--hostname", "db", "--", "true"]);
    assert_eq!(fetch(&service), "HTTP/1.1 200 OK");
    assert_eq!(service.request("PUT", "success", "").0, "HTTP/1.1 200 OK");
    let finished = service.finish();
    finished.text(0);
    assert!(finished.stderr.contains(r#""event":"without""#), "{}", finished.stderr);
}
