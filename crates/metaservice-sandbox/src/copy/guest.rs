//! What a copy needs of a guest.

use std::pin::Pin;

use metaservice::control::{Client, ClientError, Code, FileBody};
use metaservice::{Destination, FileHead, Form, ListError, MetaService};
use tokio::io::AsyncRead;

use super::error::CopyError;

/// The bytes of a file or an archive.
pub type Body = Pin<Box<dyn AsyncRead + Send>>;

/// A guest: through the service in this process, or through the control socket of its job.
pub trait Guest: Sync {
    /// Reads a file or a directory. Without attributes, it is a file of an agent of version 1.
    fn open(
        &self,
        path: &str,
        follow: bool,
    ) -> impl Future<Output = Result<(Option<FileHead>, Body), CopyError>> + Send;

    /// Writes a file or an archive.
    fn write(
        &self,
        destination: Destination,
        source: Body,
    ) -> impl Future<Output = Result<(), CopyError>> + Send;

    /// Whether a path in the guest is a directory, or a link to one.
    fn is_directory(&self, path: &str) -> impl Future<Output = Result<bool, CopyError>> + Send;
}

impl Guest for MetaService {
    async fn open(&self, path: &str, follow: bool) -> Result<(Option<FileHead>, Body), CopyError> {
        let reading = self.read(path).form(Form::Any).follow(follow).open().await?;
        Ok((reading.head(), Box::pin(reading)))
    }

    async fn write(&self, destination: Destination, source: Body) -> Result<(), CopyError> {
        Ok(Self::write(self, destination, source).await.map(drop)?)
    }

    async fn is_directory(&self, path: &str) -> Result<bool, CopyError> {
        match self.list(format!("{path}/.")).entries().await {
            Ok(_) => Ok(true),
            Err(ListError::NotFound(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Guest for Client {
    async fn open(&self, path: &str, follow: bool) -> Result<(Option<FileHead>, Body), CopyError> {
        let opened = self.read(path).form(Form::Any).follow(follow).open().await?;
        let FileBody { head, body, .. } = opened;
        Ok((head, Box::pin(body)))
    }

    async fn write(&self, destination: Destination, source: Body) -> Result<(), CopyError> {
        Ok(Self::write(self, destination, source).await.map(drop)?)
    }

    async fn is_directory(&self, path: &str) -> Result<bool, CopyError> {
        match self.list(format!("{path}/.")).entries().await {
            Ok(_) => Ok(true),
            Err(ClientError::Refused { code: Code::NotFound, .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
