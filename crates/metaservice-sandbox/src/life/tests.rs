//! Tests of the life of a job: its stories, one by one.

use std::time::Duration;

use super::*;

mod copies;
mod limits;
mod properties;

const SECOND: Duration = Duration::from_secs(1);
const GONE: Input = Input::MachineGone { reported: false };
const END_MACHINE: Effect = Effect::EndMachine { at_once: false };
const LOG_FAILED: Input = Input::LogFailed { unread: false };

fn rules() -> Rules {
    Rules {
        start: Start::Boot,
        restore_timeout: 60 * SECOND,
        boot_timeout: Some(60 * SECOND),
        copy_in_timeout: None,
        timeout: Some(100 * SECOND),
        timeout_order_timeout: 2 * SECOND,
        order_timeout: 10 * SECOND,
        kill_timeout: 15 * SECOND,
        artifact_timeout: Some(3600 * SECOND),
        close_timeout: 5 * SECOND,
        keep: None,
        persistent: false,
        disposable: true,
    }
}

/// A life whose clock is moved by hand.
struct Story {
    life: Life,
    now: Instant,
}

impl Story {
    fn of(rules: Rules) -> Self {
        let start = rules.start;
        let mut story = Self { life: Life::new(rules), now: Instant::now() };
        assert_eq!(story.effects(), [Effect::Start(start)]);
        assert_eq!(story.after(Input::MachineStarted), []);
        story
    }

    /// What is to be done after an input.
    fn after(&mut self, input: Input) -> Vec<Effect> {
        self.life.handle(input, self.now);
        self.effects()
    }

    /// What is to be done once the deadline has passed.
    fn after_deadline(&mut self) -> Vec<Effect> {
        self.now = self.life.deadline().expect("a deadline");
        self.life.handle_time(self.now);
        self.effects()
    }

    /// What is to be done after an input, or once the deadline has passed.
    fn after_either(&mut self, input: Option<Input>) -> Vec<Effect> {
        match input {
            Some(input) => self.after(input),
            None => self.after_deadline(),
        }
    }

    fn effects(&mut self) -> Vec<Effect> {
        std::iter::from_fn(|| self.life.effect()).collect()
    }
}

fn finish(end: End, collected: Collected) -> Vec<Effect> {
    vec![Effect::Finish(Outcome { end, collected })]
}

#[test]
fn the_machine_of_a_failed_command_is_kept_until_something_ends_this() {
    let keep = Rules { keep: Some(60 * SECOND), ..rules() };
    let kept = |rules: &Rules| {
        let mut story = Story::of(rules.clone());
        story.after(Input::Fetched(Duration::ZERO));
        story.after(Input::Failed);
        assert_eq!(story.after(Input::Result), [Effect::Collect]);
        let kept = story.after(Input::Collected(Collected::All));
        assert_eq!(kept, [Effect::Keep(60 * SECOND)]);
        assert_eq!(story.life.state(), State::Kept);
        assert_eq!(story.life.deadline(), Some(story.now + 60 * SECOND));
        story
    };
    for input in [None, Some(GONE), Some(Input::Signal(Signal(2))), Some(Input::AgentDead)] {
        let mut story = kept(&keep);
        assert_eq!(story.after_either(input), [Effect::Close], "{input:?}");
        assert_eq!(story.after(Input::Closed), [END_MACHINE]);
        assert_eq!(story.after(Input::MachineEnded), finish(End::Result, Collected::All));
    }
    let mut story = kept(&keep);
    let forced = story.after(Input::Forced(Force::Asked));
    assert_eq!(forced, [Effect::KillMachine, Effect::Close]);
    // A timeout is a failure too.
    let mut story = Story::of(Rules { artifact_timeout: None, ..keep.clone() });
    story.after(Input::Fetched(Duration::ZERO));
    story.after_deadline();
    assert_eq!(story.after(Input::Result), [Effect::Keep(60 * SECOND)]);
}

#[test]
fn the_machine_of_another_end_is_not_kept() {
    let keep = Rules { keep: Some(60 * SECOND), artifact_timeout: None, ..rules() };
    let mut success = Story::of(keep.clone());
    success.after(Input::Fetched(Duration::ZERO));
    assert_eq!(success.after(Input::Result), [Effect::Close]);
    let mut killed = Story::of(keep.clone());
    killed.after(Input::Fetched(Duration::ZERO));
    killed.after(Input::Signal(Signal(15)));
    killed.after(Input::Failed);
    assert_eq!(killed.after(Input::Result), [Effect::Close]);
    let mut gone = Story::of(keep);
    gone.after(Input::Fetched(Duration::ZERO));
    gone.after(Input::Failed);
    assert_eq!(gone.after(Input::MachineGone { reported: true }), [Effect::Close]);
}

