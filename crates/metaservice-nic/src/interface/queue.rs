//! A queue with a limit of items and bytes.

use std::collections::VecDeque;

/// A queue with a limit of items and bytes.
#[derive(Debug)]
pub(super) struct Queue<T> {
    items: VecDeque<(usize, T)>,
    bytes: usize,
    most: usize,
    most_bytes: usize,
}

impl<T> Queue<T> {
    pub(super) fn new(most: usize, most_bytes: usize) -> Self {
        Self { items: VecDeque::new(), bytes: 0, most, most_bytes }
    }

    /// Returns whether there was room.
    pub(super) fn push(&mut self, bytes: usize, item: T) -> bool {
        let total = self.bytes.saturating_add(bytes);
        let room = self.items.len() < self.most && total <= self.most_bytes;
        if room {
            self.bytes = total;
            self.items.push_back((bytes, item));
        }
        room
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        let (bytes, item) = self.items.pop_front()?;
        self.bytes -= bytes;
        Some(item)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.items = VecDeque::new();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_and_bytes_are_limited() {
        let mut queue = Queue::new(3, 10);
        assert!(queue.push(4, 'a') && queue.push(6, 'b'));
        assert!(!queue.push(1, 'c'), "no more bytes");
        assert!(queue.push(0, 'd'));
        assert!(!queue.push(0, 'e'), "no more items");
        assert_eq!(queue.pop(), Some('a'));
        assert!(queue.push(4, 'f'));
        queue.clear();
        assert!(queue.is_empty() && queue.push(10, 'g'));
    }
}
