//! The resolver, for connections of TCP (RFC 7766). Datagrams are answered without a task.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use metaservice_egress::dns::MAX_QUERY;
use metaservice_nic::Attempt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::shared::Shared;

/// The port of DNS, at any address.
pub(crate) const PORT: u16 = 53;

/// How long a connection may take for its next question, and for its answer.
const IDLE: Duration = Duration::from_secs(10);

/// Answers the questions of a connection, with its place among them.
pub(crate) async fn serve(shared: Arc<Shared>, attempt: Attempt, _place: OwnedSemaphorePermit) {
    let Ok(Ok(mut connection)) = timeout(IDLE, attempt.accept()).await else { return };
    if let Err(error) = converse(&shared, &mut connection).await {
        tracing::debug!(%error, "a connection to the resolver was cut");
        connection.reset();
    }
}

async fn converse(
    shared: &Shared,
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> io::Result<()> {
    loop {
        let Some(question) = timeout(IDLE, question(stream)).await?? else { return Ok(()) };
        let Some(answer) = shared.ask(&question) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let message = [&length.to_be_bytes()[..], &answer].concat();
        timeout(IDLE, stream.write_all(&message)).await??;
    }
}

/// The next question. `None`: the guest asks no more.
async fn question(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) => usize::from(length),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if length > MAX_QUERY {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut question = vec![0; length];
    stream.read_exact(&mut question).await?;
    Ok(Some(question))
}
