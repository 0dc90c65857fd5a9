//! exec-shell and exec: a command in addition to the job, with a stream to the host or detached.
//!
//! Owns a shell from its start to its end. Its command runs under a supervisor of its own, as the
//! job does. An abort, a broken connection or the agent's end kill its whole process tree. A shell
//! that ends by itself leaves its background processes alone.
//!
//! The exit is sent when the command has ended and its output was sent. A background process that
//! still has the output open is not waited for. It may continue to write; its output is discarded.

mod background_output;
mod output;
mod relay;
mod running;
mod shells;
mod supervisors;

pub(crate) use self::shells::Shells;
