//! Cloud metadata for a stock cloud image. The image requests it, concludes that it runs in a
//! cloud, and runs the script that installs an agent.
//!
//! [`instance`] describes the machine, [`server`] answers requests. The data come only from
//! [`Cloud`](instance::Cloud), or are invented for this machine. None is about the host.
//! `docs/cloud.md` lists what is served, and why.

pub(crate) mod instance;
pub(crate) mod server;
mod tokens;
mod tree;
pub(crate) mod user_data;
