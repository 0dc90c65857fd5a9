//! Jobs on many hosts: a queue on NATS JetStream, and the workers that run its jobs.
//!
//! ```text
//!   client ──Request──► Queue (NATS) ◄──Step──► worker ──JobSpec──► Sandbox
//!                         │                        │
//!                         └── JobState, log, artifacts
//! ```
//!
//! The truth about a job is a list of [steps](step::Step), numbered from zero. Each step is a key of
//! its own in a bucket that takes a key only once, so each change is a compare-and-set on the number
//! of the step. The servers of a cluster check it when they apply it, and all come to the same
//! answer. A [state](state::JobState) is what the steps of one job make, a [view](view::View) what
//! the steps of all jobs make.
//!
//! ```no_run
//! use metaservice_fleet::name::JobId;
//! use metaservice_fleet::queue::{Queue, Settings};
//! use metaservice_fleet::request::Request;
//! use metaservice_sandbox::spec::JobSpec;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let queue = Queue::connect(&Settings::new("nats://queue.example:4222")).await?;
//! let id = JobId::random();
//! queue.submit(&id, &Request::new(JobSpec::new(["make", "test"]))).await?;
//! let mut follow = queue.follow(&id).await?;
//! while follow.next().await?.outcome().is_none() {}
//! # Ok(())
//! # }
//! ```
//!
//! | module | owns |
//! | --- | --- |
//! | [`name`] | names of jobs, workers and tenants |
//! | [`request`] | what a client asks for: a description, a tenant, a priority, attempts |
//! | [`requirement`] | what a job needs of its worker, and what a worker has |
//! | [`tenants`] | the limits of tenants |
//! | [`sealed`] | secrets of a job, sealed for workers |
//! | [`step`] | the changes of a job, as JSON |
//! | [`state`] | one job: what its steps make of it, without I/O |
//! | [`view`] | all jobs and workers: who runs next, who is lost, without I/O or clock |
//! | [`why_waiting`] | why a job waits, without I/O or clock |
//! | [`queue`] | the connection to NATS, its buckets and streams |
//! | [`log`] | the live log of an attempt, in chunks with offsets |
//! | [`store`] | where artifacts and whole logs are kept |
//! | [`metrics`] | what a worker counts, for Prometheus, and its HTTP end-point |
//! | [`tunnel`] | connections to a running job, over the queue's connection |
//! | [`worker`] | claims jobs, and runs them in machines |
//! | [`server`] | a `nats-server` of this host, for a queue without installation |

#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod history;
pub mod log;
pub mod metrics;
mod moment;
pub mod name;
pub mod queue;
pub mod request;
pub mod requirement;
pub mod sealed;
pub mod server;
pub mod state;
pub mod step;
pub mod store;
pub mod tenants;
pub mod tunnel;
pub mod view;
pub mod why_waiting;
pub mod worker;
