//! Cloud metadata, for a stock cloud image: the image asks for it, takes the job's machine for a
//! cloud's, and runs the script that installs an agent.
//!
//! [`instance`] describes the machine, [`server`] answers requests. The room serves only what was
//! given to [`Cloud`](instance::Cloud) or made up for this machine, and nothing about the host.
//! `docs/cloud.md` lists what is served, and why.

pub(crate) mod instance;
pub(crate) mod server;
mod tokens;
mod tree;
pub(crate) mod user_data;
