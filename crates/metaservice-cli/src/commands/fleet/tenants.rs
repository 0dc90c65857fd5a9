//! `metaservice tenants`: the tenants of a queue, and their limits.

use anyhow::{Context, Result};
use clap::Args;
use metaservice_fleet::name::Tenant;
use metaservice_fleet::tenants::{TenantLimits, TenantUse};
use serde_json::{Value, json};

use super::QueueArgs;
use crate::output;
use crate::output::printer::{Printer, json_text};
use crate::output::table;
use crate::status::ExitStatus;

const HELP: &str = "\
Examples:
  metaservice tenants
  metaservice tenants course-101 --running 8 --waiting 1000
  metaservice tenants course-101 --clear
  metaservice tenants --json | jq '.[] | select(.waiting > 0)'";

/// List the tenants of a queue with their running and waiting jobs, and set their limits.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Tenants {
    /// List only this tenant.
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<Tenant>,
    /// How many of its jobs may run at once. Those that run already continue.
    #[arg(long, value_name = "N", requires = "name")]
    pub(crate) running: Option<u32>,
    /// How many of its jobs may wait. "submit" refuses more.
    #[arg(long, value_name = "N", requires = "name")]
    pub(crate) waiting: Option<u32>,
    /// Remove its limits. With --running or --waiting: all others.
    #[arg(long, requires = "name")]
    pub(crate) clear: bool,
    #[command(flatten)]
    pub(crate) queue: QueueArgs,
}

impl Tenants {
    /// The limits after this call. `None`: it changes none.
    fn changed(&self, before: TenantLimits) -> Option<TenantLimits> {
        if !self.clear && self.running.is_none() && self.waiting.is_none() {
            return None;
        }
        let before = if self.clear { TenantLimits::default() } else { before };
        Some(TenantLimits {
            running: self.running.or(before.running),
            waiting: self.waiting.or(before.waiting),
        })
    }
}

pub(crate) async fn tenants(args: Tenants, printer: Printer) -> Result<ExitStatus> {
    let queue = args.queue.connect().await?;
    if let Some(name) = &args.name
        && let Some(limits) = args.changed(queue.limits_of(name).await?)
    {
        queue.limit(name, limits).await.context("cannot set the limits")?;
    }
    let mut all = queue.view().await?.tenants();
    if let Some(name) = args.name {
        let one = all.remove(&name).unwrap_or_default();
        all = [(name, one)].into();
    }
    if printer.is_json() {
        let all: Vec<_> = all.iter().map(|(name, one)| json_of(name, one)).collect();
        output::line(json_text(&json!(all).to_string()))?;
        return Ok(ExitStatus::SUCCESS);
    }
    let head = ["NAME", "RUNNING", "MAX RUNNING", "WAITING", "MAX WAITING"];
    let rows = all.iter().map(|(name, one)| row(name, one));
    let rows: Vec<_> = std::iter::once(head.map(str::to_owned).to_vec()).chain(rows).collect();
    for line in table::lines(&rows) {
        output::line(line)?;
    }
    Ok(ExitStatus::SUCCESS)
}

fn row(name: &Tenant, one: &TenantUse) -> Vec<String> {
    let limit = |limit: Option<u32>| limit.map_or_else(|| "-".to_owned(), |n| n.to_string());
    vec![
        name.to_string(),
        one.running.to_string(),
        limit(one.limits.running),
        one.waiting.to_string(),
        limit(one.limits.waiting),
    ]
}

fn json_of(name: &Tenant, one: &TenantUse) -> Value {
    json!({
        "tenant": name,
        "running": one.running,
        "waiting": one.waiting,
        "limits": one.limits,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_not_named_stays_unless_all_are_removed() {
        let queue = QueueArgs { queue: None, queue_credentials: None, queue_ca: None };
        let mut args = Tenants { name: None, running: None, waiting: None, clear: false, queue };
        let before = TenantLimits { running: Some(2), waiting: Some(9) };
        assert_eq!(args.changed(before), None);
        args.running = Some(3);
        let changed = TenantLimits { running: Some(3), waiting: Some(9) };
        assert_eq!(args.changed(before), Some(changed));
        args.clear = true;
        let only = TenantLimits { running: Some(3), waiting: None };
        assert_eq!(args.changed(before), Some(only));
    }
}
