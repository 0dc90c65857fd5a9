//! The queue by value, and against a model of what must never happen.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn action(name: &str) -> Action {
    let id = ActionId::parse(name).unwrap();
    Action { id, request: ActionRequest::GetArtifact { path: "/f".into() } }
}

fn list() -> ActionRequest {
    let options = metaservice_protocol::ListOptions::default();
    ActionRequest::List(metaservice_protocol::List { path: "/".into(), options })
}

fn decisions(queue: &mut Queue) -> Vec<Decision> {
    std::iter::from_fn(|| queue.next_decision()).collect()
}

#[test]
fn a_waiting_poll_takes_the_action_at_once() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    let poll = queue.poll(now, Capabilities::default());
    assert_eq!(decisions(&mut queue), []);
    queue.submit(now, action("a"));
    assert_eq!(decisions(&mut queue), [Decision::Answer(poll, Some(action("a")))]);
    queue.poll_answered(now, poll);
    assert_eq!(queue.reply(&action("a").id, "POST"), Ok(action("a").request.description()));
    queue.withdraw(&action("a").id);
    assert_eq!(queue.reply(&action("a").id, "POST"), Err(ReplyError::Unknown));
}

#[test]
fn a_lost_poll_gives_its_action_to_the_next_ahead_of_later_ones() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    let first = queue.poll(now, Capabilities::default());
    queue.submit(now, action("a"));
    queue.submit(now, action("b"));
    queue.poll_lost(first);
    let second = queue.poll(now, Capabilities::default());
    assert_eq!(
        decisions(&mut queue),
        [Decision::Answer(first, Some(action("a"))), Decision::Answer(second, Some(action("a"))),]
    );
}

#[test]
fn a_poll_lost_after_its_answer_was_written_gives_nothing_back() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    let first = queue.poll(now, Capabilities::default());
    queue.submit(now, action("a"));
    queue.poll_answered(now, first);
    queue.poll_lost(first);
    queue.poll(now, Capabilities::default());
    assert_eq!(decisions(&mut queue), [Decision::Answer(first, Some(action("a")))]);
}

#[test]
fn each_stage_has_its_time() {
    let (mut queue, start) = (Queue::default(), Instant::now());
    let millisecond = Duration::from_millis(1);
    queue.submit(start, action("a"));
    queue.advance(start + PICKUP_TIMEOUT - millisecond);
    assert_eq!(decisions(&mut queue), []);
    queue.advance(start + PICKUP_TIMEOUT);
    assert_eq!(decisions(&mut queue), [Decision::Expire(action("a").id, Stage::Pickup)]);

    let poll = queue.poll(start, Capabilities::default());
    queue.submit(start, action("b"));
    decisions(&mut queue);
    let delivered = start + Duration::from_secs(7);
    queue.poll_answered(delivered, poll);
    assert_eq!(queue.deadline(&action("b").id), Some(delivered + REPLY_TIMEOUT));
    queue.advance(delivered + REPLY_TIMEOUT);
    assert_eq!(decisions(&mut queue), [Decision::Expire(action("b").id, Stage::Reply)]);
    assert_eq!(queue.reply(&action("b").id, "POST"), Err(ReplyError::Unknown));
}

#[test]
fn a_poll_without_an_action_is_answered_with_none() {
    let (mut queue, start) = (Queue::default(), Instant::now());
    let poll = queue.poll(start, Capabilities::default());
    queue.advance(start + POLL_TIMEOUT);
    assert_eq!(decisions(&mut queue), [Decision::Answer(poll, None)]);
    let (a, b) =
        (queue.poll(start, Capabilities::default()), queue.poll(start, Capabilities::default()));
    queue.stop_pollers();
    assert_eq!(decisions(&mut queue), [Decision::Answer(a, None), Decision::Answer(b, None)]);
}

#[test]
fn a_refused_reply_does_not_use_the_action_up() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    let poll = queue.poll(now, Capabilities::default());
    queue.submit(now, action("a"));
    queue.poll_answered(now, poll);
    let id = action("a").id;
    assert_eq!(queue.reply(&id, "GET"), Err(ReplyError::WrongMethod));
    assert!(queue.reply(&id, "POST").is_ok());
    assert_eq!(queue.reply(&id, "POST"), Err(ReplyError::Unknown), "one reply at a time");
    queue.reply_refused(&id);
    assert!(queue.reply(&id, "POST").is_ok());
    assert_eq!(queue.deadline(&id), None);
}

#[test]
fn an_extended_action_goes_to_a_poll_that_has_announced_it() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    let extended = Action { request: list(), ..action("x") };
    queue.submit(now, extended.clone());
    queue.submit(now, action("a"));
    let old = queue.poll(now, Capabilities::default());
    assert_eq!(
        decisions(&mut queue),
        [
            Decision::Unsupported(extended.id.clone(), Capability::List),
            Decision::Answer(old, Some(action("a"))),
        ]
    );
    let [_, new] = [Capabilities::default(), Capabilities::all()].map(|c| queue.poll(now, c));
    queue.submit(now, extended.clone());
    assert_eq!(decisions(&mut queue), [Decision::Answer(new, Some(extended))]);
}