#[test]
fn a_command_ends_and_its_artifacts_come_before_the_log_is_closed() {
    let mut story = Story::of(rules());
    assert_eq!(story.after(Input::Fetched(Duration::ZERO)), []);
    assert_eq!(story.life.state(), State::Running);
    assert_eq!(story.after(Input::Result), [Effect::Collect]);
    assert_eq!(story.after(Input::Collected(Collected::All)), [Effect::Close]);
    assert_eq!(story.after(Input::Closed), [END_MACHINE]);
    assert_eq!(story.after(Input::MachineEnded), finish(End::Result, Collected::All));
    assert_eq!(story.life.state(), State::Done);
}

#[test]
fn a_timeout_counts_from_when_the_command_was_fetched() {
    let mut story = Story::of(rules());
    story.after(Input::Fetched(30 * SECOND));
    assert_eq!(story.life.deadline(), Some(story.now + 70 * SECOND));
    let kill = KillReason::Timeout;
    assert_eq!(story.after_deadline(), [Effect::KillCommand(kill)]);
    assert_eq!(story.after(Input::Result), [Effect::Collect]);
    story.after(Input::Collected(Collected::All));
    story.after(Input::Closed);
    assert_eq!(story.after(Input::MachineEnded), finish(End::Killed(kill), Collected::All));
}

#[test]
fn a_killed_command_that_is_not_reported_is_not_waited_for() {
    for input in [None, Some(Input::KillFailed)] {
        let mut story = Story::of(rules());
        story.after(Input::Fetched(Duration::ZERO));
        let killed = story.after(LOG_FAILED);
        assert_eq!(killed, [Effect::KillCommand(KillReason::LogFailed { unread: false })]);
        let begun = story.now;
        story.now += SECOND;
        assert_eq!(story.after(Input::KillTaken), []);
        assert_eq!(story.life.deadline(), Some(begun + 15 * SECOND));
        let collect = story.after_either(input);
        assert_eq!(collect, [Effect::Collect]);
    }
}

#[test]
fn a_restored_machine_that_is_of_no_use_is_booted_once() {
    for input in [Some(Input::RestoreFailed), Some(GONE), None] {
        let mut story = Story::of(Rules { start: Start::Restore, ..rules() });
        let booted = story.after_either(input);
        assert_eq!(booted, [Effect::Start(Start::Boot)]);
        assert_eq!(story.life.deadline(), None, "its time begins when it runs");
        assert_eq!(story.after(Input::RestoreFailed), []);
        assert_eq!(story.after(Input::MachineStarted), []);
        assert_eq!(story.after_deadline(), [Effect::Close], "the guest never came");
        let lost = finish(End::NeverFetched, Collected::MachineGone);
        assert_eq!(story.after(Input::Closed), lost);
    }
}

#[test]
fn a_machine_that_is_gone_is_not_asked_for_anything() {
    let mut story = Story::of(rules());
    story.after(Input::Fetched(Duration::ZERO));
    assert_eq!(story.after(GONE), [Effect::Close]);
    assert_eq!(story.after(Input::Closed), finish(End::MachineGone, Collected::MachineGone));

    let mut story = Story::of(rules());
    story.after(Input::Result);
    let stopped = story.after(GONE);
    assert_eq!(stopped, [Effect::StopCollecting, Effect::Close]);
    assert_eq!(story.after(Input::Closed), [END_MACHINE], "clients get their answers");
    let ended = finish(End::Result, Collected::MachineGone);
    assert_eq!(story.after(Input::MachineEnded), ended);
}

#[test]
fn a_signal_kills_the_command_and_a_second_one_ends_all() {
    let mut story = Story::of(rules());
    let (first, second) = (Signal(15), Signal(2));
    story.after(Input::Fetched(Duration::ZERO));
    let killed = story.after(Input::Signal(first));
    assert_eq!(killed, [Effect::KillCommand(KillReason::Signal(first))]);
    let ended = story.after(Input::Signal(second));
    assert_eq!(ended, finish(End::Abandoned(second), Collected::All));
}

#[test]
fn a_signal_before_the_command_was_fetched_ends_all_at_once() {
    let mut story = Story::of(rules());
    let cancelled = finish(End::Cancelled(Signal(2)), Collected::All);
    assert_eq!(story.after(Input::Signal(Signal(2))), cancelled);
}

#[test]
fn a_signal_leaves_a_persistent_job_to_a_later_service() {
    let mut story = Story::of(Rules { persistent: true, artifact_timeout: None, ..rules() });
    story.after(Input::Fetched(Duration::ZERO));
    assert_eq!(story.after(Input::Signal(Signal(15))), [Effect::Close]);
    let left = finish(End::Left(Signal(15)), Collected::All);
    assert_eq!(story.after(Input::Closed), left);
}

