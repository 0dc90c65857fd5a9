//! The files that the guest gets before the command, and the command's start after that.

use std::sync::Arc;

use metaservice::ActionError;

use super::{Driver, Message};
use crate::copy_in::{self, CopyInError};
use crate::event::Event;
use crate::life::{Input, State};

impl Driver {
    /// Copies files into the guest, unless an earlier service of the job has done it.
    pub(super) fn copy_in(&mut self) {
        let progress = &self.parts.progress;
        let message = match (progress.is_started(), progress.is_copied()) {
            (true, _) => Message::CommandStarted(Ok(())),
            (false, true) => Message::Copied(Ok(())),
            (false, false) => {
                let (job, service) = (Arc::clone(&self.parts.job), self.parts.service.clone());
                let events = self.parts.events.clone();
                let report = move |news| {
                    events.send(match news {
                        copy_in::News::Copying { copy, progress } => {
                            Event::CopyingIn { copy, progress }
                        }
                        copy_in::News::Copied { copy, content } => {
                            Event::CopiedIn { copy, content }
                        }
                    });
                };
                let copying = async move {
                    Some(Message::Copied(copy_in::run(&job, &service, report).await))
                };
                self.copying_in = Some(self.spawn(copying));
                return;
            }
        };
        let _ = self.sender.send(message);
    }

    /// The files are in place, or are not: then the command is not started.
    pub(super) fn copied(&mut self, copied: Result<(), CopyInError>) {
        if self.life.state() != State::CopyingIn {
            return;
        }
        let copied = copied.and_then(|()| Ok(self.parts.progress.copied()?));
        match copied {
            Err(error) => self.not_copied_in(error),
            Ok(()) => {
                let service = self.parts.service.clone();
                let starting =
                    async move { Some(Message::CommandStarted(service.start_command().await)) };
                self.copying_in = Some(self.spawn(starting));
            }
        }
    }

    pub(super) fn command_started(&mut self, started: Result<(), ActionError>) {
        if self.life.state() != State::CopyingIn {
            return;
        }
        let started = started.map_err(CopyInError::Start);
        match started.and_then(|()| Ok(self.parts.progress.started()?)) {
            Err(error) => self.not_copied_in(error),
            Ok(()) => {
                self.handle(Input::CopiedIn);
                self.started();
            }
        }
    }

    fn not_copied_in(&mut self, error: CopyInError) {
        self.report_event(Event::NotCopiedIn(error));
        self.handle(Input::CopyInFailed);
    }
}
