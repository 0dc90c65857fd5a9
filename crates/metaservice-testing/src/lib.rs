//! Harnesses for the tests of this workspace. The crate is not published.
//!
//! Each harness is a feature:
//!
//! | feature | harness | for tests of |
//! | --- | --- | --- |
//! | `guest` | [`guest::Guest`]: a guest that sends each request by hand | the service |
//! | `host` | [`host::Host`]: a strict version 1 host, and the real agent | the agent |
//! | `network` | [`network::Guest`]: an independent TCP/IP stack on a virtual cable | the card |
//! | `pair` | [`pair::Pair`]: the real agent and the service, with connections that are cut | both |
//! | `cli` | [`cli::Cli`]: the command line tool, with a check for what it leaves | the tool |
//! | `cli` | [`outside::Outside`]: another host, at a public address | the network of a guest |
//!
//! `docs/testing.md` says which one to use. The functions return no errors: a harness panics to
//! fail a test.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a harness fails its test by a panic")]
#![allow(clippy::missing_panics_doc, reason = "every function of a harness can panic")]

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "guest")]
pub mod guest;
#[cfg(feature = "host")]
pub mod host;
#[cfg(feature = "network")]
pub mod network;
#[cfg(feature = "cli")]
pub mod outside;
#[cfg(feature = "pair")]
pub mod pair;
pub mod port;
#[cfg(any(feature = "cli", feature = "host", feature = "pair"))]
pub mod processes;
pub mod wait;

/// Returns `length` bytes in which no short sequence repeats.
///
/// A test that compares them finds bytes that are lost, repeated or in another order. Two seeds
/// give different bytes. The bytes do not compress.
pub fn noise(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    let mut bytes = Vec::with_capacity(length + 4);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// The programs of the page on the libraries compile.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/how-to/embedding.md")]
pub struct EmbeddingPage;
