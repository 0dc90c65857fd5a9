//! The state that the parts of a stream share.

use std::sync::{Mutex, MutexGuard};
use std::task::Waker;

use bytes::Bytes;
use metaservice_private::lock;
use metaservice_protocol::shell::{Role, ShellSession, Stream, StreamProtocol};
use tokio::sync::{Notify, watch};

use crate::handle::error::ChildError;

pub(super) struct StreamState {
    pub(super) session: ShellSession,
    /// Who waits for a stream to become readable or writable, by stream number.
    pub(super) wakers: [Option<Waker>; 3],
    /// Outputs without a reader: their bytes are discarded.
    pub(super) discarded: [bool; 3],
    pub(super) ping_due: bool,
    /// The details of the exit, in addition to success or failure; at most
    /// [`MAX_FAILURE`](metaservice_protocol::limits::MAX_FAILURE) bytes.
    pub(super) detail: Bytes,
    /// The guest has reported the command's end.
    pub(super) exited: bool,
    /// No further message is sent or received.
    pub(super) closed: bool,
}

impl StreamState {
    pub(super) fn wake(&mut self, stream: Stream) {
        if let Some(waker) = self.wakers[usize::from(stream.number())].take() {
            waker.wake();
        }
    }
}

pub(super) struct Shared {
    state: Mutex<StreamState>,
    /// The session may have something to send.
    pub(super) outgoing: Notify,
    pub(super) end: watch::Sender<Option<Result<bool, ChildError>>>,
}

impl Shared {
    pub(super) fn new(protocol: StreamProtocol) -> Self {
        let state = StreamState {
            session: ShellSession::with_protocol(Role::Host, protocol),
            detail: Bytes::new(),
            wakers: [const { None }; 3],
            discarded: [false; 3],
            ping_due: false,
            exited: false,
            closed: false,
        };
        let end = watch::Sender::new(None);
        Self { state: Mutex::new(state), outgoing: Notify::new(), end }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, StreamState> {
        lock(&self.state)
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut StreamState)) {
        change(&mut self.lock());
        self.outgoing.notify_one();
    }

    /// Records the end. The first one counts; returns `false` for a later one.
    pub(super) fn finish(&self, end: Result<bool, ChildError>) -> bool {
        let first = self.end.send_if_modified(|current| {
            let first = current.is_none();
            current.get_or_insert(end);
            first
        });
        if first {
            let mut state = self.lock();
            Stream::ALL.into_iter().for_each(|stream| state.wake(stream));
        }
        first
    }

    pub(super) fn is_over(&self) -> bool {
        self.end.borrow().is_some()
    }

    /// The error with which the standard streams ended. `None` while they are open, and after an
    /// end without an error.
    pub(super) fn error(&self) -> Option<ChildError> {
        self.end.borrow().and_then(Result::err)
    }
}
