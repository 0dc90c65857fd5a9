//! The guest's side of the raw streams, and of connections and questions: this program, run in the
//! machine.
//!
//! Owns the least work that fills or empties a TCP connection: large pieces, one buffer, and the
//! bytes are not used. What the guest measures itself, it prints in milliseconds.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::measure::Values;
use crate::statistics::percentile;

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
    /// Connect this number of times in sequence. Each connection carries one byte in each direction
    /// and is closed.
    Connect { address: String, count: usize },
    /// Ask a name server this number of times in sequence for the address of a name.
    Ask { server: String, name: String, count: usize },
    /// Open this number of connections, and keep them until the other end closes them.
    Hold { address: String, count: usize },
    /// The other end of `hold`, on the host: accept this number of connections, and close them when
    /// standard input ends. Print the port, and a line when all have come.
    Keep { count: usize },
}

/// How long an answer to a question may take.
const ANSWER: Duration = Duration::from_secs(5);

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
        Part::Connect { address, count } => report(*count, || converse(address))?,
        Part::Ask { server, name, count } => {
            let socket = resolver(server)?;
            println!("{}", ask(&socket, name)?.context("the name has no address")?);
            report(*count, || ask(&socket, name).map(drop))?;
        }
        Part::Hold { address, count } => {
            let opened: Result<Vec<_>, _> =
                (0..*count).map(|_| TcpStream::connect(address)).collect();
            for mut stream in opened? {
                stream.read_to_end(&mut Vec::new())?;
            }
        }
        Part::Keep { count } => {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            println!("{}", listener.local_addr()?.port());
            let kept: Result<Vec<_>, _> = (0..*count).map(|_| listener.accept()).collect();
            let _kept = kept?;
            println!("all");
            std::io::stdin().read_to_end(&mut Vec::new())?;
        }
    }
    Ok(())
}

/// One short connection, until the other end has answered its byte and closed.
fn converse(address: &str) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"?")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    ensure!(answer.len() == 1, "{} bytes came instead of one", answer.len());
    Ok(())
}

/// Prints [`times`].
fn report(count: usize, turn: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
    for (_, time) in times(count, turn)? {
        println!("{time}");
    }
    Ok(())
}

/// Measures `count` calls after one that does not count: their median and 99th percentile, in
/// milliseconds.
pub(super) fn times(
    count: usize,
    mut turn: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Values> {
    turn()?;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let begun = Instant::now();
        turn()?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let mut of = |rank| percentile(&mut times, rank).context("nothing was measured");
    Ok(vec![("p50", of(0.5)?), ("p99", of(0.99)?)])
}

/// A socket for questions to a name server.
pub(super) fn resolver(server: &str) -> anyhow::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(ANSWER))?;
    Ok(socket)
}

/// Asks for the IPv4 address of a name (RFC 1035, 4.1), and returns what the answer ends with: its
/// last record is an address.
pub(super) fn ask(socket: &UdpSocket, name: &str) -> anyhow::Result<Option<Ipv4Addr>> {
    const HEADER: [u8; 12] = [b'm', b's', 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let mut question = HEADER.to_vec();
    for label in name.split('.') {
        question.push(u8::try_from(label.len())?);
        question.extend_from_slice(label.as_bytes());
    }
    question.extend_from_slice(&[0, 0, 1, 0, 1]);
    socket.send(&question)?;
    let mut answer = [0; 4096];
    let length = socket.recv(&mut answer)?;
    let answer = &answer[..length];
    ensure!(length > HEADER.len() && answer[..2] == HEADER[..2], "it is no answer");
    let records = u16::from_be_bytes([answer[6], answer[7]]);
    Ok(answer.last_chunk().filter(|_| records > 0).map(|octets: &[u8; 4]| Ipv4Addr::from(*octets)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_with_an_address_or_has_none() {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.connect(server.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(ANSWER)).unwrap();
        let serve = std::thread::spawn(move || {
            let mut question = [0; 512];
            for record in [&[192, 0, 2, 7][..], &[]] {
                let (length, from) = server.recv_from(&mut question).unwrap();
                assert_eq!(&question[12..length], b"\x01a\x07example\0\0\x01\0\x01");
                question[7] = u8::from(!record.is_empty());
                server.send_to(&[&question[..length], record].concat(), from).unwrap();
            }
        });
        assert_eq!(ask(&client, "a.example").unwrap(), Some(Ipv4Addr::new(192, 0, 2, 7)));
        assert_eq!(ask(&client, "a.example").unwrap(), None);
        serve.join().unwrap();
    }
}
