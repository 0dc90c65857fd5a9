//! Addresses that stand for names.
//!
//! Each name that the guest resolves gets an address of its own, from a network that is never
//! routed (RFC 2544). So a destination is a name: no two names share an address, and the host
//! resolves the name itself when the guest connects. An address that was not given to the guest
//! leads nowhere.
//!
//! [`NameTable`] has no clock: the caller says when an address was used last.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::time::Instant;

use crate::name::DomainName;

/// The first address of the network: 198.18.0.0/15.
const NETWORK: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
/// The size of the network.
const SIZE: u32 = 1 << 17;
/// The first addresses are kept free: the gateway and the resolver have some of them.
const FIRST: u32 = 256;

/// The most names that a table can have at a time.
pub const MAX_NAMES: usize = (SIZE - FIRST) as usize;

/// The addresses of names, with a maximum of names.
///
/// ```
/// use std::time::Instant;
/// use metaservice_egress::NameTable;
///
/// let mut names = NameTable::new(100);
/// let now = Instant::now();
/// let name = "a.example".parse()?;
/// let address = names.address(&name, now).expect("there is room");
/// assert_eq!(names.name(address), Some(&name));
/// assert_eq!(names.address(&name, now), Some(address));
/// # Ok::<(), metaservice_egress::InvalidName>(())
/// ```
#[derive(Debug)]
pub struct NameTable {
    maximum: usize,
    by_name: HashMap<DomainName, u32>,
    by_index: HashMap<u32, Entry>,
    /// Entries without a connection, by the order of their last use.
    idle: BTreeSet<(Instant, u32)>,
    next: u32,
}

#[derive(Debug)]
struct Entry {
    name: DomainName,
    used: Instant,
    connections: u32,
}

impl NameTable {
    /// A table of at most this many names, and of at most [`MAX_NAMES`].
    #[must_use]
    pub fn new(maximum: usize) -> Self {
        Self {
            maximum: maximum.clamp(1, MAX_NAMES),
            by_name: HashMap::new(),
            by_index: HashMap::new(),
            idle: BTreeSet::new(),
            next: FIRST,
        }
    }

    /// Whether an address is of the network of names, given or not.
    #[must_use]
    pub fn contains(address: Ipv4Addr) -> bool {
        index(address).is_some()
    }

    /// The address of a name. A new name takes a free address, or that of the name that was used
    /// least recently. `None`: the table is full of names with connections.
    pub fn address(&mut self, name: &DomainName, now: Instant) -> Option<Ipv4Addr> {
        if let Some(&index) = self.by_name.get(name) {
            self.touch(index, now);
            return Some(address(index));
        }
        if self.by_index.len() >= self.maximum {
            let &(_, oldest) = self.idle.first()?;
            self.forget(oldest);
        }
        let index = self.free_index();
        self.insert(index, name.clone(), now);
        Some(address(index))
    }

    /// The name of an address that was given.
    #[must_use]
    pub fn name(&self, address: Ipv4Addr) -> Option<&DomainName> {
        self.by_index.get(&index(address)?).map(|entry| &entry.name)
    }

    /// Begins a connection to an address. Its name keeps it until the connection has
    /// [ended](Self::disconnect).
    pub fn connect(&mut self, address: Ipv4Addr, now: Instant) -> Option<&DomainName> {
        let index = index(address)?;
        self.touch(index, now);
        let entry = self.by_index.get_mut(&index)?;
        entry.connections += 1;
        self.idle.remove(&(entry.used, index));
        Some(&entry.name)
    }

    /// Ends a connection to an address.
    pub fn disconnect(&mut self, address: Ipv4Addr, now: Instant) {
        let Some(index) = index(address) else { return };
        let Some(entry) = self.by_index.get_mut(&index) else { return };
        entry.connections = entry.connections.saturating_sub(1);
        entry.used = now.max(entry.used);
        if entry.connections == 0 {
            self.idle.insert((entry.used, index));
        }
    }

