//! An order and an environment as one message.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::supervise::order::{Environment, Order};

/// The largest order in bytes: less than a socket takes at once. Larger ones are rare.
pub(super) const MAX_ORDER: usize = 64 * 1024;

/// Encodes the number of the order's words, then all words, each with a zero at its end. `None` if
/// the message would be too long, or a word contains a zero.
pub(super) fn encode(order: &Order, env: &[(String, String)]) -> Option<Vec<u8>> {
    let arguments = order.arguments();
    let mut bytes = u32::try_from(arguments.len()).ok()?.to_be_bytes().to_vec();
    let variables = env.iter().flat_map(|(name, value)| [OsStr::new(name), OsStr::new(value)]);
    for word in arguments.iter().map(OsString::as_os_str).chain(variables) {
        if word.as_bytes().contains(&0) {
            return None;
        }
        bytes.extend_from_slice(word.as_bytes());
        bytes.push(0);
    }
    (bytes.len() <= MAX_ORDER).then_some(bytes)
}

/// Inverts [`encode`].
pub(super) fn decode(bytes: &[u8]) -> Option<(Order, Environment)> {
    let (count, words) = bytes.split_first_chunk()?;
    let count = usize::try_from(u32::from_be_bytes(*count)).ok()?;
    let mut words = words.split_inclusive(|byte| *byte == 0).map(|word| {
        let word = word.strip_suffix(&[0]).unwrap_or(word);
        OsString::from_vec(word.to_vec())
    });
    let arguments: Vec<_> = words.by_ref().take(count).collect();
    let order = Order::parse(&mut lexopt::Parser::from_args(arguments)).ok()?;
    let mut env = Environment::new();
    while let Some(name) = words.next() {
        env.push((name, words.next()?));
    }
    Some((order, env))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::program::Program;
    use crate::state::StateDirectory;
    use crate::supervise::order::Kind;

    fn order(words: Vec<String>) -> Order {
        let program = Program { words, env: Vec::new(), user: None, workdir: None };
        Order::new(&StateDirectory::at("/state".into()), Kind::Shell, true, &program)
    }

    proptest! {
        #[test]
        fn decode_inverts_encode(
            words in proptest::collection::vec("[^\0]{0,8}", 0..4),
            env in proptest::collection::vec(("[^\0]{0,8}", "[^\0]{0,8}"), 0..4),
        ) {
            let order = order(words);
            let (same, variables) = decode(&encode(&order, &env).unwrap()).unwrap();
            prop_assert_eq!(same, order);
            let env = env.into_iter().map(|(name, value)| (name.into(), value.into()));
            prop_assert_eq!(variables, env.collect::<Environment>());
        }

        #[test]
        fn no_message_panics(bytes in any::<Vec<u8>>()) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn an_order_that_does_not_fit_is_not_encoded() {
        let with = |length| order(vec!["x".repeat(length)]);
        let rest = encode(&with(0), &[]).unwrap().len();
        assert_eq!(encode(&with(MAX_ORDER - rest), &[]).unwrap().len(), MAX_ORDER);
        assert!(encode(&with(MAX_ORDER - rest + 1), &[]).is_none());
        assert!(encode(&order(vec!["a\0b".to_owned()]), &[]).is_none());
        assert!(encode(&with(0), &[("a\0".to_owned(), String::new())]).is_none());
    }
}
