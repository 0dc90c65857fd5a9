//! Tests of one connection, without a server. The time is simulated.

use futures_util::stream;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::super::flow::{Side, WINDOW};
use super::super::frame::Frame;
use super::*;

/// Sends to a channel.
struct Channel(mpsc::UnboundedSender<Incoming>);

impl Link for Channel {
    async fn send(&self, message: Bytes) -> Result<(), Reason> {
        self.0.send(Incoming::Message(message)).map_err(|_| Reason::Silent)
    }
}

type Ends = (mpsc::UnboundedSender<Incoming>, mpsc::UnboundedReceiver<Incoming>);

/// A client whose other side is this test: its stream, its messages and its end.
fn client(size: usize) -> (DuplexStream, Ends, JoinHandle<Result<(), Reason>>) {
    let (near, far) = tokio::io::duplex(size);
    let (sender, from_client) = mpsc::unbounded_channel();
    let (to_client, mut receiver) = mpsc::unbounded_channel();
    let running = tokio::spawn(async move {
        let over = CancellationToken::new();
        let link = Channel(sender);
        let messages = stream::poll_fn(move |context| receiver.poll_recv(context));
        let mut flow = Flow::new(Side::Client);
        link.send(flow.open()).await?;
        let connecting = std::future::ready(Ok(far));
        Pump::new(flow, &link, messages, &over).run(connecting, Opening::Done).await
    });
    (near, (to_client, from_client), running)
}

/// The number and the content of the next message, without those that say that a side is there.
async fn next(messages: &mut mpsc::UnboundedReceiver<Incoming>) -> Frame {
    loop {
        let Some(Incoming::Message(message)) = messages.recv().await else { panic!("it ended") };
        let (_, frame) = Frame::decode(&message).unwrap();
        if frame != Frame::Ping {
            return frame;
        }
    }
}

fn data(bytes: &'static [u8], number: u64) -> Incoming {
    Incoming::Message(Frame::Data(Bytes::from_static(bytes)).encode(number))
}

#[tokio::test(start_paused = true)]
async fn a_side_that_sends_nothing_is_gone_after_its_time() {
    let (_near, (_to, mut from), running) = client(64);
    let began = Instant::now();
    assert_eq!(next(&mut from).await, Frame::Open);
    assert_eq!(next(&mut from).await, Frame::Reset(Reason::Silent));
    assert_eq!(running.await.unwrap(), Err(Reason::Silent));
    assert_eq!(began.elapsed(), SILENCE);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_lives_while_both_sides_are_there() {
    let (_near, (to, mut from), running) = client(64);
    for number in 0..20 {
        let Some(Incoming::Message(message)) = from.recv().await else { panic!("it ended") };
        assert_eq!(Frame::decode(&message).unwrap().0, number);
        to.send(Incoming::Message(Frame::Ping.encode(number))).unwrap();
    }
    assert!(!running.is_finished());
    to.send(Incoming::Gone).unwrap();
    assert_eq!(running.await.unwrap(), Err(Reason::Silent));
}

#[tokio::test(start_paused = true)]
async fn what_came_before_the_end_is_passed_on() {
    let (mut near, (to, mut from), running) = client(4);
    to.send(data(b"the last words", 0)).unwrap();
    to.send(Incoming::Message(Frame::Reset(Reason::Ended).encode(1))).unwrap();
    let mut text = String::new();
    near.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "the last words");
    assert_eq!(running.await.unwrap(), Err(Reason::Ended));
    assert_eq!(next(&mut from).await, Frame::Open);
    // Who ended it gets no answer.
    assert!(from.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn each_direction_ends_by_itself() {
    let (mut near, (to, mut from), running) = client(64);
    near.write_all(b"question").await.unwrap();
    near.shutdown().await.unwrap();
    assert_eq!(next(&mut from).await, Frame::Open);
    assert_eq!(next(&mut from).await, Frame::Data(Bytes::from_static(b"question")));
    assert_eq!(next(&mut from).await, Frame::Finish);
    to.send(data(b"answer", 0)).unwrap();
    to.send(Incoming::Message(Frame::Finish.encode(1))).unwrap();
    let mut text = String::new();
    near.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "answer");
    assert_eq!(running.await.unwrap(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_process_is_gone_ends_the_connection() {
    let (near, (to, mut from), running) = client(64);
    drop(near);
    assert_eq!(next(&mut from).await, Frame::Open);
    assert_eq!(next(&mut from).await, Frame::Finish);
    to.send(data(b"not read", 0)).unwrap();
    assert_eq!(next(&mut from).await, Frame::Reset(Reason::Closed));
    assert_eq!(running.await.unwrap(), Err(Reason::Closed));
}

#[tokio::test(start_paused = true)]
async fn a_sender_without_credit_stops() {
    let (mut near, (to, mut from), _running) = client(1024);
    let writing = tokio::spawn(async move { near.write_all(&vec![1; 2 * WINDOW]).await });
    let mut sent = 0;
    assert_eq!(next(&mut from).await, Frame::Open);
    // The messages of a paused time: it stops when nothing is left to do.
    while let Ok(Frame::Data(bytes)) = timeout(KEEP_ALIVE / 2, next(&mut from)).await {
        sent += bytes.len();
    }
    assert!(sent <= WINDOW, "{sent}");
    assert!(!writing.is_finished());
    to.send(Incoming::Message(Frame::Credit(1000).encode(0))).unwrap();
    assert!(matches!(next(&mut from).await, Frame::Data(_)));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_missing_ends_the_connection() {
    let (_near, (to, mut from), running) = client(64);
    to.send(data(b"second", 1)).unwrap();
    assert_eq!(next(&mut from).await, Frame::Open);
    assert_eq!(next(&mut from).await, Frame::Reset(Reason::Lost));
    assert_eq!(running.await.unwrap(), Err(Reason::Lost));
}
