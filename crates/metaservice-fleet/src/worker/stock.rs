//! Which warm machines a worker keeps: what to start and what to end next. No I/O, and the time is
//! an argument.

use std::time::Duration;

use tokio::time::Instant;

/// How long no machine is started after one was handed out: first its command has the processors.
const HEAD_START: Duration = Duration::from_secs(1);

/// The warm machines of a worker. `K` is their kind.
#[derive(Debug)]
pub(super) struct Stock<K> {
    shelves: Vec<Shelf<K>>,
    /// The memory that all of them may take, in bytes.
    budget: u64,
    /// Counts the questions, so that a shelf knows when it was asked last.
    questions: u64,
    machines: u64,
    /// No machine is started before. Only a start removes it, so that a stream of jobs cannot put
    /// it off for ever.
    hold: Option<Instant>,
}

/// The machines of one kind.
#[derive(Debug)]
struct Shelf<K> {
    wanted: usize,
    kind: Option<K>,
    idle: Vec<Idle>,
    asked: u64,
    /// What one machine took last, in bytes.
    size: u64,
    /// Whether one could not be started.
    has_failed: bool,
}

/// A machine that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Idle {
    number: u64,
    bytes: u64,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Start a machine for this shelf.
    Start(usize),
    /// End this machine.
    End(u64),
}

impl<K: PartialEq> Stock<K> {
    /// An empty stock that wants so many machines of each kind.
    pub(super) fn new(wanted: impl IntoIterator<Item = u32>) -> Self {
        let shelf = |wanted| Shelf {
            wanted: usize::try_from(wanted).unwrap_or(usize::MAX),
            kind: None,
            idle: Vec::new(),
            asked: 0,
            size: 0,
            has_failed: false,
        };
        let shelves = wanted.into_iter().map(shelf).collect();
        Self { shelves, budget: 0, questions: 0, machines: 0, hold: None }
    }

    /// What all machines may take, in bytes. Returns whether that is another number.
    pub(super) const fn set_budget(&mut self, bytes: u64) -> bool {
        let changes = self.budget != bytes;
        self.budget = bytes;
        changes
    }

    /// What to do next. A start that was ordered must be answered before the next question.
    pub(super) fn order(&mut self, now: Instant) -> Option<Order> {
        if self.bytes() > self.budget {
            let filled = self.shelves.iter().filter(|shelf| !shelf.idle.is_empty());
            let last = filled.min_by_key(|shelf| shelf.asked)?.idle.last()?;
            return Some(Order::End(last.number));
        }
        let lacks = |shelf: &Shelf<K>| {
            !shelf.has_failed
                && shelf.idle.len() < shelf.wanted
                && self.bytes() + shelf.size <= self.budget
        };
        let shelves = self.shelves.iter().enumerate().filter(|(_, shelf)| lacks(shelf));
        let (number, _) =
            shelves.max_by_key(|(number, shelf)| (shelf.asked, std::cmp::Reverse(*number)))?;
        if self.held_until(now).is_some() {
            return None;
        }
        self.hold = None;
        Some(Order::Start(number))
    }

    /// Until when no machine is started, because one was handed out.
    pub(super) fn held_until(&self, now: Instant) -> Option<Instant> {
        self.hold.filter(|until| *until > now)
    }

    fn bytes(&self) -> u64 {
        self.shelves.iter().flat_map(|shelf| &shelf.idle).map(|idle| idle.bytes).sum()
    }

    /// The number of machines that wait.
    pub(super) fn count(&self) -> usize {
        self.shelves.iter().map(|shelf| shelf.idle.len()).sum()
    }

    /// Notes that the ordered machine waits, and what it takes. Returns its number. Machines of the
    /// shelf that are of another kind must end: the image has changed.
    pub(super) fn started(&mut self, shelf: usize, kind: K, bytes: u64) -> (u64, Vec<u64>) {
        self.machines += 1;
        let number = self.machines;
        let Some(shelf) = self.shelves.get_mut(shelf) else { return (number, vec![number]) };
        let is_same = shelf.kind.as_ref() == Some(&kind);
        let old = if is_same { Vec::new() } else { std::mem::take(&mut shelf.idle) };
        (shelf.kind, shelf.size) = (Some(kind), bytes);
        shelf.idle.push(Idle { number, bytes });
        (number, old.into_iter().map(|idle| idle.number).collect())
    }

    /// Notes what a machine takes, if it still waits.
    pub(super) fn measured(&mut self, number: u64, bytes: u64) {
        for shelf in &mut self.shelves {
            if let Some(idle) = shelf.idle.iter_mut().find(|idle| idle.number == number) {
                (idle.bytes, shelf.size) = (bytes, bytes);
            }
        }
    }

    /// Notes that the ordered machine does not start. None is ordered for this shelf until
    /// [`try_again`](Self::try_again).
    pub(super) fn failed(&mut self, shelf: usize) {
        if let Some(shelf) = self.shelves.get_mut(shelf) {
            shelf.has_failed = true;
        }
    }

    /// Lets all shelves have machines again.
    pub(super) fn try_again(&mut self) {
        self.shelves.iter_mut().for_each(|shelf| shelf.has_failed = false);
    }

