//! What an agent and its zygote say to each other.
//!
//! Owns the sockets between them, which keep messages apart and carry descriptors, and the order as
//! bytes.

use std::ffi::{OsStr, OsString};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};

use super::Env;
use crate::supervise::order::Order;

/// The most bytes of an order: less than what a socket takes at once. Those that are larger are
/// rare.
pub(super) const MOST: usize = 64 * 1024;

/// The descriptors of an order: three streams and a line.
const DESCRIPTORS: usize = 4;

/// Two ends of a socket that keeps messages apart.
pub(super) fn line() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// An order and an environment as one message: the number of its words, then all words, each
/// ended by a zero. `None` for what is too long, or has a zero in it.
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
    (bytes.len() <= MOST).then_some(bytes)
}

pub(super) fn decode(bytes: &[u8]) -> Option<(Order, Env)> {
    let (count, words) = bytes.split_first_chunk()?;
    let count = usize::try_from(u32::from_be_bytes(*count)).ok()?;
    let mut words = words.split_inclusive(|byte| *byte == 0).map(|word| {
        let word = word.strip_suffix(&[0]).unwrap_or(word);
        OsString::from_vec(word.to_vec())
    });
    let arguments: Vec<_> = words.by_ref().take(count).collect();
    let order = Order::parse(&mut lexopt::Parser::from_args(arguments)).ok()?;
    let mut env = Env::new();
    while let Some(name) = words.next() {
        env.push((name, words.next()?));
    }
    Some((order, env))
}

/// A message.
pub(super) struct Received {
    /// How many bytes came; none at the end.
    pub(super) count: usize,
    pub(super) descriptors: Vec<OwnedFd>,
}

/// Sends a message, which is taken at once or not at all.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::INVAL);
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)?;
    Ok(())
}

/// The next message; `INVAL` for one that has not come whole.
pub(super) fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> rustix::io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        let mut parts = [IoSliceMut::new(bytes)];
        match recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            message => break message?,
        }
    };
    let mut descriptors = Vec::with_capacity(DESCRIPTORS);
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    let whole = !message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    whole.then_some(Received { count: message.bytes, descriptors }).ok_or(Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::program::Program;
    use crate::state::Folder;
    use crate::supervise::Kind;

    fn order(words: Vec<String>) -> Order {
        let program = Program { words, env: Vec::new(), user: None, workdir: None };
        Order::new(&Folder::at("/folder".into()), Kind::Shell, true, &program)
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
            let env: Env = env.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
            prop_assert_eq!(variables, env);
        }

        #[test]
        fn nothing_that_comes_is_too_much(bytes in any::<Vec<u8>>()) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn what_no_message_carries_is_not_for_it() {
        let with = |length| order(vec!["x".repeat(length)]);
        let rest = encode(&with(0), &[]).unwrap().len();
        assert_eq!(encode(&with(MOST - rest), &[]).unwrap().len(), MOST);
        assert!(encode(&with(MOST - rest + 1), &[]).is_none());
        assert!(encode(&order(vec!["a\0b".to_owned()]), &[]).is_none());
        assert!(encode(&with(0), &[("a\0".to_owned(), String::new())]).is_none());
    }
}
