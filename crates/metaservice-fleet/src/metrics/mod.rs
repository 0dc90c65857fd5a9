//! What a worker counts, in the format of Prometheus.
//!
//! | module | owns |
//! | --- | --- |
//! | `counts` | what an event or a step adds, without I/O |
//! | `depths` | the jobs that wait, by tenant and class, without I/O |
//! | `condition` | whether the worker takes jobs, without I/O |
//! | `exported` | the metrics with their names |
//! | `handle` | what the worker writes and the end-point reads |
//! | `server` | the HTTP end-point |

mod condition;
mod counts;
mod depths;
mod exported;
mod handle;
mod server;

pub use condition::Readiness;
pub use depths::{MAX_TENANTS, OTHER};
pub use handle::Metrics;
pub use server::{CONNECTION_TIMEOUT, MAX_CONNECTIONS, serve};
