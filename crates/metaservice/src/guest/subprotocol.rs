//! The websocket subprotocols that a client offers.

use http::{HeaderMap, header};
use metaservice_protocol::header::SHELL2_PROTOCOL;

/// Whether the client offers stream protocol v2.
pub(crate) fn offers_v2(headers: &HeaderMap) -> bool {
    let offers = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    offers
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|word| word.trim() == SHELL2_PROTOCOL)
}
