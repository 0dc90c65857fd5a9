//! A policy and its decisions. Enforcement, the offline check and the audit use these functions.
//!
//! A destination is a name or an address. A name is decided in two steps:
//!
//! ```text
//!   the guest connects to a name ──► decide ── denied ─────────────────────────────► end
//!                                      │ allowed
//!                                      ▼
//!                             the host resolves the name
//!                                      ▼
//!             decide_peer, for each address ────── none is allowed ────────────────► end
//!                                      │
//!                                      ▼
//!                        the host connects to an allowed address
//! ```

use std::net::IpAddr;

use crate::attempt::{Attempt, Target, Transport};
use crate::class::{self, AddressClass};
use crate::name::DomainName;
use crate::rule::{Pattern, Rule};

/// A decision, and what led to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict<'a> {
    /// This rule allows it.
    Allowed(&'a Rule),
    /// This rule denies it.
    DeniedBy(&'a Rule),
    /// No rule allows it.
    NoRule,
    /// The address is not public, and no rule of addresses allows it. The name `localhost` has
    /// such an address.
    NotPublic(AddressClass),
}

impl Verdict<'_> {
    /// Whether the attempt is allowed.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed(_))
    }
}

/// What a guest may connect to. Without rules: nothing. A rule that denies wins.
///
/// ```
/// use metaservice_egress::{Attempt, Policy, Target, Transport};
///
/// let policy = Policy::new(["*.example.org:443".parse()?], ["ads.example.org".parse()?]);
/// let attempt = |name: &str| Attempt {
///     target: Target::Name(name.parse().unwrap()),
///     port: 443,
///     transport: Transport::Tcp,
/// };
/// assert!(policy.decide(&attempt("www.example.org")).is_allowed());
/// assert!(!policy.decide(&attempt("ads.example.org")).is_allowed());
/// assert!(!policy.decide(&attempt("example.org")).is_allowed());
/// # Ok::<(), metaservice_egress::InvalidRule>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    allow: Vec<Rule>,
    deny: Vec<Rule>,
}

/// An address that the host would connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The address.
    pub address: IpAddr,
    /// Whether the host itself has it. Such an address is not public, whatever its
    /// [class](AddressClass::of) is.
    pub own: bool,
}

impl Peer {
    pub(crate) fn class(self) -> AddressClass {
        match AddressClass::of(self.address) {
            AddressClass::Public if self.own => AddressClass::Own,
            class => class,
        }
    }
}

impl Policy {
    /// A policy of these rules.
    #[must_use]
    pub fn new(
        allow: impl IntoIterator<Item = Rule>,
        deny: impl IntoIterator<Item = Rule>,
    ) -> Self {
        Self { allow: allow.into_iter().collect(), deny: deny.into_iter().collect() }
    }

    /// The rules that allow.
    #[must_use]
    pub fn allow(&self) -> &[Rule] {
        &self.allow
    }

    /// The rules that deny.
    #[must_use]
    pub fn deny(&self) -> &[Rule] {
        &self.deny
    }

    /// Adds the rules of another policy.
    pub fn extend(&mut self, other: Self) {
        self.allow.extend(other.allow);
        self.deny.extend(other.deny);
    }

    /// Decides an attempt. What is allowed leads to an address, which is still to be decided: see
    /// [`decide_peer`](Self::decide_peer).
    #[must_use]
    pub fn decide(&self, attempt: &Attempt) -> Verdict<'_> {
        self.decide_as(attempt, class(&attempt.target))
    }

    /// Decides an address that an attempt leads to: the one that the guest has given, or one of
    /// those that its name has resolved to.
    ///
    /// It must be public, or a rule of addresses must allow it. So a name never leads to the host,
    /// to its private networks or to a metadata service, whatever its owner says. The verdict on
    /// what is allowed has the rule of the attempt.
    ///
    /// ```
    /// use metaservice_egress::{Peer, Policy};
    ///
    /// let policy = Policy::new(["a.example:443".parse()?], []);
    /// let attempt = "a.example:443".parse()?;
    /// let decide = |address: &str, own| {
    ///     policy.decide_peer(&attempt, Peer { address: address.parse().unwrap(), own })
    /// };
    /// assert!(decide("1.1.1.1", false).is_allowed());
    /// assert!(!decide("1.1.1.1", true).is_allowed());
    /// assert!(!decide("169.254.169.254", false).is_allowed());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn decide_peer(&self, attempt: &Attempt, peer: Peer) -> Verdict<'_> {
        let decided = self.decide(attempt);
        let Verdict::Allowed(rule) = decided else { return decided };
        let at_peer = Attempt { target: Target::Address(peer.address), ..*attempt };
        combined(&attempt.target, rule, self.decide_as(&at_peer, peer.class()))
    }

    /// As [`decide`](Self::decide), for a target of this class.
    pub(crate) fn decide_as(&self, attempt: &Attempt, class: AddressClass) -> Verdict<'_> {
        if let Some(rule) = self.deny.iter().find(|rule| rule.denies(attempt, class)) {
            return Verdict::DeniedBy(rule);
        }
        if let Some(rule) = self.allow.iter().find(|rule| rule.allows(attempt, class)) {
            return Verdict::Allowed(rule);
        }
        match attempt.target {
            Target::Host => Verdict::NoRule,
            _ if class.is_public() => Verdict::NoRule,
            _ => Verdict::NotPublic(class),
        }
    }

    /// Decides whether a resolver answers for a name: whether it is allowed at some port.
    #[must_use]
    pub fn decide_name(&self, name: &DomainName) -> Verdict<'_> {
        let allowed = |rule: &&Rule| match name.is_host() {
            true => rule.pattern == Pattern::Host,
            false => rule.matches_name(name),
        };
        let denied = |rule: &&Rule| rule.ports.is_all() && rule.matches_name(name);
        if name.is_loopback() {
            return Verdict::NotPublic(AddressClass::Loopback);
        }
        if !name.is_host()
            && let Some(rule) = self.deny.iter().find(denied)
        {
            return Verdict::DeniedBy(rule);
        }
        self.allow.iter().find(allowed).map_or(Verdict::NoRule, Verdict::Allowed)
    }
}

