//! What the guest reaches over HTTP.
//!
//! A request goes one way through the room: [`connection`], [`endpoints`] with [`origin`] and the
//! session's check, then [`replies`] or a call of [`job`](crate::job). [`reception`] serves a
//! machine that has no agent yet, [`idle`] a machine that has no job yet. The room translates
//! between HTTP and the job. It decides nothing about the job.

#[cfg(feature = "cloud")]
pub(crate) mod cloud;
pub(crate) mod connection;
pub(crate) mod context;
#[cfg(feature = "cloud")]
pub(crate) mod delivery;
pub(crate) mod endpoints;
pub(crate) mod http_error;
pub(crate) mod idle;
pub(crate) mod listener;
pub(crate) mod log;
pub(crate) mod needs;
pub(crate) mod origin;
pub(crate) mod outbox;
#[cfg(feature = "cloud")]
pub(crate) mod reception;
pub(crate) mod replies;
pub(crate) mod subprotocol;

/// Without cloud metadata, only the paths of the protocol exist.
#[cfg(not(feature = "cloud"))]
pub(crate) mod reception {
    use std::collections::BTreeSet;

    use axum::extract::Request;
    use axum::response::Response;

    use crate::guest::http_error::HttpError;

    #[derive(Default)]
    pub(crate) struct Reception;

    impl Reception {
        #[allow(clippy::unused_self)]
        pub(crate) fn answer(
            &self,
            _: &BTreeSet<String>,
            _: &Request,
        ) -> Result<Response, HttpError> {
            Err(HttpError::no_endpoint())
        }
    }
}