#[test]
fn a_signal_ends_the_wait_for_the_machine_and_changes_no_outcome() {
    let mut story = Story::of(Rules { artifact_timeout: None, ..rules() });
    assert_eq!(story.after(Input::Result), [Effect::Close]);
    assert_eq!(story.after(Input::Closed), [END_MACHINE]);
    let ended = finish(End::Result, Collected::All);
    assert_eq!(story.after(Input::Signal(Signal(2))), ended);
}

#[test]
fn a_machine_that_ends_as_requested_does_not_cut_the_end_short() {
    let mut story = Story::of(Rules { artifact_timeout: None, ..rules() });
    story.after(Input::Result);
    assert_eq!(story.after(Input::Closed), [END_MACHINE]);
    assert_eq!(story.after(GONE), [], "clients still get their answers");
    assert_eq!(story.after(Input::MachineEnded), finish(End::Result, Collected::All));
}

#[test]
fn a_command_that_its_agent_cannot_run_leaves_nothing_to_collect() {
    let mut story = Story::of(rules());
    assert_eq!(story.after(Input::Unsupported), [Effect::Close]);
    assert_eq!(story.after(Input::Closed), [END_MACHINE]);
    assert_eq!(story.after(Input::MachineEnded), finish(End::Result, Collected::All));
}

#[test]
fn a_machine_that_does_not_start_ends_all_at_once() {
    for start in [Start::Boot, Start::Restore] {
        let mut story = Story::of(Rules { start, ..rules() });
        assert_eq!(story.after(Input::StartFailed), finish(End::NotStarted, Collected::All));
    }
}

#[test]
fn a_log_without_a_reader_ends_a_job_of_which_nothing_else_is_wanted() {
    let unread = Input::LogFailed { unread: true };
    let mut story = Story::of(Rules { artifact_timeout: None, ..rules() });
    story.after(Input::Fetched(Duration::ZERO));
    assert_eq!(story.after(unread), finish(End::Unread, Collected::All));

    let wanted = [rules(), Rules { artifact_timeout: None, disposable: false, ..rules() }];
    for rules in wanted {
        let mut story = Story::of(rules);
        story.after(Input::Fetched(Duration::ZERO));
        let kill = KillReason::LogFailed { unread: true };
        assert_eq!(story.after(unread), [Effect::KillCommand(kill)]);
    }
}

#[test]
fn a_result_that_came_before_the_machine_was_gone_counts() {
    let mut story = Story::of(rules());
    story.after(Input::Fetched(Duration::ZERO));
    let gone = Input::MachineGone { reported: true };
    assert_eq!(story.after(gone), [Effect::Close]);
    let outcome = Outcome { end: End::Result, collected: Collected::MachineGone };
    assert_eq!(story.life.outcome(), Some(outcome));
}

#[test]
fn the_log_of_a_lost_job_is_not_waited_for_long() {
    let mut story = Story::of(rules());
    story.after(Input::Fetched(Duration::ZERO));
    assert_eq!(story.after(GONE), [Effect::Close]);
    let lost = finish(End::MachineGone, Collected::MachineGone);
    assert_eq!(story.after_deadline(), lost);
}

#[test]
fn artifacts_have_their_time() {
    let mut story = Story::of(rules());
    story.after(Input::Result);
    assert_eq!(story.after_deadline(), [Effect::StopCollecting, Effect::Close]);
    assert_eq!(story.after(Input::Collected(Collected::All)), [], "it is too late");
    story.after(Input::Closed);
    assert_eq!(story.after(Input::MachineEnded), finish(End::Result, Collected::Late));
}

#[test]
fn a_guest_that_does_not_take_the_order_to_kill_is_not_waited_for() {
    let reasons = [
        (None, KillReason::Timeout, 2),
        (Some(Input::Signal(Signal(15))), KillReason::Signal(Signal(15)), 10),
        (Some(LOG_FAILED), KillReason::LogFailed { unread: false }, 10),
    ];
    for (input, reason, seconds) in reasons {
        let mut story = Story::of(rules());
        story.after(Input::Fetched(Duration::ZERO));
        assert_eq!(story.after_either(input), [Effect::KillCommand(reason)]);
        assert_eq!(story.life.deadline(), Some(story.now + seconds * SECOND), "{reason:?}");
        assert_eq!(story.after_deadline(), [Effect::KillMachine, Effect::Close]);
        assert_eq!(story.after(GONE), [], "as requested");
        assert_eq!(story.after(Input::Closed), [Effect::EndMachine { at_once: true }]);
        let ended = finish(End::Killed(reason), Collected::Unresponsive);
        assert_eq!(story.after(Input::MachineEnded), ended);
    }
}

