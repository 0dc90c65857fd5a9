//! A token becomes a session.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::app::App;
use super::guard;
use super::responses::{Code, Refused, refuse};
use crate::access::secret::Secret;
use crate::access::sessions::Denied;
use crate::access::users::{Role, Who};
use crate::source::Place;

/// Says what opens the page: a link, or the token of a user.
pub(super) async fn door(State(app): State<App>) -> Json<Value> {
    Json(json!({ "signIn": app.sessions().token().is_none() }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Exchange {
    token: String,
}

/// Exchanges the token of a link for a cookie.
pub(super) async fn exchange(
    State(app): State<App>,
    body: Result<Json<Exchange>, JsonRejection>,
) -> Result<Response, Refused> {
    let Json(Exchange { token }) = body?;
    let (Ok(fresh), Ok(next)) = (Secret::random(), Secret::random()) else {
        return Err(refuse(Code::Failed, "the system has no random numbers"));
    };
    let printed = next.reveal().to_owned();
    let only_tls = if app.is_tls { "; Secure" } else { "" };
    let (name, secret) = (&app.cookie, fresh.reveal());
    let cookie = format!("{name}={secret}; Path=/; HttpOnly; SameSite=Strict{only_tls}");
    let made = app.sessions().exchange(&token, fresh, next, app.end.child_token(), Instant::now());
    match made {
        Ok(()) => {
            app.tokens.send_if_modified(|token| match token {
                Some(token) => {
                    *token = printed;
                    true
                }
                None => false,
            });
            Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
        }
        Err(Denied::Wrong) => Err(refuse(Code::NoSession, "the token is wrong, or was used")),
        Err(Denied::TooMany(wait)) => {
            let seconds = (wait.as_secs() + 1).to_string();
            let refused = refuse(Code::TooMany, "there were too many wrong tokens");
            Ok(([(header::RETRY_AFTER, seconds)], refused).into_response())
        }
    }
}

/// Ends the session.
pub(super) async fn end(State(app): State<App>, headers: HeaderMap) -> Response {
    let mut sessions = app.sessions();
    guard::secrets(&app, &headers).for_each(|secret| sessions.end(secret));
    let cookie = format!("{}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0", app.cookie);
    (StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response()
}

/// What the page knows of itself.
#[derive(Serialize)]
pub(super) struct Shown {
    user: Option<String>,
    role: Role,
    source: &'static str,
    place: String,
    can: Can,
}

/// What the page can do.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Can {
    run: bool,
    remove: bool,
    sign_out: bool,
}

/// Says whose session this is, and what the page shows.
pub(super) async fn show(
    State(app): State<App>,
    Extension(Who { name, role, by_proxy }): Extension<Who>,
) -> Json<Shown> {
    let (source, place) = match app.source.place() {
        Place::Host(name) => ("host", name),
        Place::Queue(address) => ("queue", address),
    };
    // What is left of the jobs of a queue is removed by age, by those who run the queue.
    let can = Can { run: true, remove: source == "host", sign_out: !by_proxy };
    Json(Shown { user: name.map(|name| name.to_string()), role, source, place, can })
}
