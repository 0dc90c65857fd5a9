//! One action, from a request to its reply.

use metaservice_protocol::shell::StreamProtocol;
use metaservice_protocol::{Action, ActionRequest, Capability};

use crate::handle::child::command::Child;
use crate::handle::child::socket::{Connected, Socket};
use crate::handle::error::ActionError;
use crate::handle::service::MetaService;
use crate::job::actions::{Attempt, AttemptError, Received};
use crate::job::body::Incoming;
use crate::job::id::new_id;

impl MetaService {
    /// Has the guest perform an action. If the connection breaks, the action is offered again as
    /// often as the protocol's table allows. A stream has stream protocol `most` or an earlier one.
    pub(crate) async fn act(&self, request: ActionRequest, most: StreamProtocol) -> Attempt {
        let description = request.description();
        let mut attempts = 1;
        loop {
            let action = Action { id: new_id(), request: request.clone() };
            match self.job.actions.submit(action, most).await {
                Err(AttemptError::Transport(cause)) if attempts < description.host_attempts => {
                    tracing::debug!(%cause, attempts, action = description.name, "trying again");
                    attempts += 1;
                }
                outcome => return outcome,
            }
        }
    }

    /// An action whose reply says only that it is done.
    pub(crate) async fn act_done(&self, request: ActionRequest) -> Result<(), ActionError> {
        match self.act(request, StreamProtocol::V2).await? {
            Received::Done => Ok(()),
            other => Err(ActionError::Unexpected(other.unexpected())),
        }
    }

    /// An action whose reply is a websocket.
    pub(crate) async fn socket(
        &self,
        request: ActionRequest,
        most: StreamProtocol,
    ) -> Result<Connected, ActionError> {
        let streams = self.job.limits.streams;
        let permit = self.job.stream_permit().ok_or(ActionError::TooManyStreams(streams))?;
        match self.act(request, most).await? {
            Received::Stream(socket, protocol, authorization) => {
                Ok(Connected { socket: *socket, protocol, permit, authorization })
            }
            other => Err(ActionError::Unexpected(other.unexpected())),
        }
    }

    /// An action whose reply is a stream of stream protocol v2.
    pub(crate) async fn stream(&self, request: ActionRequest) -> Result<Child, ActionError> {
        Ok(self.start_child(self.socket(request, StreamProtocol::V2).await?))
    }

    pub(crate) fn start_child(&self, connected: Connected) -> Child {
        let Connected { socket, protocol, permit, authorization } = connected;
        let socket = Socket::from_axum(socket, Some(permit), authorization);
        Child::start(socket, protocol, self.terminated())
    }

    /// An action whose reply is a body that is read while it arrives.
    pub(crate) async fn incoming(&self, request: ActionRequest) -> Result<Incoming, ActionError> {
        match self.act(request, StreamProtocol::V2).await? {
            Received::Body(incoming) => Ok(*incoming),
            other => Err(ActionError::Unexpected(other.unexpected())),
        }
    }

    /// Whether the agent has announced this capability.
    pub(crate) fn can(&self, capability: Capability) -> bool {
        self.job.can(capability)
    }
}
