//! The first line of a guest on the stdout of a stream that can be resumed.

use serde::de::DeserializeOwned;
use tokio::io::AsyncReadExt;

use super::command::Child;
use crate::handle::error::BoxError;

/// The longest line, in bytes.
const MAX_FIRST_LINE: usize = 256;

/// Why there is no line.
#[derive(Debug)]
pub(crate) enum FirstLineError {
    /// The line is too long, or is not the JSON that it must be.
    Invalid(BoxError),
    /// The stream has ended before: see [`Child::wait`].
    Cut,
}

/// Reads the line, and discards the rest of stdout.
pub(crate) async fn first_line<T: DeserializeOwned>(
    child: &mut Child,
) -> Result<T, FirstLineError> {
    let mut output = child.stdout.take().ok_or(FirstLineError::Cut)?;
    let mut line = Vec::new();
    loop {
        match output.read_u8().await {
            Ok(b'\n') => break,
            Ok(_) if line.len() == MAX_FIRST_LINE => {
                return Err(FirstLineError::Invalid("the first line is too long".into()));
            }
            Ok(byte) => line.push(byte),
            Err(_) => return Err(FirstLineError::Cut),
        }
    }
    serde_json::from_slice(&line).map_err(|error| FirstLineError::Invalid(error.into()))
}
