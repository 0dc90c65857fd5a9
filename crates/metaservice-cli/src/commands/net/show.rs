//! `metaservice net show JOB`: prints what a guest may connect to.

use anyhow::Result;
use clap::Args;

use super::job::{answer, client};
use crate::flags::JobName;
use crate::output;
use crate::output::printer::{Printer, json_text, printable};
use crate::status::ExitStatus;

const HELP: &str = "\
Each line is a rule. Rules that deny win. \"metaservice inspect JOB\" has the published
ports and the number of attempts.

Example:
  metaservice net show build";

/// Show what the guest of a job may connect to.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Show {
    #[command(flatten)]
    name: JobName,
}

pub(super) async fn show(args: Show, printer: Printer) -> Result<ExitStatus> {
    let job = args.name.job;
    let policy = client(&job).await?.network_policy().await;
    let policy = answer(policy, || format!("cannot show the network of {job}"))?;
    if printer.is_json() {
        output::line(json_text(&serde_json::to_string(&policy)?))?;
        return Ok(ExitStatus::SUCCESS);
    }
    for line in lines(&policy.deny, &policy.allow) {
        output::line(printable(&line))?;
    }
    Ok(ExitStatus::SUCCESS)
}

fn lines(deny: &[String], allow: &[String]) -> Vec<String> {
    let deny = deny.iter().map(|rule| format!("deny   {rule}"));
    let allowed = allow.iter().map(|rule| format!("allow  {rule}"));
    let nothing = allow.is_empty().then(|| "nothing is allowed".to_owned());
    deny.chain(allowed).chain(nothing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_without_a_rule_that_allows_says_so() {
        let rule = |name: &str| [name.to_owned()];
        assert_eq!(lines(&[], &[]), ["nothing is allowed"]);
        assert_eq!(lines(&rule("a.example"), &[]), ["deny   a.example", "nothing is allowed"]);
        let both = lines(&rule("a.example"), &rule("public"));
        assert_eq!(both, ["deny   a.example", "allow  public"]);
    }
}
