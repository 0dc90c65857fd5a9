//! The guest's side of the raw streams: this program, run in the machine.
//!
//! Owns the least work that fills or empties a TCP connection: large pieces, one buffer, and the
//! bytes are not used.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

/// The size of a piece, on both sides.
pub(super) const PIECE: usize = 256 * 1024;

/// The task of the program in the guest.
#[derive(clap::Subcommand)]
pub(crate) enum Part {
    /// Send this number of bytes, and wait until the other end has read them.
    Flood { address: String, bytes: u64 },
    /// Send standard input, and wait until the other end has read it.
    Relay { address: String },
    /// Request this number of bytes, and discard them.
    Receive { address: String, bytes: u64 },
}

/// Does the task. The other end measures the time.
pub(crate) fn play(part: &Part) -> anyhow::Result<()> {
    let mut piece = vec![0x5a; PIECE];
    match part {
        Part::Flood { address, bytes } => {
            let mut stream = TcpStream::connect(address)?;
            let mut left = *bytes;
            while left > 0 {
                let count = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
                stream.write_all(&piece[..count])?;
                left -= count as u64;
            }
            stream.shutdown(Shutdown::Write)?;
            stream.read_to_end(&mut Vec::new())?;
        }
        Part::Relay { address } => {
            let mut stream = TcpStream::connect(address)?;
            let mut input = std::io::stdin().lock();
            loop {
                match input.read(&mut piece)? {
                    0 => break,
                    count => stream.write_all(&piece[..count])?,
                }
            }
            stream.shutdown(Shutdown::Write)?;
            stream.read_to_end(&mut Vec::new())?;
        }
        Part::Receive { address, bytes } => {
            let mut stream = TcpStream::connect(address)?;
            stream.write_all(&bytes.to_be_bytes())?;
            let mut left = *bytes;
            while left > 0 {
                let count = stream.read(&mut piece)?;
                anyhow::ensure!(count > 0, "{left} bytes are missing");
                left -= count as u64;
            }
        }
    }
    Ok(())
}
