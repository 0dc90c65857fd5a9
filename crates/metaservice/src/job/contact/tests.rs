//! Tests of the watch over the guest's agent: single cases, and properties of random events.

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const LOST: Duration = Duration::from_secs(60);
const DEAD: Duration = Duration::from_secs(300);
const SILENCES: Silences = Silences { lost: LOST, dead: DEAD, no_guest: None };

fn watch() -> (Watch, Instant) {
    let start = Instant::now();
    (Watch::new(SILENCES, start), start)
}

#[test]
fn a_guest_that_has_polled_is_silent_after_a_minute_dead_after_five_and_comes_back() {
    let (mut watch, start) = watch();
    assert_eq!((watch.advance(start), watch.deadline(start)), (Contact::Awaited, None));
    watch.poll_begins(start);
    assert_eq!(watch.deadline(start), None, "it waits for the host");
    assert_eq!(watch.advance(start + 100 * DEAD), Contact::Present);
    watch.poll_ends(start + SECOND);
    assert_eq!(watch.deadline(start + SECOND), Some(start + SECOND + LOST));
    watch.heard(start + 2 * SECOND);
    let heard = start + 2 * SECOND;
    assert_eq!(watch.advance(heard + LOST - SECOND), Contact::Present);
    assert_eq!(watch.advance(heard + LOST), Contact::Silent);
    assert_eq!(watch.deadline(heard + LOST), Some(heard + DEAD));
    assert_eq!(watch.advance(heard + DEAD), Contact::Dead);
    assert_eq!(watch.deadline(heard + DEAD), None);
    watch.heard(start + 3 * DEAD);
    assert_eq!(watch.advance(start + 3 * DEAD), Contact::Present);
}

#[test]
fn a_guest_that_never_polls_is_never_silent() {
    let (mut watch, start) = watch();
    watch.heard(start);
    let late = start + 100 * DEAD;
    assert_eq!((watch.deadline(start), watch.advance(late)), (None, Contact::Present));
}

#[test]
fn a_paused_machine_is_not_silent_and_its_pause_does_not_count() {
    let (mut watch, start) = watch();
    watch.poll_begins(start);
    watch.poll_ends(start);
    watch.pause(start + 20 * SECOND, true);
    watch.pause(start + 30 * SECOND, true);
    assert_eq!(watch.deadline(start + 30 * SECOND), None);
    assert_eq!(watch.advance(start + 10 * DEAD), Contact::Present);
    let resumed = start + 10 * DEAD;
    watch.pause(resumed, false);
    watch.pause(resumed + SECOND, false);
    assert_eq!(watch.deadline(resumed), Some(resumed + LOST - 20 * SECOND));
    // One that became silent before the pause.
    let silent = resumed + LOST - 20 * SECOND;
    assert_eq!(watch.advance(silent), Contact::Silent);
    watch.pause(silent, true);
    assert_eq!(watch.advance(silent + 10 * DEAD), Contact::Silent);
    watch.pause(silent + 10 * DEAD, false);
    assert_eq!(watch.deadline(silent + 10 * DEAD), Some(silent + 10 * DEAD + (DEAD - LOST)));
}

#[test]
fn what_arrives_in_a_pause_counts_from_its_end_on() {
    let (mut watch, start) = watch();
    watch.poll_begins(start);
    watch.pause(start, true);
    watch.poll_ends(start + 20 * SECOND);
    watch.pause(start + 30 * SECOND, false);
    assert_eq!(watch.deadline(start + 30 * SECOND), Some(start + 30 * SECOND + LOST));
}

