//! What a guest may reach at all: the decision for packets without a port.

use crate::attempt::{Attempt, Target, Transport};
use crate::policy::{Policy, Verdict};

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
        let at = |port, transport| Attempt { target: target.clone(), port, transport };
        // A rule that denies some ports leaves the others.
        let denies = |rule: &&crate::Rule| {
            rule.ports.is_all()
                && matches!(
                    Self::new([], [(*rule).clone()]).decide(&at(ANY, Transport::Tcp)),
                    Verdict::DeniedBy(_)
                )
        };
        if let Some(rule) = self.deny().iter().find(denies) {
            return Verdict::DeniedBy(rule);
        }
        let allows = |rule: &&crate::Rule| {
            let alone = Self::new([(*rule).clone()], []);
            let port = rule.ports.first();
            [Transport::Tcp, Transport::Udp]
                .into_iter()
                .any(|transport| alone.decide(&at(port, transport)).is_allowed())
        };
        match self.allow().iter().find(allows) {
            Some(rule) => Verdict::Allowed(rule),
            None => match Self::default().decide(&at(ANY, Transport::Tcp)) {
                Verdict::NotPublic(class) => Verdict::NotPublic(class),
                _ => Verdict::NoRule,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Policy, Rule, Target, Verdict};

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
