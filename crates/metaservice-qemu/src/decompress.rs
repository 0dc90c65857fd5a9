//! Decompression by the programs of the host: `xz`, `zstd`, `gzip`, `lz4`.

use std::io::{self, Read};
use std::process::{Command, Stdio};

/// Runs `tool -dc` on an input.
///
/// # Errors
/// If the tool cannot run or writes nothing, and if it writes more than `limit` bytes.
pub(crate) fn decompress(tool: &str, input: Stdio, limit: u64) -> io::Result<Vec<u8>> {
    let mut child = Command::new(tool)
        .arg("-dc")
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut output = Vec::new();
    let read = match child.stdout.take() {
        Some(stdout) => stdout.take(limit + 1).read_to_end(&mut output),
        None => Err(io::ErrorKind::BrokenPipe.into()),
    };
    let too_large = output.len() as u64 > limit;
    if too_large {
        let _ = child.kill();
    }
    let status = child.wait()?;
    read?;
    if too_large {
        let error = format!("more than {limit} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, error));
    }
    // The payload of a kernel image has bytes after its end. xz and zstd report them as an error,
    // although the output is complete. The caller knows the size that it expects.
    if !status.success() && output.is_empty() {
        return Err(io::Error::other(format!("{tool} ended with {status}")));
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn an_output_at_the_limit_is_read_and_above_it_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("zeros");
        fs::write(&path, vec![0; 100_000]).unwrap();
        assert!(Command::new("gzip").arg(&path).status().unwrap().success());
        let open = || fs::File::open(directory.path().join("zeros.gz")).unwrap().into();
        assert_eq!(decompress("gzip", open(), 100_000).unwrap().len(), 100_000);
        let error = decompress("gzip", open(), 99_999).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }
}
