//! The end-points of the guest's network.

use axum::Json;
use axum::body::Body as ResponseBody;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;
use metaservice_protocol::header::JSON_LINES_TYPE;
use serde::Deserialize;

use super::extract::{Body, Query};
use super::responses::refuse;
use super::served::Served;
use crate::control::error::{ApiError, Code};
use crate::control::network::{
    NetworkError, NetworkHandle, NetworkPolicy, PublishRequest, Published,
};
#[cfg(feature = "openapi")]
use crate::control::paths;

/// What the guest may connect to.
#[cfg_attr(feature = "openapi", utoipa::path(get, path = paths::NET_POLICY, operation_id = "net_policy", responses(
    (status = 200, body = NetworkPolicy),
    (status = 409, body = ApiError, description = "the guest of this job has no network"),
)))]
pub(crate) async fn policy(State(served): State<Served>) -> Response {
    match network(&served) {
        Ok(network) => Json(network.policy()).into_response(),
        Err(error) => error.into_response(),
    }
}

/// Replaces what the guest may connect to. Connections that are no longer allowed are cut. A policy
/// with an error changes nothing.
#[cfg_attr(feature = "openapi", utoipa::path(put, path = paths::NET_POLICY, operation_id = "set_net_policy", request_body = NetworkPolicy, responses(
    (status = 200, body = NetworkPolicy),
    (status = 400, body = ApiError, description = "a rule is not valid"),
    (status = 409, body = ApiError, description = "the guest of this job has no network, or the policy has another revision"),
    (status = 503, body = ApiError),
)))]
pub(crate) async fn set_policy(
    State(served): State<Served>,
    Body(policy): Body<NetworkPolicy>,
) -> Response {
    let network = match network(&served) {
        Ok(network) => network,
        Err(error) => return error.into_response(),
    };
    match network.set_policy(&policy) {
        Some(Ok(policy)) => Json(policy).into_response(),
        Some(Err(error)) => failed(&error),
        None => refuse(Code::Busy, "another client has changed the policy; read it again"),
    }
}

/// How to read the log.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
pub(crate) struct LogQuery {
    /// Continue to the end of the network.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", param(required = false))]
    follow: bool,
}

/// Each attempt of the guest that has ended, as a line of JSON.
#[cfg_attr(feature = "openapi", utoipa::path(get, path = paths::NET_LOG, operation_id = "net_log", params(LogQuery), responses(
    (status = 200, body = String, content_type = JSON_LINES_TYPE),
    (status = 400, body = ApiError),
    (status = 404, body = ApiError, description = "no log is kept of the network"),
    (status = 409, body = ApiError, description = "the guest of this job has no network"),
)))]
pub(crate) async fn log(State(served): State<Served>, Query(query): Query<LogQuery>) -> Response {
    let network = match network(&served) {
        Ok(network) => network,
        Err(error) => return error.into_response(),
    };
    match network.network().log(query.follow) {
        Some(lines) => {
            let body = ResponseBody::from_stream(lines);
            ([(header::CONTENT_TYPE, JSON_LINES_TYPE)], body).into_response()
        }
        None => refuse(Code::NotFound, "no log is kept of the network of this job"),
    }
}

/// Publishes a port of the guest on the host, until the network ends.
#[cfg_attr(feature = "openapi", utoipa::path(post, path = paths::NET_PUBLISH, operation_id = "net_publish", request_body = PublishRequest, responses(
    (status = 200, body = Published),
    (status = 400, body = ApiError),
    (status = 409, body = ApiError, description = "the guest of this job has no network, or the host cannot listen there"),
    (status = 503, body = ApiError),
)))]
pub(crate) async fn publish(
    State(served): State<Served>,
    Body(request): Body<PublishRequest>,
) -> Response {
    let network = match network(&served) {
        Ok(network) => network,
        Err(error) => return error.into_response(),
    };
    match network.network().publish(&request.spec).await {
        Ok(address) => Json(Published { address }).into_response(),
        Err(error) => failed(&error),
    }
}

fn network(served: &Served) -> Result<&NetworkHandle, ApiError> {
    let none = || "the guest of this job has no network".to_owned();
    let network = served.description.network.as_ref();
    network.ok_or_else(|| ApiError { code: Code::Refused, message: none() })
}

fn failed(error: &NetworkError) -> Response {
    let code = match error {
        NetworkError::Invalid(_) => Code::InvalidRequest,
        NetworkError::Refused(_) => Code::Refused,
        NetworkError::Ended => Code::Terminated,
    };
    refuse(code, error.to_string())
}
