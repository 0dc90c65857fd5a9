//! Ids that a guest cannot guess.

use metaservice_protocol::ActionId;

/// An id that no action had before and no guest can guess: 128 random bits.
///
/// # Panics
/// If the kernel has no random bytes, which Linux has once it has booted.
pub(crate) fn new_id() -> ActionId {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).expect("Linux gives random bytes once it has booted");
    let id = format!("{:032x}", u128::from_ne_bytes(bits));
    ActionId::parse(&id).expect("hexadecimal digits are URL-safe")
}
