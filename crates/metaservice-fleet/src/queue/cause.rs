//! The likely cause of an error of the connection: a wrong address, say.

use std::error::Error;
use std::io;

use async_nats::ConnectErrorKind;
use async_nats::jetstream::context::CreateStreamErrorKind;

use super::error::ConnectError;

/// The likely cause of an error of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// No server listens at the address.
    Refused,
    /// The host has no address.
    Name,
    /// No server answers: it is a server of something else, or a firewall drops the connection.
    Silent,
    /// The server does not speak TLS.
    Plain,
    /// The certificate of the server is signed by no authority that is known here.
    Authority,
    /// The certificate of the server is for another name.
    OtherName,
    /// The file of certificates cannot be used.
    CaFile,
    /// The user, the password or the credentials are wrong or missing.
    Credentials,
    /// The server has no JetStream.
    JetStream,
}

impl ConnectError {
    /// The likely cause, if it is one that is known.
    #[must_use]
    pub fn likely(&self) -> Option<Cause> {
        match self {
            Self::Server { cause, .. } => match cause.kind() {
                ConnectErrorKind::Dns => Some(Cause::Name),
                ConnectErrorKind::TimedOut => Some(Cause::Silent),
                ConnectErrorKind::Tls => Some(Cause::CaFile),
                ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                    Some(Cause::Credentials)
                }
                ConnectErrorKind::Io => of_io(cause),
                _ => None,
            },
            Self::Stream(error) => match error.kind() {
                CreateStreamErrorKind::JetStreamUnavailable => Some(Cause::JetStream),
                CreateStreamErrorKind::JetStream(error) => {
                    let is_off = error.code() == 503;
                    is_off.then_some(Cause::JetStream)
                }
                _ => None,
            },
            _ => None,
        }
    }
}

fn of_io(error: &(dyn Error + 'static)) -> Option<Cause> {
    let mut error = error;
    let io = loop {
        match error.downcast_ref::<io::Error>() {
            Some(io) => break io,
            None => error = error.source()?,
        }
    };
    if io.kind() == io::ErrorKind::ConnectionRefused {
        return Some(Cause::Refused);
    }
    // The types of the TLS library are those of the client library's version of it.
    let text = io.to_string();
    let causes = [
        ("InvalidContentType", Cause::Plain),
        ("UnknownIssuer", Cause::Authority),
        ("not valid for name", Cause::OtherName),
    ];
    causes.into_iter().find(|(word, _)| text.contains(word)).map(|(_, cause)| cause)
}
