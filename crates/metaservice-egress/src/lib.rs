//! What a guest may connect to.
//!
//! A [`Policy`] of [`Rule`]s decides each [`Attempt`]. The crate has no socket and no clock: a
//! network card, a command line and an audit use the same decisions.
//!
//! | module | owns |
//! | --- | --- |
//! | [`policy`](Policy) | decisions: deny by default, a rule that denies wins |
//! | [`names`](NameTable) | an address for each name, so that a destination is a name |
//! | [`dns`] | the resolver's questions and answers |
//! | [`tls`] | the server name of a ClientHello, wherever it is |
//! | [`http`] | the authority of each request of a connection |
//! | [`file`](mod@file) | policies in files, and presets |
//! | [`audit`] | the record of each attempt |
//!
//! ```
//! use metaservice_egress::{Attempt, Peer, Policy};
//!
//! let policy = Policy::new(["public".parse()?], ["*.ads.example".parse()?]);
//! let attempt: Attempt = "www.example:443".parse()?;
//! assert!(policy.decide(&attempt).is_allowed());
//! // The host resolves the name. It connects only to addresses that are allowed.
//! let peer = |address: &str| Peer { address: address.parse().unwrap(), own: false };
//! assert!(policy.decide_peer(&attempt, peer("1.1.1.1")).is_allowed());
//! assert!(!policy.decide_peer(&attempt, peer("169.254.169.254")).is_allowed());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

pub mod audit;
pub mod dns;
pub mod file;
pub mod http;
pub mod tls;

mod attempt;
mod class;
mod name;
mod names;
mod policy;
mod ports;
mod preset;
mod reach;
mod rule;

pub use attempt::{Attempt, InvalidAttempt, Target, Transport};
pub use class::AddressClass;
pub use name::{DomainName, InvalidName};
pub use names::{MAX_NAMES, NameTable};
pub use policy::{Peer, Policy, Verdict};
pub use ports::{InvalidPorts, Ports};
pub use rule::{InvalidRule, Rule};
