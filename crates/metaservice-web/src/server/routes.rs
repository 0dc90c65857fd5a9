//! Which handler answers, and who may ask.

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};

use super::app::App;
use super::responses::{Code, refuse};
use super::{actions, assets, files, guard, jobs, log, network, session, terminal, uploads};
use crate::access::users::Role;

/// All of the server.
pub(super) fn router(app: App) -> Router {
    let with_session = watch()
        .merge(operate().route_layer(from_fn_with_state(Role::Operate, guard::with_role)))
        .merge(admin().route_layer(from_fn_with_state(Role::Admin, guard::with_role)))
        .route_layer(from_fn_with_state(app.clone(), guard::with_session));
    Router::new()
        .route("/", get(assets::index))
        .route("/run", get(assets::index))
        .route("/workers", get(assets::index))
        .route("/job/{name}", get(assets::index))
        .route("/job/{name}/{tab}", get(assets::index))
        .route("/assets/{name}", get(assets::asset))
        .route("/session", get(session::door).post(session::exchange))
        .merge(with_session)
        .fallback(async || refuse(Code::NotFound, "nothing is at this address"))
        .layer(from_fn_with_state(app.clone(), guard::guard))
        .with_state(app)
}

fn watch() -> Router<App> {
    Router::new()
        .route("/api/session", get(session::show).delete(session::end))
        .route("/api/jobs", get(jobs::follow))
        .route("/api/usage", get(jobs::usage))
        .route("/api/fleet", get(jobs::fleet))
        .route("/api/jobs/{name}", get(jobs::show))
        .route("/api/jobs/{name}/stats", get(jobs::stats))
        .route("/api/jobs/{name}/network", get(network::attempts))
        .route("/api/jobs/{name}/artifact", get(jobs::artifact))
        .route("/api/jobs/{name}/log", get(log::open))
        .route("/api/jobs/{name}/log/length", get(log::follow))
        .route("/api/jobs/{name}/log/lines", get(log::lines))
        .route("/api/jobs/{name}/log/search", get(log::search))
        .route("/api/jobs/{name}/log/download", get(log::download))
}

fn operate() -> Router<App> {
    Router::new()
        .route("/api/images", get(actions::images))
        .route("/api/jobs", post(actions::run))
        .route("/api/jobs/{name}/kill", post(actions::kill))
        .route("/api/jobs/{name}/signal", post(actions::signal))
        .route("/api/jobs/{name}/retry", post(actions::retry))
        .route("/api/jobs/{name}/terminal", get(terminal::open))
        .route("/api/jobs/{name}/files", get(files::list))
        .route("/api/jobs/{name}/look", get(files::look))
        .route("/api/jobs/{name}/picture", get(files::show))
        .route("/api/jobs/{name}/file", get(files::download))
        .route("/api/jobs/{name}/uploads", post(uploads::begin))
        .route("/api/uploads/{id}", get(uploads::show).put(uploads::add).delete(uploads::end))
}

fn admin() -> Router<App> {
    Router::new()
        .route("/api/jobs/{name}/remove", post(actions::remove))
        .route("/api/prune", post(actions::prune))
}