#[test]
fn a_silent_agent_that_comes_back_changes_nothing_and_one_that_does_not_is_lost() {
    let mut story = Story::of(rules());
    story.after(Input::AgentSilent);
    assert_eq!(story.life.state(), State::Starting(Start::Boot), "it has a limit of its own");
    story.after(Input::Fetched(Duration::ZERO));
    let deadline = story.life.deadline();
    for (input, state) in
        [(Input::AgentSilent, State::Unresponsive), (Input::AgentBack, State::Running)]
    {
        assert_eq!(story.after(input), []);
        assert_eq!((story.life.state(), story.life.deadline()), (state, deadline));
    }
    story.after(Input::AgentSilent);
    assert_eq!(story.after(Input::AgentDead), [Effect::Close]);
    let lost = finish(End::AgentDead, Collected::MachineGone);
    assert_eq!(story.after(Input::Closed), lost);
}

#[test]
fn an_unresponsive_job_has_its_timeout_and_takes_results_and_signals() {
    let kill = |reason| vec![Effect::KillCommand(reason)];
    let cases = [
        (None, kill(KillReason::Timeout)),
        (Some(Input::Signal(Signal(2))), kill(KillReason::Signal(Signal(2)))),
        (Some(LOG_FAILED), kill(KillReason::LogFailed { unread: false })),
        (Some(Input::Result), vec![Effect::Collect]),
        (Some(GONE), vec![Effect::Close]),
    ];
    for (input, effects) in cases {
        let mut story = Story::of(rules());
        story.after(Input::Fetched(Duration::ZERO));
        story.after(Input::AgentSilent);
        assert_eq!(story.after_either(input), effects);
    }
}

#[test]
fn an_agent_that_dies_while_artifacts_are_fetched_is_not_asked_for_more() {
    let mut story = Story::of(rules());
    story.after(Input::Result);
    assert_eq!(story.after(Input::AgentDead), [Effect::StopCollecting, Effect::Close]);
    assert_eq!(story.after(Input::Closed), [END_MACHINE]);
    assert_eq!(story.after(Input::MachineEnded), finish(End::Result, Collected::Unresponsive));
}

#[test]
fn a_service_without_a_guest_is_lost_before_and_after_its_command_was_fetched() {
    for fetched in [None, Some(Input::Fetched(Duration::ZERO))] {
        let mut story = Story::of(rules());
        fetched.into_iter().for_each(|input| drop(story.after(input)));
        assert_eq!(story.after(Input::NoGuest), [Effect::Close]);
        let lost = finish(End::NoGuest, Collected::MachineGone);
        assert_eq!(story.after(Input::Closed), lost);
    }
}

#[test]
fn force_kills_the_machine_first_and_then_closes_the_log() {
    let force = Input::Forced(Force::Asked);
    let fetched = Input::Fetched(Duration::ZERO);
    let cases = [
        (vec![], End::Forced(Force::Asked)),
        (vec![fetched], End::Forced(Force::Asked)),
        (vec![fetched, Input::AgentSilent], End::Forced(Force::Asked)),
        (vec![fetched, Input::Signal(Signal(2))], End::Killed(KillReason::Signal(Signal(2)))),
    ];
    for (before, end) in cases {
        let mut story = Story::of(rules());
        before.into_iter().for_each(|input| drop(story.after(input)));
        assert_eq!(story.after(force), [Effect::KillMachine, Effect::Close]);
        assert_eq!(story.life.deadline(), Some(story.now + 5 * SECOND), "of the log");
        assert_eq!(story.after(force), [], "once");
        assert_eq!(story.after(Input::Closed), [Effect::EndMachine { at_once: true }]);
        assert_eq!(story.after(Input::MachineEnded), finish(end, Collected::Unresponsive));
    }
}

#[test]
fn force_after_the_command_has_ended_keeps_its_result() {
    let force = Input::Forced(Force::KillNotTaken);
    let mut story = Story::of(rules());
    story.after(Input::Result);
    let killed = [Effect::StopCollecting, Effect::KillMachine, Effect::Close];
    assert_eq!(story.after(force), killed);
    story.after(Input::Closed);
    assert_eq!(story.after(Input::MachineEnded), finish(End::Result, Collected::Unresponsive));

    let mut story = Story::of(Rules { artifact_timeout: None, ..rules() });
    story.after(Input::Result);
    assert_eq!(story.after(force), [Effect::KillMachine], "the log is being closed");
    assert_eq!(story.after(Input::Closed), [Effect::EndMachine { at_once: true }]);
    assert_eq!(story.after(Input::MachineEnded), finish(End::Result, Collected::All));
}
