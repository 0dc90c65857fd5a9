//! Directories of the guest.

use std::fmt;

use metaservice_protocol::shell::StreamProtocol;
use metaservice_protocol::{ActionRequest, DirectoryEntry, List, ListOptions};

use crate::handle::error::{ActionError, ListError};
use crate::handle::lines::Lines;
use crate::handle::service::MetaService;
use crate::job::actions::Received;

/// A directory to be listed; see [`MetaService::list`].
#[must_use = "nothing is listed before `entries` or `files`"]
pub struct ListRequest<'a> {
    service: &'a MetaService,
    path: String,
    recursive: bool,
}

impl MetaService {
    /// A directory of the guest, to be listed.
    ///
    /// ```no_run
    /// # async fn example(service: metaservice::MetaService) -> Result<(), Box<dyn std::error::Error>> {
    /// use futures_util::TryStreamExt;
    ///
    /// let mut entries = service.list("/etc").entries().await?;
    /// while let Some(entry) = entries.try_next().await? {
    ///     println!("{:10} {}", entry.size, entry.path);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn list(&self, path: impl Into<String>) -> ListRequest<'_> {
        ListRequest { service: self, path: path.into(), recursive: false }
    }
}

impl ListRequest<'_> {
    /// Whether to list the entries of subdirectories too, at any depth.
    pub fn recursive(mut self, recursive: bool) -> Self {
        self.recursive = recursive;
        self
    }

    /// The entries with their attributes. They come from the guest: treat the names as text, never
    /// as paths of the host.
    ///
    /// # Errors
    /// [`ListError`]. An agent of version 1 cannot do this.
    pub async fn entries(self) -> Result<Lines<DirectoryEntry>, ListError> {
        let options = ListOptions { recursive: self.recursive };
        let request = ActionRequest::List(List { path: self.path, options });
        Ok(self.service.incoming(request).await.map(Lines::new)?)
    }

    /// The absolute paths of all plain files below the directory, at any depth. Each agent can do
    /// this. The paths come from the guest: treat them as text, never as paths of the host.
    ///
    /// # Errors
    /// [`ListError`]. If the connection breaks, the action is tried three times.
    ///
    /// # Cancellation
    /// Dropping the future withdraws the action.
    pub async fn files(self) -> Result<Vec<String>, ListError> {
        let request = ActionRequest::ListFolder { path: self.path };
        let received = self.service.act(request, StreamProtocol::V2).await;
        match received.map_err(ActionError::from)? {
            Received::Files(files) if files.not_found => Err(ListError::no_directory()),
            Received::Files(files) => Ok(files.files.unwrap_or_default()),
            other => Err(ActionError::Unexpected(other.unexpected()).into()),
        }
    }
}

impl fmt::Debug for ListRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListRequest")
            .field("path", &self.path)
            .field("recursive", &self.recursive)
            .finish_non_exhaustive()
    }
}
