//! Descriptions of jobs that come from the page.

use metaservice_fleet::request::Request;
use metaservice_sandbox::spec::JobSpec;
use metaservice_web::SourceError;
use serde_json::Value;

/// Reads a description.
pub(super) fn read(spec: Value) -> Result<JobSpec, SourceError> {
    serde_json::from_value(spec).map_err(|error| SourceError::Refused(error.to_string()))
}

/// Refuses what a user of the page may not say to this host. It is what a job may not say to a
/// worker, and the places of artifacts.
pub(super) fn check_paths(spec: &JobSpec) -> Result<(), SourceError> {
    // Without a place, they would be in the working directory of the server.
    if !spec.artifacts.is_empty() {
        let text = "artifacts are written to this host, which is for its user";
        return Err(SourceError::Refused(text.to_owned()));
    }
    // A key can be the path of a file.
    if !spec.cloud.ssh_keys.is_empty() {
        let text = "the description has keys, which can name files of this host";
        return Err(SourceError::Refused(text.to_owned()));
    }
    check_rules(spec)?;
    Request::new(spec.clone()).check().map_err(|error| SourceError::Refused(error.to_string()))
}

/// Refuses rules for the loopback interface of the host that runs the job.
pub(super) fn check_rules(spec: &JobSpec) -> Result<(), SourceError> {
    match spec.machine.network.allow.iter().find(|rule| rule.trim_start().starts_with("host:")) {
        Some(rule) => {
            let text = format!("the rule {rule} is for the user of the host");
            Err(SourceError::Refused(text))
        }
        None => Ok(()),
    }
}

/// The message of a job that did not start, without what is for a terminal.
pub(super) fn message(error: &str) -> String {
    // The flag is one that the user of the page has not given.
    let text = |line: &'_ str| {
        let line = line.strip_prefix("metaservice: ").unwrap_or(line);
        line.strip_prefix("in --spec -: ").unwrap_or(line).to_owned()
    };
    let lines: Vec<_> = error.lines().map(text).collect();
    match lines.join("\n").trim() {
        "" => "the job did not start".to_owned(),
        text => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_user_names_no_path_of_the_host() {
        let refused = |spec: Value| check_paths(&read(spec).unwrap()).is_err();
        let plain = json!({ "version": 1, "command": ["true"] });
        assert!(!refused(plain.clone()));
        for (name, value) in [
            ("machine", json!({ "rootfs": "/" })),
            ("machine", json!({ "volumes": [{ "host": "/", "guest": "/mnt" }] })),
            ("machine", json!({ "image": "/etc/shadow" })),
            ("machine", json!({ "console": "x" })),
            ("machine", json!({ "network": { "log": "x" } })),
            ("machine", json!({ "network": { "allow": ["host:22"] } })),
            ("artifacts", json!([{ "path": "/a", "to": "/etc/cron.d/a" }])),
            ("artifacts", json!([{ "path": "/tmp/.bashrc" }])),
            ("cloud", json!({ "sshKeys": ["/etc/ssh/key.pub"] })),
            ("copyIn", json!([{ "from": "/etc/shadow" }])),
            ("secrets", json!(["HOME"])),
        ] {
            let mut spec = plain.clone();
            spec[name] = value;
            assert!(refused(spec.clone()), "{spec}");
        }
    }

    #[test]
    fn a_message_has_no_words_for_a_terminal() {
        assert_eq!(message("metaservice: in --spec -: no room\nhint: x\n"), "no room\nhint: x");
        assert_eq!(message(" \n"), "the job did not start");
        assert!(matches!(read(json!({ "command": 1 })), Err(SourceError::Refused(_))));
    }
}
