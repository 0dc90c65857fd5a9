//! Which warm machines a worker keeps: what to start and what to end next. No I/O, no clock.

/// The warm machines of a worker. `K` is their kind.
#[derive(Debug)]
pub(super) struct Stock<K> {
    shelves: Vec<Shelf<K>>,
    /// The memory that all of them may take, in bytes.
    budget: u64,
    /// Counts the questions, so that a shelf knows when it was asked last.
    questions: u64,
    machines: u64,
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
        Self { shelves, budget: 0, questions: 0, machines: 0 }
    }

    /// What all machines may take, in bytes. Returns whether that is another number.
    pub(super) const fn set_budget(&mut self, bytes: u64) -> bool {
        let changes = self.budget != bytes;
        self.budget = bytes;
        changes
    }

    /// What to do next. A start that was ordered must be answered before the next question.
    pub(super) fn order(&self) -> Option<Order> {
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
        Some(Order::Start(number))
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
    pub(super) fn take(&mut self, kind: &K) -> Option<u64> {
        self.questions += 1;
        let shelf = self.shelves.iter_mut().find(|shelf| shelf.kind.as_ref() == Some(kind))?;
        shelf.asked = self.questions;
        (!shelf.idle.is_empty()).then(|| shelf.idle.remove(0).number)
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

    /// Does what is ordered until nothing is.
    fn fill(stock: &mut Stock<char>, kinds: &str, bytes: u64) {
        for _ in 0..1000 {
            match stock.order() {
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
        assert_eq!(stock.order(), Some(Order::Start(0)));
        stock.set_budget(300);
        fill(&mut stock, "ab", 100);
        assert_eq!((stock.count(), stock.order()), (3, None));
        assert_eq!(stock.take(&'a'), Some(1), "the oldest");
        assert_eq!(stock.order(), Some(Order::Start(0)));
        assert_eq!(stock.take(&'c'), None);
    }

    #[test]
    fn what_was_not_asked_for_goes_first() {
        let mut stock = Stock::new([2, 2]);
        stock.set_budget(400);
        fill(&mut stock, "ab", 100);
        assert!(stock.take(&'a').is_some());
        fill(&mut stock, "ab", 100);
        stock.set_budget(250);
        fill(&mut stock, "ab", 100);
        assert_eq!(stock.count(), 2);
        assert!(stock.take(&'a').is_some() && stock.take(&'a').is_some());
        assert_eq!(stock.take(&'b'), None);
    }

    #[test]
    fn a_machine_of_an_image_that_has_changed_ends() {
        let mut stock = Stock::new([2]);
        stock.set_budget(200);
        let (old, _) = stock.started(0, 'a', 100);
        let (new, ended) = stock.started(0, 'b', 100);
        assert_eq!(ended, [old]);
        assert_eq!((stock.take(&'a'), stock.take(&'b')), (None, Some(new)));
    }

    #[test]
    fn a_kind_that_does_not_start_waits() {
        let mut stock: Stock<char> = Stock::new([1, 1]);
        stock.set_budget(100);
        stock.failed(0);
        assert_eq!(stock.order(), Some(Order::Start(1)));
        stock.try_again();
        assert_eq!(stock.order(), Some(Order::Start(0)));
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
                stock.take(&kinds.chars().nth(kind).unwrap());
            }
        }
    }
}
