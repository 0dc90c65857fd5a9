//! Measures the limit of the machine: bytes over a loopback connection, one thread on each side.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

/// The buffer sizes that are tried. The best one counts.
const BUFFERS: [usize; 3] = [64 * 1024, 256 * 1024, 1024 * 1024];

/// The rate of a transfer that began at `since`, in MB/s.
pub(super) fn rate(bytes: u64, since: Instant) -> f64 {
    bytes as f64 / 1e6 / since.elapsed().as_secs_f64()
}

/// The buffer size with which a copy is fastest on this machine.
pub(super) fn best_buffer(bytes: u64) -> anyhow::Result<usize> {
    let mut best = (0.0, BUFFERS[0]);
    for buffer in BUFFERS {
        for _ in 0..2 {
            let rate = copy(bytes, buffer)?;
            if rate > best.0 {
                best = (rate, buffer);
            }
        }
    }
    Ok(best.1)
}

/// The rate of plain `write` and `read` over a connection, in MB/s. The bytes are not used.
pub(super) fn copy(bytes: u64, buffer: usize) -> anyhow::Result<f64> {
    transfer(bytes, buffer, |mut stream| {
        let mut room = vec![0; buffer];
        while stream.read(&mut room)? > 0 {}
        Ok(())
    })
}

/// The rate from a file to a file, both in memory, over a connection, in MB/s.
pub(super) fn copy_file(
    from: &std::path::Path,
    into: &std::path::Path,
    buffer: usize,
) -> anyhow::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let mut file = File::open(from)?;
    let bytes = file.metadata()?.len();
    let begun = Instant::now();
    let sender = thread::spawn(move || -> io::Result<()> {
        let mut stream = TcpStream::connect(address)?;
        let mut room = vec![0; buffer];
        loop {
            match file.read(&mut room)? {
                0 => return Ok(()),
                count => stream.write_all(&room[..count])?,
            }
        }
    });
    let mut stream = listener.accept()?.0;
    let mut file = tempfile::tempfile_in(into)?;
    let mut room = vec![0; buffer];
    loop {
        match stream.read(&mut room)? {
            0 => break,
            count => file.write_all(&room[..count])?,
        }
    }
    sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
    Ok(rate(bytes, begun))
}

fn transfer(
    bytes: u64,
    buffer: usize,
    receive: impl FnOnce(TcpStream) -> io::Result<()>,
) -> anyhow::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let begun = Instant::now();
    let sender = thread::spawn(move || -> io::Result<()> {
        let mut stream = TcpStream::connect(address)?;
        let room = vec![7; buffer];
        let mut left = bytes;
        while left > 0 {
            let count = room.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            stream.write_all(&room[..count])?;
            left -= count as u64;
        }
        Ok(())
    });
    receive(listener.accept()?.0)?;
    sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
    Ok(rate(bytes, begun))
}

/// The rate of bytes that a process writes into a pipe and a thread copies to a connection, in
/// MB/s: the minimum cost of moving the output of a command to another process.
pub(super) fn copy_piped(bytes: u64, buffer: usize) -> anyhow::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let mut writer = super::source(bytes).stdout(std::process::Stdio::piped()).spawn()?;
    let mut pipe = writer.stdout.take().expect("it is piped");
    let _ = rustix::pipe::fcntl_setpipe_size(&pipe, 1024 * 1024);
    let begun = Instant::now();
    let sender = thread::spawn(move || -> io::Result<()> {
        let mut stream = TcpStream::connect(address)?;
        let mut room = vec![0; buffer];
        loop {
            match pipe.read(&mut room)? {
                0 => return Ok(()),
                count => stream.write_all(&room[..count])?,
            }
        }
    });
    let mut stream = listener.accept()?.0;
    let mut room = vec![0; buffer];
    while stream.read(&mut room)? > 0 {}
    let rate = rate(bytes, begun);
    sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
    writer.wait()?;
    Ok(rate)
}
