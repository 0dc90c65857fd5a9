//! What holds for any inputs in any order.

use proptest::prelude::*;

use super::*;

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        Just(Input::MachineStarted),
        Just(Input::RestoreFailed),
        Just(Input::StartFailed),
        (0..200u64).prop_map(|ago| Input::Fetched(Duration::from_secs(ago))),
        Just(Input::Result),
        Just(Input::Failed),
        Just(Input::Unsupported),
        Just(Input::CopiedIn),
        Just(Input::CopyInFailed),
        any::<bool>().prop_map(|unread| Input::LogFailed { unread }),
        (1..16u8).prop_map(|number| Input::Signal(Signal(number))),
        any::<bool>().prop_map(|reported| Input::MachineGone { reported }),
        Just(Input::AgentSilent),
        Just(Input::AgentBack),
        Just(Input::AgentDead),
        Just(Input::NoGuest),
        Just(Input::Forced(Force::Asked)),
        Just(Input::KillTaken),
        Just(Input::KillFailed),
        Just(Input::Collected(Collected::All)),
        Just(Input::Collected(Collected::Failed)),
        Just(Input::Closed),
        Just(Input::MachineEnded),
    ]
}

prop_compose! {
    fn any_rules()(
        restore: bool,
        boot in proptest::option::of(1..100u64),
        timeout in proptest::option::of(1..100u64),
        copy_in in proptest::option::of(1..100u64),
        artifacts in proptest::option::of(1..100u64),
        keep in proptest::option::of(1..100u64),
        persistent: bool,
        disposable: bool,
    ) -> Rules {
        Rules {
            start: if restore { Start::Restore } else { Start::Boot },
            boot_timeout: boot.map(Duration::from_secs),
            timeout: timeout.map(Duration::from_secs),
            copy_in_timeout: copy_in.map(Duration::from_secs),
            artifact_timeout: artifacts.map(Duration::from_secs),
            keep: keep.map(Duration::from_secs),
            persistent,
            disposable,
            ..rules()
        }
    }
}

/// An input, or the deadline.
fn steps() -> impl Strategy<Value = Vec<Option<Input>>> {
    proptest::collection::vec(proptest::option::weighted(0.8, input()), 0..40)
}

proptest! {
    /// For any inputs in any order: each effect is performed at most once and in the order of the
    /// diagram, and none after the end.
    #[test]
    fn each_thing_is_done_once_and_in_order(rules in any_rules(), steps in steps()) {
        let mut story = Story::of(rules);
        let mut done = Vec::new();
        for step in steps {
            match step {
                None if story.life.deadline().is_none() => {}
                step => done.extend(story.after_either(step)),
            }
        }
        // A machine may be killed at any time, once.
        let kills = done.iter().filter(|effect| **effect == Effect::KillMachine).count();
        prop_assert!(kills <= 1, "{done:?}");
        let at_once = done.contains(&Effect::EndMachine { at_once: true });
        prop_assert!(!at_once || kills == 1, "{done:?}");
        done.retain(|effect| *effect != Effect::KillMachine);
        let rank = |effect: &Effect| match effect {
            Effect::Start(_) => 0,
            Effect::CopyIn => 1,
            Effect::StopCopyingIn => 2,
            Effect::KillCommand(_) => 3,
            Effect::Collect => 4,
            Effect::StopCollecting => 5,
            Effect::Keep(_) => 6,
            Effect::KillMachine | Effect::Close => 7,
            Effect::EndMachine { .. } => 8,
            Effect::Finish(_) => 9,
        };
        let ranks: Vec<_> = done.iter().map(rank).collect();
        prop_assert!(ranks.is_sorted_by(|one, next| one < next), "{done:?}");
        let finished = matches!(done.last(), Some(Effect::Finish(_)));
        prop_assert_eq!(finished, story.life.state() == State::Done);
    }

    /// After a kill of the machine, or the order to kill the command for a timeout, a guest that
    /// says nothing more holds the job for no longer than the timeout of the order and of the log.
    #[test]
    fn a_silent_guest_holds_a_job_no_longer_than_the_order(rules in any_rules(), steps in steps()) {
        let rules = Rules { timeout: Some(50 * SECOND), copy_in_timeout: None, ..rules };
        let mut story = Story::of(rules);
        story.after(Input::Fetched(Duration::ZERO));
        for input in steps.into_iter().flatten() {
            story.after(input);
            if !matches!(story.life.state(), State::Running | State::Unresponsive) {
                return Ok(());
            }
        }
        let killed = vec![Effect::KillCommand(KillReason::Timeout)];
        prop_assert_eq!(story.after_deadline(), killed);
        let begun = story.now;
        prop_assert_eq!(story.after_deadline(), vec![Effect::KillMachine, Effect::Close]);
        prop_assert_eq!(story.now, begun + 2 * SECOND);
        prop_assert_eq!(story.life.deadline(), Some(begun + 7 * SECOND));
    }

    /// If the caller performs all effects, the job always ends, whatever the guest does: by
    /// deadlines alone if the rules have one for each state, or else by two signals.
    #[test]
    fn every_life_ends(rules in any_rules(), steps in steps()) {
        let mut story = Story::of(rules);
        for input in steps.into_iter().flatten() {
            story.after(input);
        }
        for _ in 0..20 {
            match story.life.state() {
                State::Closing => drop(story.after(Input::Closed)),
                State::Ending => drop(story.after(Input::MachineEnded)),
                State::Done => break,
                _ if story.life.deadline().is_some() => drop(story.after_deadline()),
                _ => drop(story.after(Input::Signal(Signal(2)))),
            }
        }
        prop_assert_eq!(story.life.state(), State::Done);
    }
}
