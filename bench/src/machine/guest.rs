//! The guest's side of the raw streams: this program again, in the machine.
//!
//! Owns what is as little as a program can do to fill a TCP connection or to empty one: large
//! pieces, one buffer, nothing looked at.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

/// The size of a piece, on both sides.
pub(super) const PIECE: usize = 256 * 1024;

/// What it is to do.
#[derive(clap::Subcommand)]
pub(crate) enum Part {
    /// Send so many bytes, and wait until they have been taken.
    Flood { address: String, bytes: u64 },
    /// Send what comes from the standard input, and wait until it has been taken.
    Relay { address: String },
    /// Ask for so many bytes, and throw them away.
    Drain { address: String, bytes: u64 },
}

/// Does it. Whoever is at the other end takes the time.
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
        Part::Drain { address, bytes } => {
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
