//! The files that the guest gets before the command starts.

use super::*;

#[test]
fn a_command_waits_for_its_files_and_its_time_begins_then() {
    let mut story = Story::of(Rules { copy_in_timeout: Some(50 * SECOND), ..rules() });
    assert_eq!(story.after(Input::Fetched(30 * SECOND)), [Effect::CopyIn]);
    assert_eq!(story.life.deadline(), Some(story.now + 50 * SECOND));
    story.now += 40 * SECOND;
    assert_eq!(story.after(Input::CopiedIn), []);
    assert_eq!(story.life.state(), State::Running);
    assert_eq!(story.life.deadline(), Some(story.now + 100 * SECOND));
    assert_eq!(story.after(Input::Result), [Effect::Collect]);
}

#[test]
fn a_command_without_its_files_does_not_start_and_has_no_artifacts() {
    for (input, late) in [(Some(Input::CopyInFailed), false), (None, true)] {
        let mut story = Story::of(Rules { copy_in_timeout: Some(50 * SECOND), ..rules() });
        story.after(Input::Fetched(Duration::ZERO));
        let reason = KillReason::CopyIn { late };
        let killed = story.after_either(input);
        assert_eq!(killed, [Effect::StopCopyingIn, Effect::KillCommand(reason)]);
        assert_eq!(story.after(Input::CopiedIn), [], "it is too late");
        assert_eq!(story.after(Input::Result), [Effect::Close]);
        assert_eq!(story.after(Input::Closed), [Effect::EndMachine { at_once: false }]);
        let ended = finish(End::Killed(reason), Collected::All);
        assert_eq!(story.after(Input::MachineEnded), ended);
    }
}

#[test]
fn a_signal_ends_a_copy() {
    let copies = Rules { copy_in_timeout: Some(50 * SECOND), ..rules() };
    let mut story = Story::of(copies.clone());
    story.after(Input::Fetched(Duration::ZERO));
    let signal = Signal(2);
    let kill = Effect::KillCommand(KillReason::Signal(signal));
    assert_eq!(story.after(Input::Signal(signal)), [Effect::StopCopyingIn, kill]);

    let mut story = Story::of(Rules { persistent: true, ..copies.clone() });
    story.after(Input::Fetched(Duration::ZERO));
    let left = story.after(Input::Signal(signal));
    assert_eq!(left, [Effect::StopCopyingIn, Effect::Close]);

    let mut story = Story::of(copies);
    story.after(Input::Fetched(Duration::ZERO));
    assert_eq!(story.after(GONE), [Effect::StopCopyingIn, Effect::Close]);
    assert_eq!(story.after(Input::Closed), finish(End::MachineGone, Collected::All));
}
