//! What an action costs in the queue: submitted, offered to a poll that waits, delivered, replied
//! to and over, alone and among a thousand others.
#![allow(missing_docs, dead_code, unused_imports, unreachable_pub, clippy::unwrap_used)]

#[path = "../src/job/queue.rs"]
mod queue;

use std::hint::black_box;
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use metaservice_protocol::{Action, ActionId, ActionRequest, Capabilities};
use queue::{Decision, Queue};

fn action(number: u64) -> Action {
    Action {
        id: ActionId::parse(&format!("{number:032x}")).unwrap(),
        request: ActionRequest::KillProcess,
    }
}

/// One action from its beginning to its end.
fn cycle(queue: &mut Queue, now: Instant, number: u64) {
    let poll = queue.poll(now, Capabilities::all());
    let action = action(number);
    let id = action.id.clone();
    queue.submit(now, action);
    while let Some(decision) = queue.next_decision() {
        if let Decision::Answer(answered, _) = black_box(decision) {
            queue.poll_answered(now, answered);
        }
    }
    black_box(poll);
    queue.reply(&id, "POST").unwrap();
    queue.withdraw(&id);
}

fn actions(criterion: &mut Criterion) {
    let now = Instant::now();
    for others in [0, 1000] {
        criterion.bench_function(&format!("action among {others} others"), |bencher| {
            let mut queue = Queue::default();
            // Delivered, and not yet replied to.
            for number in 0..others {
                let poll = queue.poll(now, Capabilities::all());
                queue.submit(now, action(number));
                while queue.next_decision().is_some() {}
                queue.poll_answered(now, poll);
            }
            let mut number = others;
            bencher.iter(|| {
                number += 1;
                cycle(&mut queue, now, number);
            });
        });
    }
}

criterion_group!(benches, actions);
criterion_main!(benches);
