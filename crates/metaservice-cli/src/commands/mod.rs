//! One file for each verb.

pub(crate) mod completions;
pub(crate) mod doctor;
pub(crate) mod exec;
pub(crate) mod kill;
pub(crate) mod ls;
pub(crate) mod ps;
pub(crate) mod run;
pub(crate) mod serve;