    /// Hands out a machine of this kind: the one that has waited longest.
    pub(super) fn take(&mut self, kind: &K, now: Instant) -> Option<u64> {
        self.questions += 1;
        let shelf = self.shelves.iter_mut().find(|shelf| shelf.kind.as_ref() == Some(kind))?;
        shelf.asked = self.questions;
        let taken = (!shelf.idle.is_empty()).then(|| shelf.idle.remove(0).number)?;
        self.hold.get_or_insert_with(|| now + HEAD_START);
        Some(taken)
    }

    /// Notes that a machine has ended.
    pub(super) fn ended(&mut self, number: u64) {
        for shelf in &mut self.shelves {
            shelf.idle.retain(|idle| idle.number != number);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// When nothing is held that is handed out now.
    fn later() -> Instant {
        Instant::now() + 2 * HEAD_START
    }

    /// Does what is ordered until nothing is.
    fn fill(stock: &mut Stock<char>, kinds: &str, bytes: u64) {
        for _ in 0..1000 {
            match stock.order(later()) {
                None => return,
                Some(Order::End(number)) => stock.ended(number),
                Some(Order::Start(shelf)) => {
                    let (_, old) = stock.started(shelf, kinds.chars().nth(shelf).unwrap(), bytes);
                    old.into_iter().for_each(|number| stock.ended(number));
                }
            }
        }
        panic!("the orders have no end");
    }

    #[test]
    fn each_kind_gets_as_many_machines_as_it_wants() {
        let mut stock = Stock::new([2, 1]);
        assert_eq!(stock.order(later()), Some(Order::Start(0)));
        stock.set_budget(300);
        fill(&mut stock, "ab", 100);
        assert_eq!((stock.count(), stock.order(later())), (3, None));
        assert_eq!(stock.take(&'a', Instant::now()), Some(1), "the oldest");
        assert_eq!(stock.order(later()), Some(Order::Start(0)));
        assert_eq!(stock.take(&'c', Instant::now()), None);
    }

    #[test]
    fn what_was_not_asked_for_goes_first() {
        let mut stock = Stock::new([2, 2]);
        stock.set_budget(400);
        fill(&mut stock, "ab", 100);
        assert!(stock.take(&'a', Instant::now()).is_some());
        fill(&mut stock, "ab", 100);
        stock.set_budget(250);
        fill(&mut stock, "ab", 100);
        assert_eq!(stock.count(), 2);
        assert!(
            stock.take(&'a', Instant::now()).is_some()
                && stock.take(&'a', Instant::now()).is_some()
        );
        assert_eq!(stock.take(&'b', Instant::now()), None);
    }

    #[test]
    fn a_machine_that_takes_more_later_is_within_the_budget_again() {
        let mut stock = Stock::new([3]);
        stock.set_budget(300);
        fill(&mut stock, "a", 90);
        assert_eq!(stock.count(), 3);
        stock.measured(3, 130);
        assert_eq!(stock.order(later()), Some(Order::End(3)));
        stock.ended(3);
        assert_eq!(stock.order(later()), None, "the next one would take as much");
        stock.measured(3, 10);
        assert_eq!(stock.order(later()), None, "it waits no more");
        stock.measured(2, 100);
        assert_eq!(stock.order(later()), Some(Order::Start(0)));
    }

    #[test]
    fn a_machine_of_an_image_that_has_changed_ends() {
        let mut stock = Stock::new([2]);
        stock.set_budget(200);
        let (old, _) = stock.started(0, 'a', 100);
        let (new, ended) = stock.started(0, 'b', 100);
        assert_eq!(ended, [old]);
        assert_eq!(
            (stock.take(&'a', Instant::now()), stock.take(&'b', Instant::now())),
            (None, Some(new))
        );
    }

    #[test]
    fn a_kind_that_does_not_start_waits() {
        let mut stock: Stock<char> = Stock::new([1, 1]);
        stock.set_budget(100);
        stock.failed(0);
        assert_eq!(stock.order(later()), Some(Order::Start(1)));
        stock.try_again();
        assert_eq!(stock.order(later()), Some(Order::Start(0)));
    }

    #[test]
    fn a_command_that_gets_a_machine_has_the_processors_first() {
        let mut stock = Stock::new([2]);
        stock.set_budget(200);
        fill(&mut stock, "a", 100);
        let now = Instant::now();
        assert!(stock.take(&'a', now).is_some());
        let end = now + HEAD_START;
        assert_eq!((stock.order(now), stock.held_until(now)), (None, Some(end)));
        // Another one does not put it off.
        assert!(stock.take(&'a', now + HEAD_START / 2).is_some());
        assert_eq!((stock.held_until(end), stock.order(end)), (None, Some(Order::Start(0))));
        stock.started(0, 'a', 100);
        // The next one that is handed out does.
        assert!(stock.take(&'a', end).is_some());
        assert_eq!(stock.order(end), None);
    }

    proptest! {
        #[test]
        fn the_stock_keeps_within_its_budget(
            wanted in proptest::collection::vec(0_u32..4, 1..4),
            steps in proptest::collection::vec((0_u64..600, 0_usize..4, 50_u64..150), 0..20),
        ) {
            let kinds = "abcd";
            let most: u32 = wanted.iter().sum();
            let mut stock = Stock::new(wanted);
            for (budget, kind, bytes) in steps {
                stock.set_budget(budget);
                fill(&mut stock, kinds, bytes);
                prop_assert!(stock.bytes() <= budget);
                prop_assert!(stock.count() <= most as usize);
                stock.take(&kinds.chars().nth(kind).unwrap(), Instant::now());
            }
        }
    }
}
