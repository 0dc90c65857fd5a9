//! What the guest sends on a connection that a rule of names allows: it must be for the name.
//!
//! [`Inspector`] sees each byte of the guest before the peer does, and says how far they may go.

use metaservice_egress::http::{MAX_HEAD, Requests};
use metaservice_egress::tls::{Hellos, InvalidHello};
use metaservice_egress::{Attempt, Rule, Target};

/// The port of TLS, whose ClientHellos are read.
const TLS_PORT: u16 = 443;
/// The port of HTTP, whose requests are read.
const HTTP_PORT: u16 = 80;

/// How a connection is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inspection {
    /// It is not.
    None,
    /// A readable name in a ClientHello must be the right one.
    AnyTls,
    /// Each ClientHello must have the right name.
    Tls,
    /// Each request must be for the right name.
    Http,
}

impl Inspection {
    /// The check for an attempt that this rule allows.
    pub(crate) fn of(rule: &Rule, attempt: &Attempt) -> Self {
        match attempt.port {
            _ if !rule.is_of_names() || !matches!(attempt.target, Target::Name(_)) => Self::None,
            TLS_PORT if rule.accepts_any_sni() => Self::AnyTls,
            TLS_PORT => Self::Tls,
            HTTP_PORT => Self::Http,
            _ => Self::None,
        }
    }

    /// Whether this check is at least as strict as the other one.
    pub(crate) fn covers(self, other: Self) -> bool {
        self == other || other == Self::None || (self, other) == (Self::Tls, Self::AnyTls)
    }
}

/// The bytes of the guest are not for the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection is not for the name that was allowed")]
pub(crate) struct WrongName;

/// Follows one connection.
#[derive(Debug)]
pub(crate) enum Inspector {
    /// Everything may pass.
    Open,
    /// ClientHellos. The flag: other bytes may pass too.
    Tls(Hellos, bool),
    /// Requests, and the first bytes of the peer as long as they may be asked for.
    Http(Box<Requests>, Option<Vec<u8>>),
}

impl Inspector {
    pub(crate) fn new(inspection: Inspection, attempt: &Attempt) -> Self {
        let Target::Name(name) = &attempt.target else { return Self::Open };
        match inspection {
            Inspection::None => Self::Open,
            Inspection::AnyTls => Self::Tls(Hellos::new(name.clone(), true), true),
            Inspection::Tls => Self::Tls(Hellos::new(name.clone(), false), false),
            Inspection::Http => {
                Self::Http(Box::new(Requests::new(name.clone(), attempt.port)), Some(Vec::new()))
            }
        }
    }

    /// Whether the guest must wait until the peer has answered.
    pub(crate) fn awaits_peer(&self) -> bool {
        matches!(self, Self::Http(requests, _) if requests.awaits_response())
    }

    /// How many of these bytes of the guest may go to the peer. The others are given again, with
    /// those that follow. There are never more than [`MAX_HEAD`] of them that must wait.
    pub(crate) fn guest(&mut self, bytes: &[u8]) -> Result<usize, WrongName> {
        match self {
            Self::Open => Ok(bytes.len()),
            Self::Tls(hellos, any) => match hellos.scan(bytes) {
                Ok(forward) => Ok(forward),
                Err(InvalidHello::OtherName(_)) => Err(WrongName),
                Err(_) if *any => {
                    *self = Self::Open;
                    Ok(bytes.len())
                }
                Err(_) => Err(WrongName),
            },
            Self::Http(requests, early) => {
                let forward = requests.scan(bytes).map_err(|_| WrongName)?.forward;
                // Only the first request can make the response matter.
                if forward > 0 && !requests.awaits_response() {
                    *early = None;
                }
                Ok(forward)
            }
        }
    }

    /// Sees bytes of the peer.
    pub(crate) fn peer(&mut self, bytes: &[u8]) {
        let Self::Http(requests, early) = self else { return };
        let Some(seen) = early else { return };
        let room = MAX_HEAD.saturating_sub(seen.len());
        seen.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if requests.awaits_response() && requests.response(seen) {
            *early = None;
        }
    }
}

#[cfg(test)]
#[path = "inspect_tests.rs"]
mod tests;
