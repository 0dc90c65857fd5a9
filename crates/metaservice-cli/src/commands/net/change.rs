//! `metaservice net allow JOB RULE...` and `net deny`: change what a guest may connect to.

use anyhow::{Context, Result, bail};
use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use metaservice::control::{Client, ClientError, Code, NetworkPolicy};
use metaservice_egress::Rule;

use super::job::{answer, client};
use crate::completions;
use crate::output::printer::Printer;
use crate::status::ExitStatus;

const ALLOW_HELP: &str = "\
A rule that denies wins. If the same rule denies, it is removed.

Example:
  metaservice net allow build files.example.org:443";

/// Let the guest of a running job connect to more.
#[derive(Debug, Args)]
#[command(after_help = ALLOW_HELP)]
pub(crate) struct Allow {
    #[command(flatten)]
    change: Change,
}

const DENY_HELP: &str = "\
Connections that are no longer allowed are cut. If the same rule allows, it is removed.

Example:
  metaservice net deny build '*.example.org'";

/// Let the guest of a running job connect to less.
#[derive(Debug, Args)]
#[command(after_help = DENY_HELP)]
pub(crate) struct Deny {
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, Args)]
struct Change {
    /// The name of the job.
    #[arg(value_name = "JOB", add = ArgValueCompleter::new(completions::jobs))]
    job: String,
    /// The rules, as for "run --allow-net".
    #[arg(value_name = "RULE", required = true)]
    rules: Vec<String>,
}

pub(super) async fn allow(args: Allow, printer: Printer) -> Result<ExitStatus> {
    change(args.change, |policy| (&mut policy.allow, &mut policy.deny), printer).await
}

pub(super) async fn deny(args: Deny, printer: Printer) -> Result<ExitStatus> {
    change(args.change, |policy| (&mut policy.deny, &mut policy.allow), printer).await
}

/// The list of a policy that gets rules, and the one that loses them.
type Lists = fn(&mut NetworkPolicy) -> (&mut Vec<String>, &mut Vec<String>);

/// How often other clients may be faster.
const ATTEMPTS: usize = 20;

async fn change(args: Change, lists: Lists, printer: Printer) -> Result<ExitStatus> {
    let Change { job, rules } = args;
    let canonical = |rule: &String| {
        let parsed = rule.parse::<Rule>().with_context(|| format!("in {rule:?}"));
        Ok(parsed?.to_string())
    };
    let rules = rules.iter().map(canonical).collect::<Result<Vec<String>>>()?;
    let client = client(&job).await?;
    for _ in 0..ATTEMPTS {
        match replace(&client, &rules, lists).await {
            Err(ClientError::Refused { code: Code::Busy, .. }) => {}
            done => {
                answer(done, || format!("cannot change the network of {job}"))?;
                printer.note(&format!("the network of {job} is changed"));
                return Ok(ExitStatus::SUCCESS);
            }
        }
    }
    bail!("cannot change the network of {job}: other clients change it all the time")
}

async fn replace(client: &Client, rules: &[String], lists: Lists) -> Result<(), ClientError> {
    let mut policy = client.network_policy().await?;
    add(&mut policy, rules, lists);
    client.set_network_policy(&policy).await.map(drop)
}

fn add(policy: &mut NetworkPolicy, rules: &[String], lists: Lists) {
    let (to, from) = lists(policy);
    from.retain(|rule| !rules.contains(rule));
    for rule in rules {
        if !to.contains(rule) {
            to.push(rule.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_in_one_list_once() {
        let rules = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut policy = NetworkPolicy::new(rules(&["a", "b"]), rules(&["c"]));
        let deny: Lists = |policy| (&mut policy.deny, &mut policy.allow);
        add(&mut policy, &rules(&["b", "c", "d"]), deny);
        assert_eq!(policy, NetworkPolicy::new(rules(&["a"]), rules(&["c", "b", "d"])));
        add(&mut policy, &rules(&["c"]), |policy| (&mut policy.allow, &mut policy.deny));
        assert_eq!(policy, NetworkPolicy::new(rules(&["a", "c"]), rules(&["b", "d"])));
    }
}
