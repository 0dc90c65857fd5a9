//! exec: a command that runs in the guest in addition to the job.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::limits::{MAX_ACTION, MAX_ACTION_ID, MAX_SMALL_ACTION};

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TerminalSize {
    /// Characters in a row.
    pub columns: u16,
    /// Rows of characters.
    pub rows: u16,
}

/// exec: a command that runs in addition to the job.
///
/// ```
/// use metaservice_protocol::{Exec, ExecOptions};
///
/// let options = ExecOptions { user: Some("daemon".into()), ..ExecOptions::default() };
/// let exec = Exec { command: vec!["id".into()], tty: false, options };
/// assert!(!exec.is_large());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exec {
    /// The command and its arguments. Empty: the guest's default shell.
    pub command: Vec<String>,
    /// Whether the command gets a terminal.
    pub tty: bool,
    /// Environment, directory, user and the like.
    pub options: ExecOptions,
}

impl Exec {
    /// The maximum size of the JSON without command, environment, directory and user, in bytes.
    const REST: usize = MAX_ACTION_ID + 512;

    /// The maximum size of one byte of text as JSON, in bytes.
    const ESCAPED: usize = 6;

    /// Whether the action can be larger than [`MAX_SMALL_ACTION`]: then the agent must have
    /// [`Capability::LargeExec`](crate::Capability::LargeExec).
    #[must_use]
    pub fn is_large(&self) -> bool {
        self.exceeds(MAX_SMALL_ACTION)
    }

    /// Whether the action can be larger than [`MAX_ACTION`]: no agent reads it then.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        self.exceeds(MAX_ACTION)
    }

    fn exceeds(&self, limit: usize) -> bool {
        let Self { command, tty: _, options } = self;
        let words =
            command.iter().chain(options.env.iter().flat_map(|(name, value)| [name, value]));
        let words = words.chain(&options.workdir).chain(&options.user);
        let (count, length) =
            words.fold((0, 0), |(count, length), word| (count + 1, length + word.len()));
        // Two quotes, and a comma or a colon, for each word.
        let around = Self::REST + 3 * count;
        if around + Self::ESCAPED * length <= limit {
            return false;
        }
        let json = serde_json::to_vec(&(command, options));
        json.is_ok_and(|json| json.len() + Self::REST > limit)
    }
}

/// The options of an [`Exec`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExecOptions {
    /// Variables that are added to the job's environment; they win.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The working directory, relative to the job's. The default is the job's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// The user: `NAME`, `UID`, `NAME:GROUP` or `UID:GID`. The default is the job's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The initial size of the terminal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<TerminalSize>,
    /// Start the command without streams (`/dev/null`), and reply with its process id, as
    /// [`Detached`]. The command ends with the job at the latest.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub detach: bool,
}

/// The reply to an [`Exec`] with [`detach`](ExecOptions::detach).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detached {
    /// The command's process id in the guest.
    pub pid: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::{Action, ActionId, ActionRequest, PollAnswer};
    use crate::announcement::Capability;

    fn with_argument(argument: String) -> ActionRequest {
        ActionRequest::Exec(Exec { command: vec![argument], ..Exec::default() })
    }

    fn size(request: ActionRequest) -> usize {
        let id = ActionId::parse(&"x".repeat(MAX_ACTION_ID)).unwrap();
        serde_json::to_vec(&PollAnswer::Action(Action { id, request })).unwrap().len()
    }

    #[test]
    fn a_large_exec_needs_an_agent_that_reads_it() {
        for (character, length) in [("x", 1 << 20), ("\u{1}", 200_000), ("x", 2 << 20)] {
            let request = with_argument(character.repeat(length));
            assert_eq!(request.capability(), Some(Capability::LargeExec));
        }
    }

    #[test]
    fn each_agent_can_read_an_exec_that_is_not_large() {
        for (character, length) in
            [("x", 1), ("x", 1_040_000), ("\u{1}", 173_000), ("\u{1}", 131_072)]
        {
            let request = with_argument(character.repeat(length));
            assert_eq!(request.capability(), Some(Capability::Exec));
            assert!(size(request) <= MAX_SMALL_ACTION);
        }
    }

    #[test]
    fn the_largest_command_that_linux_takes_is_not_too_large() {
        let request = with_argument("\u{1}".repeat(2 << 20));
        assert!(matches!(&request, ActionRequest::Exec(exec) if !exec.is_too_large()));
        assert!(size(request) <= MAX_ACTION);
    }
}