#[test]
fn no_guest_counts_from_the_beginning_and_from_any_request() {
    let start = Instant::now();
    let no_guest = Some(10 * SECOND);
    let mut watch = Watch::new(Silences { no_guest, ..SILENCES }, start);
    assert_eq!(watch.deadline(start), Some(start + 10 * SECOND));
    watch.unauthorized(start + 5 * SECOND, Contact::NoSession);
    assert_eq!(watch.advance(start + 14 * SECOND), Contact::NoSession);
    assert_eq!(watch.advance(start + 15 * SECOND), Contact::NoGuest);
    watch.unauthorized(start + 20 * SECOND, Contact::NoSession);
    assert_eq!(watch.advance(start + 20 * SECOND), Contact::NoSession);
    watch.poll_begins(start + 20 * SECOND);
    assert_eq!(watch.deadline(start + 20 * SECOND), None, "a poll waits");
    watch.poll_ends(start + 50 * SECOND);
    assert_eq!(watch.advance(start + 59 * SECOND), Contact::Present);
    assert_eq!(watch.advance(start + 60 * SECOND), Contact::NoGuest);
    // A guest without polls can be gone too.
    let mut watch = Watch::new(Silences { no_guest, ..SILENCES }, start);
    watch.heard(start + SECOND);
    assert_eq!(watch.advance(start + 11 * SECOND), Contact::NoGuest);
}

#[test]
fn a_refused_request_counts_if_no_agent_is_present() {
    for why in [Contact::NoSession, Contact::Claimed] {
        let (mut watch, start) = watch();
        watch.unauthorized(start, why);
        assert_eq!(watch.advance(start), why);
        watch.poll_begins(start);
        assert_eq!(watch.advance(start), Contact::Present);
        watch.unauthorized(start, why);
        assert_eq!(watch.advance(start), Contact::Present, "another process beside the agent");
        watch.poll_ends(start);
        assert_eq!(watch.advance(start + LOST), why, "no agent is present");
        watch.unauthorized(start + DEAD, why);
        assert_eq!(watch.advance(start + DEAD), Contact::Dead, "that is not the agent");
    }
}

proptest! {
    /// For each sequence of events, looking at the deadlines shows the same as looking often.
    #[test]
    fn a_deadline_is_when_it_changes(
        steps in proptest::collection::vec((0u8..7, 0u64..90), 0..60),
        no_guest in proptest::option::of(1u64..400),
    ) {
        let mut now = Instant::now();
        let no_guest = no_guest.map(Duration::from_secs);
        let mut watch = Watch::new(Silences { no_guest, ..SILENCES }, now);
        for (step, seconds) in steps {
            for _ in 0..seconds {
                let deadline = watch.deadline(now);
                now += SECOND;
                let before = watch.contact;
                let after = watch.advance(now);
                let due = deadline.is_some_and(|deadline| deadline <= now);
                prop_assert!(before == after || due, "{before:?} {after:?}");
            }
            match step {
                0 => watch.heard(now),
                1 => watch.poll_begins(now),
                2 if watch.polls > 0 => watch.poll_ends(now),
                3 => watch.unauthorized(now, Contact::NoSession),
                4 => watch.pause(now, true),
                5 => watch.pause(now, false),
                _ => {}
            }
            let present = watch.advance(now) == Contact::Present;
            prop_assert!(watch.polls == 0 || present);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiter_sees_each_change_once() {
    let contacts = Contacts::new(&Limits::default());
    let start = tokio::time::Instant::now();
    let seen = async {
        let mut seen = Vec::new();
        for _ in 0..5 {
            let before = seen.last().map_or(Contact::Awaited, |(contact, _)| *contact);
            let contact = contacts.changed(before).await;
            seen.push((contact, start.elapsed().as_secs()));
        }
        seen
    };
    let guest = async {
        tokio::time::sleep(SECOND).await;
        contacts.unauthorized(Contact::NoSession);
        contacts.unauthorized(Contact::NoSession);
        tokio::time::sleep(SECOND).await;
        let poll = contacts.poll();
        tokio::time::sleep(600 * SECOND).await;
        drop(poll);
        tokio::time::sleep(30 * SECOND).await;
        contacts.pause(true);
        tokio::time::sleep(1000 * SECOND).await;
        contacts.pause(false);
        tokio::time::sleep(500 * SECOND).await;
        contacts.heard();
    };
    let (seen, ()) = tokio::join!(seen, guest);
    let expected = [
        (Contact::NoSession, 1),
        (Contact::Present, 2),
        (Contact::Silent, 1602 + 60),
        (Contact::Dead, 1602 + 300),
        (Contact::Present, 2 + 600 + 30 + 1000 + 500),
    ];
    assert_eq!(seen, expected);
}
