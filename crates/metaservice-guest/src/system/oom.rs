//! Out of memory: which process the kernel may kill, and how many it has killed.
//!
//! Owns `oom_score_adj` and the counters. The kernel must not kill the agent and its supervisors,
//! because they report what happened to the command. Commands get the score that the agent was
//! started with. An unprivileged agent cannot lower its score, and works without.

use std::sync::OnceLock;
use std::{fs, io};

/// The score of a process that the kernel never kills for lack of memory.
const NEVER: i32 = -1000;

const SCORE: &str = "/proc/self/oom_score_adj";

/// The score that this process was started with, if `protect` has changed it.
static BEFORE: OnceLock<i32> = OnceLock::new();

/// Protects this process, and the processes that it starts later.
pub(crate) fn protect() {
    let before = fs::read_to_string(SCORE).ok().and_then(|score| score.trim().parse().ok());
    if let Some(before) = before
        && before != NEVER
        && set_score(NEVER).is_ok()
    {
        let _ = BEFORE.set(before);
    }
}

/// The score for commands; `None` if it is the score of this process.
pub(crate) fn score_of_commands() -> Option<i32> {
    BEFORE.get().copied()
}

/// Sets the score of this process.
pub(crate) fn set_score(score: i32) -> io::Result<()> {
    fs::write(SCORE, score.to_string())
}

/// How many processes the kernel has killed for lack of memory since the boot.
pub(crate) fn kills() -> Option<u64> {
    counter(&fs::read_to_string("/proc/vmstat").ok()?, "oom_kill")
}

/// The value of a counter in lines of the form `NAME VALUE`.
pub(crate) fn counter(text: &str, name: &str) -> Option<u64> {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_its_whole_name() {
        let events = "low 0\noom 4\noom_kill 3\noom_group_kill 1\n";
        assert_eq!(counter(events, "oom_kill"), Some(3));
        assert_eq!(counter("oom_kill_x 1\noom_kill many\n", "oom_kill"), None);
        assert!(kills().is_some(), "each kernel since 4.13 counts them");
    }
}
