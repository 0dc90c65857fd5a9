//! The paths of the control API, each written once: the router, the client and the document use
//! these.

/// The beginning of each path.
pub(super) const PREFIX: &str = "/v1";

/// Not at the control socket of a job, but at the one of all jobs.
pub(super) const JOBS: &str = "/v1/jobs";

pub(super) const JOB: &str = "/v1/job";
pub(super) const WAIT: &str = "/v1/wait";
pub(super) const LOG: &str = "/v1/log";
pub(super) const KILL: &str = "/v1/kill";
pub(super) const SIGNAL: &str = "/v1/signal";
pub(super) const ATTACH: &str = "/v1/attach";
pub(super) const STATS: &str = "/v1/stats";
pub(super) const FILES: &str = "/v1/files";
pub(super) const ENTRIES: &str = "/v1/entries";
pub(super) const ARTIFACT: &str = "/v1/artifact";
pub(super) const READ: &str = "/v1/read";
pub(super) const WRITE: &str = "/v1/write";
pub(super) const RUN: &str = "/v1/run";
pub(super) const EXEC: &str = "/v1/exec";
pub(super) const COMMANDS: &str = "/v1/commands";
pub(super) const SHELL: &str = "/v1/shell";
pub(super) const DIAL: &str = "/v1/dial";
pub(super) const NET_POLICY: &str = "/v1/net/policy";
pub(super) const NET_LOG: &str = "/v1/net/log";
pub(super) const NET_PUBLISH: &str = "/v1/net/publish";
#[cfg(feature = "openapi")]
pub(super) const OPENAPI: &str = "/v1/openapi.json";
