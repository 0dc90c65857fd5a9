//! A token becomes a session.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde::Deserialize;
use tokio::time::Instant;

use super::app::App;
use super::responses::{Code, Refused, refuse};
use crate::access::secret::Secret;
use crate::access::sessions::Denied;

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
    let cookie = format!("{}={}; Path=/; HttpOnly; SameSite=Strict", app.cookie, fresh.reveal());
    let made = app.sessions().exchange(&token, fresh, next, Instant::now());
    match made {
        Ok(()) => {
            app.tokens.send_replace(printed);
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

/// Says that there is a session, or else the guard says that there is none.
pub(super) async fn show() -> StatusCode {
    StatusCode::NO_CONTENT
}
