//! Times that no clock can count.

use super::*;

#[test]
fn a_time_that_no_clock_can_count_is_never_reached() {
    let long = Duration::MAX;
    let rules = Rules {
        boot_timeout: Some(long),
        copy_in_timeout: Some(long),
        timeout: Some(long),
        timeout_order_timeout: long,
        order_timeout: long,
        kill_timeout: long,
        artifact_timeout: Some(long),
        close_timeout: long,
        keep: Some(long),
        ..rules()
    };
    let mut story = Story::of(rules);
    let day = 24 * 3600 * SECOND;
    let never = |story: &mut Story| {
        assert!(story.life.deadline().unwrap() > story.now + 30 * 365 * day);
    };
    never(&mut story);
    for input in [
        Input::Fetched(Duration::ZERO),
        Input::CopiedIn,
        LOG_FAILED,
        Input::KillTaken,
        Input::Result,
        Input::Forced(Force::KillNotTaken),
    ] {
        story.after(input);
        never(&mut story);
    }
}
