//! Idle connections that wait for another request.
//!
//! A connection is kept only after a complete response, and only for a moment: the next request
//! comes soon or not at all, and a host closes an idle connection.

use std::sync::Mutex;
use std::time::Duration;

use metaservice_private::lock;
use tokio::time::Instant;

use super::connection::Connection;

/// How long an idle connection is used: less than a host waits for a request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// How many connections are kept.
const MAX_IDLE: usize = 4;

/// Idle connections.
#[derive(Debug, Default)]
pub(super) struct ConnectionPool(Mutex<Vec<(Instant, Connection)>>);

impl ConnectionPool {
    /// The connection that was used last, if it is still good.
    pub(super) async fn take(&self) -> Option<Connection> {
        loop {
            let (since, mut connection) = self.pop()?;
            if since.elapsed() < IDLE_TIMEOUT && connection.is_idle().await {
                return Some(connection);
            }
        }
    }

    fn pop(&self) -> Option<(Instant, Connection)> {
        lock(&self.0).pop()
    }

    /// Keeps a connection, if it can take another request.
    pub(super) async fn put(&self, mut connection: Connection) {
        if connection.is_idle().await {
            let mut idle = lock(&self.0);
            idle.retain(|(since, _)| since.elapsed() < IDLE_TIMEOUT);
            if idle.len() < MAX_IDLE {
                idle.push((Instant::now(), connection));
            }
        }
    }
}
