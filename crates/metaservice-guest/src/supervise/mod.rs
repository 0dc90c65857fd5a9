//! The small process between the agent and a command.
//!
//! Owns the life of one command: it starts the command, waits for it, ends its process tree, and
//! writes the ending into the state directory. It is a process of its own with one thread, for
//! three reasons. It outlives a crash of the agent. It is the subreaper of the command, so that
//! processes whose parent has ended become its children. And it may change its own session,
//! signals and user, which a thread of a larger program may not.
//!
//! A job ends with its command, as a container does: the rest of its process tree is killed. A
//! shell that ends by itself leaves its background processes alone, as users of ssh expect.
//!
//! The supervisor of a job delivers the command's output to the service, and stays until the
//! service has confirmed it. It also feeds the command's [standard input](input), if the job has
//! one. So no byte is lost with an agent. A file of the agent names the attach action to reply to,
//! and SIGTERM kills the command. After the command's end, SIGTERM means that the rest of the log
//! is not needed.

mod cgroup;
mod command_signal;
mod console;
mod delivery;
mod error;
mod fork;
mod fork_server;
mod go_ahead;
mod handle;
mod input;
mod launch;
mod lifecycle;
mod order;
mod socket;
mod supervision;
mod tree;

pub(crate) use self::command_signal::signal_command;
pub(crate) use self::fork_server::client::{ForkError, ForkServer, OrderError, PendingFork};
pub(crate) use self::fork_server::fork_server;
pub(crate) use self::handle::Supervisor;
pub(crate) use self::launch::StartFailure;
pub(crate) use self::lifecycle::KILL_GRACE;
pub(crate) use self::order::{InvalidOrder, Kind, LogRoute, Order, supervisor_command};
pub(crate) use self::supervision::supervise;