#[derive(Debug, Clone)]
enum Step {
    /// Whether it needs what version 1 has not.
    Submit(bool),
    /// Whether it can.
    Poll(bool),
    Lose(usize),
    Answer(usize),
    Reply(usize),
    Refuse(usize),
    Withdraw(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        any::<bool>().prop_map(Step::Submit),
        any::<bool>().prop_map(Step::Poll),
        (0usize..9).prop_map(Step::Lose),
        (0usize..9).prop_map(Step::Answer),
        (0usize..9).prop_map(Step::Reply),
        (0usize..9).prop_map(Step::Refuse),
        (0usize..9).prop_map(Step::Withdraw),
        (0u64..20).prop_map(Step::Pass),
    ]
}

proptest! {
    /// Whatever happens: a poll is answered once, an action is in one hand at a time, and
    /// every action ends by a reply, by withdrawal, or by an expiry.
    #[test]
    fn no_action_is_lost_or_in_two_hands(steps in proptest::collection::vec(step(), 0..120)) {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        let mut open: Vec<PollId> = Vec::new();
        let mut answered = HashSet::new();
        let mut hands: HashMap<ActionId, PollId> = HashMap::new();
        let mut alive: Vec<ActionId> = Vec::new();
        let (mut demanding, mut able) = (HashSet::new(), HashSet::new());
        let (mut replying, mut proven) = (HashSet::new(), HashSet::new());
        let pick = |list: &[ActionId], n: usize| list.get(n % list.len().max(1)).cloned();
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Submit(extended) => {
                    let mut action = action(&format!("a{n}"));
                    if extended {
                        action.request = list();
                        demanding.insert(action.id.clone());
                    }
                    alive.push(action.id.clone());
                    queue.submit(now, action);
                }
                Step::Poll(capable) => {
                    let capabilities = if capable { Capabilities::all() } else { Capabilities::default() };
                    let poll = queue.poll(now, capabilities);
                    open.push(poll);
                    if capable { able.insert(poll); }
                }
                Step::Lose(n) | Step::Answer(n) if open.is_empty() => { let _ = n; }
                Step::Lose(n) => {
                    let poll = open.remove(n % open.len());
                    queue.poll_lost(poll);
                    // A reply proves that the answer had arrived.
                    hands.retain(|id, hand| *hand != poll || proven.contains(id));
                }
                Step::Answer(n) => {
                    let poll = open[n % open.len()];
                    if answered.contains(&poll) {
                        open.retain(|other| *other != poll);
                        queue.poll_answered(now, poll);
                    }
                }
                Step::Reply(n) => if let Some(id) = pick(&alive, n) {
                    let accepted = queue.reply(&id, "POST").is_ok();
                    prop_assert_eq!(accepted, hands.contains_key(&id) && !replying.contains(&id));
                    if accepted {
                        proven.insert(id.clone());
                        replying.insert(id);
                    }
                },
                Step::Refuse(n) => if let Some(id) = pick(&alive, n)
                    && replying.remove(&id) { queue.reply_refused(&id); },
                Step::Withdraw(n) => if let Some(id) = pick(&alive, n) {
                    queue.withdraw(&id);
                    alive.retain(|other| *other != id);
                    hands.remove(&id);
                    replying.remove(&id);
                },
                Step::Pass(seconds) => {
                    now += Duration::from_secs(seconds);
                    queue.advance(now);
                }
            }
            for decision in decisions(&mut queue) {
                match decision {
                    Decision::Answer(poll, action) => {
                        prop_assert!(answered.insert(poll), "a poll answered twice");
                        if let Some(action) = action {
                            prop_assert!(alive.contains(&action.id));
                            prop_assert!(!demanding.contains(&action.id) || able.contains(&poll));
                            let twice = hands.insert(action.id, poll);
                            prop_assert!(twice.is_none(), "an action in two hands");
                        }
                    }
                    Decision::Unsupported(id, need) => {
                        prop_assert!(demanding.contains(&id) && !hands.contains_key(&id));
                        prop_assert_eq!(need, Capability::List);
                        alive.retain(|other| *other != id);
                    }
                    Decision::Expire(id, _) => {
                        prop_assert!(!replying.contains(&id));
                        alive.retain(|other| *other != id);
                        hands.remove(&id);
                    }
                }
            }
        }
        let end = now + Duration::from_secs(120);
        queue.advance(end);
        for decision in decisions(&mut queue) {
            if let Decision::Expire(id, _) = decision { alive.retain(|other| *other != id); }
        }
        alive.retain(|id| !replying.contains(id));
        prop_assert!(alive.is_empty(), "an action that no caller will ever hear of");
    }
}
