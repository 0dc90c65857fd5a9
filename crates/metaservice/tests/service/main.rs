//! The service, with a guest that sends each request by hand.
#![allow(clippy::unwrap_used, missing_docs)]

mod actions;
mod cloud;
mod commands;
mod control;
mod endpoints;
mod extended;
mod files;
mod launch;
mod limits;
mod outputs;
mod renewal;
mod sessions;
mod shell;

use metaservice::MetaService;
use metaservice_testing::guest::Guest;

/// A service without a log.
fn service() -> MetaService {
    MetaService::builder(["true"]).start().unwrap()
}

/// A guest of `service`.
fn guest(service: &MetaService) -> Guest {
    let service = service.clone();
    Guest::new(move |connection| {
        let service = service.clone();
        tokio::spawn(async move {
            let _ = service.serve_connection(connection).await;
        });
    })
}

/// Starts a call of the handle in the background.
fn start<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    service: &MetaService,
    call: impl FnOnce(MetaService) -> F,
) -> tokio::task::JoinHandle<T> {
    tokio::spawn(call(service.clone()))
}
