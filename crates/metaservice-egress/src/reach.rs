//! What a guest may reach at all: the decision for packets without a port.

use crate::attempt::{Attempt, Target, Transport};
use crate::class::AddressClass;
use crate::policy::{Peer, Policy, Verdict, class, combined};
use crate::rule::Rule;

/// Any port, for a rule of all of them.
const ANY: u16 = 1;

impl Policy {
    /// Decides whether a guest may send an echo request to a target: whether it is allowed at some
    /// port, by some protocol. An allowed name is still to be resolved.
    ///
    /// ```
    /// use metaservice_egress::{Policy, Target};
    ///
    /// let policy = Policy::new(["a.example:443".parse()?], []);
    /// assert!(policy.reaches(&Target::Name("a.example".parse()?)).is_allowed());
    /// assert!(!policy.reaches(&Target::Name("b.example".parse()?)).is_allowed());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn reaches(&self, target: &Target) -> Verdict<'_> {
        self.reaches_as(target, class(target))
    }

    /// As [`decide_peer`](Self::decide_peer), for an echo request.
    #[must_use]
    pub fn reaches_peer(&self, target: &Target, peer: Peer) -> Verdict<'_> {
        let reached = self.reaches(target);
        let Verdict::Allowed(rule) = reached else { return reached };
        let at_peer = self.reaches_as(&Target::Address(peer.address), peer.class());
        combined(target, rule, at_peer)
    }

    fn reaches_as(&self, target: &Target, class: AddressClass) -> Verdict<'_> {
        let at = |port, transport| Attempt { target: target.clone(), port, transport };
        // A rule that denies some ports leaves the others.
        let denies = |rule: &&Rule| {
            let alone = Self::new([], [(*rule).clone()]);
            let verdict = alone.decide_as(&at(ANY, Transport::Tcp), class);
            rule.ports.is_all() && matches!(verdict, Verdict::DeniedBy(_))
        };
        if let Some(rule) = self.deny().iter().find(denies) {
            return Verdict::DeniedBy(rule);
        }
        let allows = |rule: &&Rule| {
            let alone = Self::new([(*rule).clone()], []);
            let allowed =
                |transport| alone.decide_as(&at(rule.ports.first(), transport), class).is_allowed();
            allowed(Transport::Tcp) || allowed(Transport::Udp)
        };
        match self.allow().iter().find(allows) {
            Some(rule) => Verdict::Allowed(rule),
            None => match Self::default().decide_as(&at(ANY, Transport::Tcp), class) {
                Verdict::NotPublic(class) => Verdict::NotPublic(class),
                _ => Verdict::NoRule,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Peer, Policy, Rule, Target, Verdict};

    fn reaches(allow: &[&str], deny: &[&str], target: &str) -> bool {
        let rules = |texts: &[&str]| {
            texts.iter().map(|text| text.parse::<Rule>().unwrap()).collect::<Vec<_>>()
        };
        let target = match target.parse() {
            Ok(address) => Target::Address(address),
            Err(_) => Target::from(target.parse::<crate::DomainName>().unwrap()),
        };
        Policy::new(rules(allow), rules(deny)).reaches(&target).is_allowed()
    }

    #[test]
    fn an_echo_request_reaches_the_addresses_of_connections() {
        let policy = |allow: &[&str]| {
            Policy::new(allow.iter().map(|text| text.parse::<Rule>().unwrap()), [])
        };
        let peer = |address: &str, own| Peer { address: address.parse().unwrap(), own };
        let name = Target::Name("a.example".parse().unwrap());
        let named = policy(&["a.example:443", "10.0.0.0/8:53/udp"]);
        for (address, own, reached) in [
            ("1.1.1.1", false, true),
            ("1.1.1.1", true, false),
            ("10.1.1.1", false, true),
            ("10.1.1.1", true, true),
            ("192.168.0.1", false, false),
        ] {
            let verdict = named.reaches_peer(&name, peer(address, own));
            assert_eq!(verdict.is_allowed(), reached, "{address}");
        }
        let raw = Target::Address("1.1.1.1".parse().unwrap());
        assert!(policy(&["public"]).reaches_peer(&raw, peer("1.1.1.1", false)).is_allowed());
        assert!(!policy(&["public"]).reaches_peer(&raw, peer("1.1.1.1", true)).is_allowed());
        assert!(policy(&["1.1.1.1"]).reaches_peer(&raw, peer("1.1.1.1", true)).is_allowed());
    }

    #[test]
    fn what_is_allowed_at_some_port_is_reached() {
        for (allow, deny, target, reached) in [
            (&["a.example:443"][..], &[][..], "a.example", true),
            (&["*.example:22,80"], &[], "a.example", true),
            (&["a.example"], &[], "b.example", false),
            (&["10.0.0.0/8:53/udp"], &[], "10.1.1.1", true),
            (&["10.0.0.0/8"], &[], "11.1.1.1", false),
            (&["public"], &[], "1.1.1.1", true),
            (&["public"], &[], "10.0.0.1", false),
            (&["public"], &["1.1.1.1"], "1.1.1.1", false),
            (&["public"], &["1.1.1.1:25"], "1.1.1.1", true),
            (&["host:80"], &[], "host", true),
            (&["public"], &[], "host", false),
            (&[], &[], "1.1.1.1", false),
        ] {
            assert_eq!(reaches(allow, deny, target), reached, "{allow:?} {deny:?} {target}");
        }
        let private = Target::Address("10.0.0.1".parse().unwrap());
        assert!(matches!(Policy::default().reaches(&private), Verdict::NotPublic(_)));
    }
}
