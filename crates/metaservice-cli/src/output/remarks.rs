//! Remarks on the end of a command, which its exit status does not show.

use metaservice::{Ending, Reason};

/// Returns the remarks on an ending.
pub(crate) fn on(ending: &Ending) -> Vec<String> {
    let mut remarks = Vec::new();
    if ending.reason == Reason::Lost {
        remarks.push("it is not known how the command ended: its supervisor was killed".to_owned());
    }
    match ending.oom_kills {
        None | Some(0) => {}
        Some(1) => remarks.push(format!("the guest's kernel killed a process {LACK}")),
        Some(kills) => remarks.push(format!("the guest's kernel killed {kills} processes {LACK}")),
    }
    remarks
}

const LACK: &str = "for lack of memory: more by --memory";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_something_to_say_of_a_lack_of_memory_and_of_an_end_that_is_not_known() {
        let with = |reason, oom_kills| on(&Ending { oom_kills, ..Ending::new(reason) });
        assert_eq!(with(Reason::Exited, None), Vec::<String>::new());
        assert_eq!(with(Reason::Exited, Some(0)), Vec::<String>::new());
        assert!(with(Reason::Signaled, Some(1))[0].contains("killed a process for lack"));
        assert!(with(Reason::Signaled, Some(7))[0].contains("killed 7 processes for lack"));
        assert_eq!(with(Reason::Lost, Some(2)).len(), 2);
    }
}