/// The verdict on a target that this rule allows, where its address has a verdict of its own.
pub(crate) fn combined<'a>(target: &Target, rule: &'a Rule, at_peer: Verdict<'a>) -> Verdict<'a> {
    match (target, at_peer) {
        (Target::Host, _) | (_, Verdict::Allowed(_)) | (Target::Name(_), Verdict::NoRule) => {
            Verdict::Allowed(rule)
        }
        (_, verdict) => verdict,
    }
}

/// The class of a target. A name has that of the internet until it is resolved.
pub(crate) fn class(target: &Target) -> AddressClass {
    match target {
        Target::Host => AddressClass::Loopback,
        Target::Name(name) if name.is_loopback() => AddressClass::Loopback,
        Target::Name(_) => AddressClass::Public,
        Target::Address(address) => AddressClass::of(*address),
    }
}

impl Rule {
    /// Whether the rule allows this attempt.
    fn allows(&self, attempt: &Attempt, class: AddressClass) -> bool {
        let Attempt { target, port, transport } = attempt;
        self.ports.contains(*port)
            && match (&self.pattern, target) {
                (Pattern::Name(..) | Pattern::Below(..), Target::Name(name)) => {
                    *transport == Transport::Tcp && class.is_public() && self.matches_name(name)
                }
                // The loopback interface of the host has a rule of its own.
                (Pattern::Network(network, of), Target::Address(address)) => {
                    of == transport
                        && class != AddressClass::Loopback
                        && network.contains(&address.to_canonical())
                }
                (Pattern::Public, Target::Name(_) | Target::Address(_)) => class.is_public(),
                (Pattern::Host, Target::Host) => *transport == Transport::Tcp,
                _ => false,
            }
    }

    /// Whether the rule denies this attempt: whatever the protocol, and in each form of an address.
    fn denies(&self, attempt: &Attempt, class: AddressClass) -> bool {
        let Attempt { target, port, .. } = attempt;
        self.ports.contains(*port)
            && match (&self.pattern, target) {
                (Pattern::Name(..) | Pattern::Below(..), Target::Name(name)) => {
                    self.matches_name(name)
                }
                (Pattern::Network(network, _), Target::Address(address)) => {
                    forms(*address).any(|form| network.contains(&form))
                }
                (Pattern::Public, Target::Name(_) | Target::Address(_)) => class.is_public(),
                (Pattern::Host, Target::Host) => true,
                _ => false,
            }
    }

    fn matches_name(&self, name: &DomainName) -> bool {
        match &self.pattern {
            Pattern::Name(own, _) => own == name,
            Pattern::Below(parent, _) => name.is_below(parent),
            Pattern::Public => true,
            Pattern::Network(..) | Pattern::Host => false,
        }
    }

    /// Whether the rule accepts a TLS connection without a readable name.
    #[must_use]
    pub fn accepts_any_sni(&self) -> bool {
        match self.pattern {
            Pattern::Name(_, any) | Pattern::Below(_, any) => any,
            Pattern::Network(..) | Pattern::Host | Pattern::Public => true,
        }
    }

    /// Whether it is a rule of names: what the guest sends must be for the name.
    #[must_use]
    pub fn is_of_names(&self) -> bool {
        matches!(self.pattern, Pattern::Name(..) | Pattern::Below(..))
    }
}

/// An address, and the IPv4 address that a translator or a tunnel would make of it.
fn forms(address: IpAddr) -> impl Iterator<Item = IpAddr> {
    let inner = match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => class::embedded(address).map(IpAddr::V4),
    };
    [Some(address), inner].into_iter().flatten()
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
