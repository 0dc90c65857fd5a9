//! A websocket of axum (towards the guest) or tungstenite (towards a control server).

use std::pin::Pin;

use axum::extract::ws;
use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt, future};
use metaservice_protocol::shell::StreamProtocol;
#[cfg(feature = "control")]
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
#[cfg(feature = "control")]
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
#[cfg(feature = "control")]
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
#[cfg(feature = "control")]
use tokio_tungstenite::{WebSocketStream, tungstenite};

use crate::job::session::Authorization;

/// A message of the pump.
#[derive(Debug)]
pub(super) enum Message {
    Binary(Bytes),
    Ping,
    /// The stream has ended normally.
    Close,
    /// A message without content for the stream.
    Other,
}

/// The messages received, until the websocket ends or breaks.
pub(super) type Receiver = Pin<Box<dyn Stream<Item = Message> + Send>>;

/// The messages to send.
pub(super) type Sender = Pin<Box<dyn Sink<Message, Error = Closed> + Send>>;

/// The websocket accepts no further message.
#[derive(Debug)]
pub(super) struct Closed;

/// Both directions of a websocket.
pub(crate) struct Socket {
    pub(super) sender: Sender,
    pub(super) receiver: Receiver,
    /// One of the streams that may be open, until this is dropped. `None`: it does not count.
    pub(super) permit: Option<OwnedSemaphorePermit>,
    /// The stream ends with this.
    pub(super) authorization: Authorization,
}

/// A stream that the guest has connected, before anything was read or sent.
pub(crate) struct Connected {
    pub(crate) socket: ws::WebSocket,
    pub(crate) protocol: StreamProtocol,
    pub(crate) permit: OwnedSemaphorePermit,
    pub(crate) authorization: Authorization,
}

impl Socket {
    pub(crate) fn from_axum(
        socket: ws::WebSocket,
        permit: Option<OwnedSemaphorePermit>,
        authorization: Authorization,
    ) -> Self {
        let (sink, stream) = socket.split();
        let receiver = stream.scan((), |(), message| {
            future::ready(match message {
                Ok(ws::Message::Binary(message)) => Some(Message::Binary(message)),
                Ok(_) => Some(Message::Other),
                Err(_) => None,
            })
        });
        let sender = sink.sink_map_err(|_| Closed).with(|message| {
            future::ready(Ok(match message {
                Message::Binary(message) => ws::Message::Binary(message),
                Message::Close => ws::Message::Close(Some(ws::CloseFrame {
                    code: ws::close_code::NORMAL,
                    reason: ws::Utf8Bytes::default(),
                })),
                Message::Ping | Message::Other => ws::Message::Ping(Bytes::new()),
            }))
        });
        Self { sender: Box::pin(sender), receiver: Box::pin(receiver), permit, authorization }
    }

    #[cfg(feature = "control")]
    pub(crate) fn from_tungstenite<IO>(socket: WebSocketStream<IO>) -> Self
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sink, stream) = socket.split();
        let receiver = stream.scan((), |(), message| {
            future::ready(match message {
                Ok(tungstenite::Message::Binary(message)) => Some(Message::Binary(message)),
                Ok(_) => Some(Message::Other),
                Err(_) => None,
            })
        });
        let sender = sink.sink_map_err(|_| Closed).with(|message| {
            future::ready(Ok(match message {
                Message::Binary(message) => tungstenite::Message::Binary(message),
                Message::Close => tungstenite::Message::Close(Some(CloseFrame {
                    code: CloseCode::Normal,
                    reason: tungstenite::Utf8Bytes::default(),
                })),
                Message::Ping | Message::Other => tungstenite::Message::Ping(Bytes::new()),
            }))
        });
        let authorization = Authorization::unlimited();
        Self { sender: Box::pin(sender), receiver: Box::pin(receiver), permit: None, authorization }
    }
}
