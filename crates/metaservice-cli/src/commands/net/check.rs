//! `metaservice net check`: what a policy says about attempts, without a job.
//!
//! The decision is that of the gateway of a job.

use std::net::IpAddr;

use anyhow::{Context, Result};
use clap::Args;
use metaservice_egress::audit::{self, Decision, Reason, Record};
use metaservice_egress::{AddressClass, Attempt, Rule, Target, Verdict};
use metaservice_sandbox::job::Network;
use serde::Serialize;

use crate::description;
use crate::flags::PolicyArgs;
use crate::hints;
use crate::output::printer::{Printer, json_text, printable};
use crate::output::{self, table};
use crate::status::ExitStatus;

const HELP: &str = "\
Examples:
  metaservice net check --net-policy pip -- pypi.org:443 pypi.org:80
  metaservice net check --net open -- 192.168.0.1:22 1.1.1.1:123/udp
  metaservice net check --allow-net '*.example.org:443' -- www.example.org:443

No name is resolved. An allowed name is reached at public addresses, and at those of a CIDR rule.

Exit status: 0 if all are allowed, 1 if one is denied, 125 if an argument is wrong.";

/// Say what a policy allows, and by which rule.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Check {
    #[command(flatten)]
    policy: PolicyArgs,
    /// What a guest tries: NAME:PORT, ADDRESS:PORT or host:PORT, with /udp for UDP.
    #[arg(value_name = "TARGET", required = true)]
    targets: Vec<String>,
}

pub(super) fn check(args: Check, printer: Printer) -> Result<ExitStatus> {
    let network = Network::resolve(&description::policy(args.policy)).map_err(hints::network)?;
    let attempt = |text: &String| text.parse().with_context(|| format!("in {text:?}"));
    let attempts: Vec<Attempt> = args.targets.iter().map(attempt).collect::<Result<_>>()?;
    let answers = attempts.iter().map(|attempt| Answer::of(network.decide(attempt), attempt));
    let answers: Vec<_> = answers.collect();
    if printer.is_json() {
        output::line(json_text(&serde_json::to_string(&answers)?))?;
    } else if !printer.is_quiet() {
        let rows: Vec<_> = answers.iter().map(Answer::row).collect();
        for line in table::lines(&rows) {
            output::line(printable(&line))?;
        }
    }
    let allowed = answers.iter().all(|answer| answer.verdict == Decision::Allowed);
    Ok(if allowed { ExitStatus::SUCCESS } else { ExitStatus::DENIED })
}

/// What a policy says about an attempt.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    target: String,
    verdict: Decision,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<Rule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    /// What kind of address it is, if this is the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<AddressClass>,
    /// A rule that would allow it.
    #[serde(skip_serializing_if = "Option::is_none")]
    suggestion: Option<String>,
    /// What else there is to know of an allowed target.
    #[serde(skip)]
    at: &'static str,
}

impl Answer {
    fn of(verdict: Verdict<'_>, attempt: &Attempt) -> Self {
        let allowed = verdict.is_allowed();
        let mut record = Record::new(attempt.transport.into(), 0);
        (record.port, record.reason) = (Some(attempt.port), Reason::of(&verdict));
        match &attempt.target {
            Target::Address(address) => record.address = Some(*address),
            name => record.name = Some(name.to_string()),
        }
        Self {
            target: attempt.to_string(),
            verdict: if allowed { Decision::Allowed } else { Decision::Denied },
            rule: match verdict {
                Verdict::Allowed(rule) | Verdict::DeniedBy(rule) => Some(rule.clone()),
                _ => None,
            },
            reason: (!allowed).then(|| Reason::of(&verdict)),
            class: match verdict {
                Verdict::NotPublic(class) => Some(class),
                _ => None,
            },
            suggestion: audit::suggestion(&record),
            at: match attempt.target {
                Target::Name(_) => ", at public addresses and those of CIDR rules",
                // A name can lead there.
                Target::Address(IpAddr::V6(_)) => {
                    ", for names that lead there; a guest has no IPv6"
                }
                Target::Address(_) | Target::Host => "",
            },
        }
    }

    /// A line of the table: the verdict, the target, and why.
    fn row(&self) -> Vec<String> {
        let verdict = match self.verdict {
            Decision::Allowed => "allowed",
            Decision::Denied => "denied",
        };
        vec![verdict.to_owned(), self.target.clone(), self.why()]
    }

    fn why(&self) -> String {
        match (&self.rule, self.verdict) {
            (Some(rule), Decision::Allowed) => return format!("by {rule}{}", self.at),
            (Some(rule), Decision::Denied) => return format!("by {rule}"),
            (None, _) => {}
        }
        let reason = match self.class {
            Some(class) => format!("it is {}", hints::address_class(class)),
            None => "no rule allows it".to_owned(),
        };
        match &self.suggestion {
            Some(rule) => format!("{reason}: --allow-net {rule}"),
            None => reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use metaservice_egress::Policy;

    use super::*;

    fn why(allow: &[&str], deny: &[&str], attempt: &str) -> String {
        let rules = |texts: &[&str]| -> Vec<Rule> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let policy = Policy::new(rules(allow), rules(deny));
        let attempt = attempt.parse().unwrap();
        Answer::of(policy.decide(&attempt), &attempt).row()[0..3].join(" | ")
    }

    #[test]
    fn an_answer_names_the_rule_or_what_to_write() {
        let allowed = why(&["*.example:443"], &[], "a.example:443");
        assert!(
            allowed.starts_with("allowed | a.example:443 | by *.example:443, at "),
            "{allowed}"
        );
        for (allow, deny, attempt, says) in [
            (&["public"][..], &[][..], "1.1.1.1:443", "allowed | 1.1.1.1:443 | by public"),
            (&["public"], &["a.example"], "a.example:1", "denied | a.example:1 | by a.example"),
            (
                &[],
                &[],
                "a.example:443",
                "denied | a.example:443 | no rule allows it: --allow-net a.example:443",
            ),
            (
                &["public"],
                &[],
                "10.0.0.1:53/udp",
                "denied | 10.0.0.1:53/udp | it is a private address: --allow-net 10.0.0.1:53/udp",
            ),
            (
                &["public"],
                &[],
                "127.0.0.1:80",
                "denied | 127.0.0.1:80 | it is the loopback interface; write host:PORT",
            ),
            (
                &[],
                &[],
                "169.254.169.254:80",
                "denied | 169.254.169.254:80 | it is a link-local address",
            ),
            (&[], &[], "host:80", "denied | host:80 | no rule allows it: --allow-net host:80"),
            (&[], &[], "a.example:443/udp", "denied | a.example:443/udp | no rule allows it"),
        ] {
            assert_eq!(why(allow, deny, attempt), says);
        }
    }
}
