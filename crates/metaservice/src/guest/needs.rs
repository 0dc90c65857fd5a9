//! What a job needs of its agent.
//!
//! Owns the one table of it: each thing that a job can ask of an agent beyond version 1, with the
//! capability by which an agent announces that it can do it. The host looks into the table before
//! it gives out the command. If the agent cannot do something that the command needs, the job ends,
//! and the command is never started. If the command can do without it, it runs, and the handle of
//! the job reports what it goes without.

use metaservice_protocol::{AgentInfo, Capability, Execute};

use crate::job::need::Need;

/// What happens to the job if its agent cannot do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Otherwise {
    /// The job ends before the command starts.
    End,
    /// The command runs without it.
    Without,
}

/// A row of the table.
struct Row {
    need: Need,
    capability: Capability,
    asked: fn(&Execute) -> bool,
    otherwise: Otherwise,
}

const fn row(
    need: Need,
    capability: Capability,
    otherwise: Otherwise,
    asked: fn(&Execute) -> bool,
) -> Row {
    Row { need, capability, asked, otherwise }
}

const TABLE: &[Row] = &[
    row(Need::Workdir, Capability::Launch, Otherwise::End, |job| job.workdir.is_some()),
    row(Need::User, Capability::Launch, Otherwise::End, |job| job.user.is_some()),
    row(Need::Entrypoint, Capability::Launch, Otherwise::End, |job| job.entrypoint.is_some()),
    row(Need::Stdin, Capability::Attach, Otherwise::End, |job| job.stdin),
    row(Need::Hold, Capability::Launch, Otherwise::End, |job| job.hold),
    row(Need::Hostname, Capability::Launch, Otherwise::Without, |job| job.hostname.is_some()),
    row(Need::Streams, Capability::Streams, Otherwise::Without, |job| job.separate),
    row(Need::Volumes, Capability::Volumes, Otherwise::End, |job| !job.volumes.is_empty()),
];

/// Why a job ends before its command starts: the first thing that the command needs and its agent
/// cannot do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the agent in the guest cannot {0}: it is older than this service")]
pub(crate) struct Unsupported(Need);

/// Compares what the job asks for with what its agent has announced; `None` is an agent of version
/// 1. Returns what the command goes without.
pub(crate) fn check(
    execute: &Execute,
    agent: Option<&AgentInfo>,
) -> Result<Vec<Need>, Unsupported> {
    let capabilities = agent.map(|agent| agent.capabilities).unwrap_or_default();
    let missing = |row: &&Row| (row.asked)(execute) && !capabilities.has(row.capability);
    let missing: Vec<&Row> = TABLE.iter().filter(missing).collect();
    match missing.iter().find(|row| row.otherwise == Otherwise::End) {
        Some(row) => Err(Unsupported(row.need)),
        None => Ok(missing.iter().map(|row| row.need).collect()),
    }
}

#[cfg(test)]
mod tests {
    use metaservice_protocol::{Capabilities, Volume, VolumeMode};

    use super::*;

    fn agent(capabilities: Capabilities) -> AgentInfo {
        AgentInfo { capabilities, ..AgentInfo::default() }
    }

    #[test]
    fn a_command_of_version_1_needs_nothing() {
        let execute = Execute { command: vec!["true".to_owned()], ..Execute::default() };
        assert_eq!(check(&execute, None), Ok(Vec::new()));
    }

    #[test]
    fn a_command_does_not_start_without_what_it_needs() {
        let asked = || Some("x".to_owned());
        let all = [
            (Need::Workdir, Execute { workdir: asked(), ..Execute::default() }),
            (Need::User, Execute { user: asked(), ..Execute::default() }),
            (Need::Hold, Execute { hold: true, ..Execute::default() }),
            (Need::Entrypoint, Execute { entrypoint: Some(vec![]), ..Execute::default() }),
            (Need::Stdin, Execute { stdin: true, ..Execute::default() }),
        ];
        let volume = Volume { tag: "t".into(), path: "/x".into(), mode: VolumeMode::ReadOnly };
        let volumes = Execute { volumes: vec![volume], ..Execute::default() };
        let all = all.into_iter().chain([(Need::Volumes, volumes)]);
        let able = [Capability::Launch, Capability::Attach, Capability::Volumes];
        let able = agent(able.into_iter().collect());
        let unable = agent([Capability::Exec, Capability::Terminal].into_iter().collect());
        for (need, execute) in all {
            assert_eq!(check(&execute, Some(&able)), Ok(Vec::new()));
            assert_eq!(check(&execute, Some(&unable)), Err(Unsupported(need)));
            assert_eq!(check(&execute, None), Err(Unsupported(need)));
            let hostname = Execute { hostname: asked(), ..execute };
            assert_eq!(check(&hostname, None), Err(Unsupported(need)));
        }
    }

    #[test]
    fn a_command_goes_without_what_it_can_do_without() {
        let execute = Execute { hostname: Some("x".to_owned()), ..Execute::default() };
        assert_eq!(check(&execute, None), Ok(vec![Need::Hostname]));
        let execute = Execute { separate: true, ..execute };
        assert_eq!(check(&execute, None), Ok(vec![Need::Hostname, Need::Streams]));
        assert_eq!(check(&execute, Some(&agent(Capabilities::all()))), Ok(Vec::new()));
    }
}
