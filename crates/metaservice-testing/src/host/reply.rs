//! The answer of the agent to an action.

use axum::body::Body;
use axum::extract::ws::WebSocket;
use axum::http::HeaderMap;

/// The answer of the agent to an action.
#[derive(Debug)]
pub enum Reply {
    /// A `POST` request. The host answers it when the body is complete.
    Post {
        /// The headers.
        headers: HeaderMap,
        /// The body, as it arrives.
        body: Body,
    },
    /// A websocket.
    Shell(Box<WebSocket>),
}
