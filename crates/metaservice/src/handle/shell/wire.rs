//! A websocket, whichever library made it: axum's on the service's side, tungstenite's
//! where we dial.

use std::pin::Pin;

use axum::extract::ws;
use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt, future};
use metaservice_protocol::shell::StreamProtocol;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{WebSocketStream, tungstenite};

use crate::job::session::Admitted;

/// What the pump says and hears.
#[derive(Debug)]
pub(super) enum Message {
    Binary(Bytes),
    Ping,
    /// The stream has ended in order.
    Close,
    /// A sign of life that says nothing.
    Other,
}

/// What came, until the websocket ends or breaks.
pub(super) type Receiver = Pin<Box<dyn Stream<Item = Message> + Send>>;

/// What goes; a failure says no more than that nothing goes any longer.
pub(super) type Sender = Pin<Box<dyn Sink<Message, Error = Closed> + Send>>;

/// The websocket takes nothing any longer.
#[derive(Debug)]
pub(super) struct Closed;

/// Both directions of a websocket.
pub(crate) struct Wire {
    pub(super) sender: Sender,
    pub(super) receiver: Receiver,
    /// Among the streams that a guest may have; free again when this is dropped.
    pub(super) place: Option<OwnedSemaphorePermit>,
    /// The guest's leave to answer, with which the stream ends.
    pub(super) admitted: Admitted,
}

/// A stream as the guest has dialled it.
pub(crate) struct Connected {
    pub(crate) socket: ws::WebSocket,
    pub(crate) protocol: StreamProtocol,
    pub(crate) place: OwnedSemaphorePermit,
    pub(crate) admitted: Admitted,
}

impl Wire {
    pub(crate) fn from_axum(
        socket: ws::WebSocket,
        place: OwnedSemaphorePermit,
        admitted: Admitted,
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
        let place = Some(place);
        Self { sender: Box::pin(sender), receiver: Box::pin(receiver), place, admitted }
    }

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
        let admitted = Admitted::always();
        Self { sender: Box::pin(sender), receiver: Box::pin(receiver), place: None, admitted }
    }
}