    /// The number of names.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_index.len()
    }

    /// Whether there is no name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_index.is_empty()
    }

    /// All names with their addresses, in order of the addresses: for a snapshot of the machine.
    #[must_use]
    pub fn entries(&self) -> Vec<(Ipv4Addr, DomainName)> {
        let entry = |(index, entry): (&u32, &Entry)| (address(*index), entry.name.clone());
        let mut entries: Vec<_> = self.by_index.iter().map(entry).collect();
        entries.sort_unstable();
        entries
    }

    /// A table with the [entries](Self::entries) of another. What does not fit is left out: an
    /// address outside of the network, one that is there twice, or a name above the maximum.
    pub fn restore(
        maximum: usize,
        entries: impl IntoIterator<Item = (Ipv4Addr, DomainName)>,
        now: Instant,
    ) -> Self {
        let mut table = Self::new(maximum);
        for (address, name) in entries {
            let Some(index) = index(address).filter(|index| *index >= FIRST) else { continue };
            let known = table.by_index.contains_key(&index) || table.by_name.contains_key(&name);
            if !known && table.by_index.len() < table.maximum {
                table.insert(index, name, now);
            }
        }
        table
    }

    fn insert(&mut self, index: u32, name: DomainName, now: Instant) {
        self.by_name.insert(name.clone(), index);
        self.by_index.insert(index, Entry { name, used: now, connections: 0 });
        self.idle.insert((now, index));
    }

    fn touch(&mut self, index: u32, now: Instant) {
        let Some(entry) = self.by_index.get_mut(&index) else { return };
        let was_idle = self.idle.remove(&(entry.used, index));
        entry.used = now.max(entry.used);
        if was_idle {
            self.idle.insert((entry.used, index));
        }
    }

    fn forget(&mut self, index: u32) {
        if let Some(entry) = self.by_index.remove(&index) {
            self.idle.remove(&(entry.used, index));
            self.by_name.remove(&entry.name);
        }
    }

    /// A free address: the next one, so that an address is reused as late as possible. There is
    /// one, because there are fewer names than addresses.
    fn free_index(&mut self) -> u32 {
        loop {
            let index = self.next;
            self.next = if index + 1 < SIZE { index + 1 } else { FIRST };
            if !self.by_index.contains_key(&index) {
                return index;
            }
        }
    }
}

fn index(address: Ipv4Addr) -> Option<u32> {
    address.to_bits().checked_sub(NETWORK.to_bits()).filter(|index| *index < SIZE)
}

fn address(index: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(NETWORK.to_bits() + index)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn name(number: u32) -> DomainName {
        format!("n{number}.example").parse().unwrap()
    }

    #[test]
    fn an_address_that_was_not_given_has_no_name() {
        let mut names = NameTable::new(10);
        let given = names.address(&name(1), Instant::now()).unwrap();
        assert_eq!(given, Ipv4Addr::new(198, 18, 1, 0));
        for address in [[198, 18, 0, 1], [198, 18, 1, 1], [198, 17, 255, 255], [198, 20, 0, 0]] {
            assert_eq!(names.name(address.into()), None);
        }
    }

    #[test]
    fn the_name_that_was_used_least_recently_goes_and_never_one_with_a_connection() {
        let (mut names, now) = (NameTable::new(2), Instant::now());
        let later = |seconds| now + Duration::from_secs(seconds);
        let first = names.address(&name(1), now).unwrap();
        let second = names.address(&name(2), later(1)).unwrap();
        names.connect(first, later(2));
        let third = names.address(&name(3), later(3)).unwrap();
        assert_eq!(names.name(second), None);
        assert_ne!(third, second, "an address is reused as late as possible");
        names.connect(third, later(4));
        assert_eq!(names.address(&name(4), later(5)), None);
        names.disconnect(first, later(6));
        assert!(names.address(&name(4), later(7)).is_some());
        assert_eq!(names.name(first), None);
    }

    #[test]
    fn a_restored_table_has_the_same_addresses() {
        let (mut names, now) = (NameTable::new(10), Instant::now());
        for number in 0..5 {
            names.address(&name(number), now);
        }
        let mut restored = NameTable::restore(10, names.entries(), now);
        assert_eq!(restored.entries(), names.entries());
        let new = restored.address(&name(9), now).unwrap();
        assert!(names.name(new).is_none());
        assert_eq!(NameTable::restore(3, names.entries(), now).len(), 3);
        let foreign = [(Ipv4Addr::LOCALHOST, name(1)), (NETWORK, name(2))];
        assert!(NameTable::restore(3, foreign, now).is_empty());
    }

    proptest! {
        #[test]
        fn names_and_addresses_are_one_to_one(
            steps in prop::collection::vec((0_u8..4, 0_u32..12), 0..200),
        ) {
            let (mut names, start) = (NameTable::new(5), Instant::now());
            let mut open: Vec<Ipv4Addr> = Vec::new();
            for (at, (kind, number)) in steps.into_iter().enumerate() {
                let now = start + Duration::from_millis(at as u64);
                match kind {
                    0 | 1 => drop(names.address(&name(number), now)),
                    2 => {
                        let given = names.entries();
                        if let Some((address, _)) = given.get(number as usize % given.len().max(1)) {
                            names.connect(*address, now);
                            open.push(*address);
                        }
                    }
                    _ => {
                        if let Some(address) = open.pop() {
                            names.disconnect(address, now);
                        }
                    }
                }
                prop_assert!(names.len() <= 5);
                prop_assert_eq!(names.by_name.len(), names.by_index.len());
                let idle = names.by_index.values().filter(|entry| entry.connections == 0).count();
                prop_assert_eq!(names.idle.len(), idle);
                for address in &open {
                    prop_assert!(names.name(*address).is_some());
                }
                for (address, name) in names.entries() {
                    prop_assert_eq!(names.by_name.get(&name).copied(), index(address));
                }
            }
        }
    }
}
