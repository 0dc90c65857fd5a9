//! The guests of a crowd: one process sends the bytes that their agents would send.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

/// Bytes of a line.
pub(super) const LINE: usize = 80;

/// The headers of an agent of this project.
const HEADERS: &str = "Host: 169.254.169.254\r\nConnection: close\r\n\
    Metaservice-Agent: {\"version\":\"0.1.0\",\"os\":\"linux\",\"arch\":\"x86_64\",\"kernel\":\"6.1.0\",\
    \"capabilities\":[\"exec\",\"dial\",\"read\",\"write\",\"list\",\"stats\",\"signal\",\"terminal\"]}\r\n";

/// The number of connections that are opened concurrently.
const AT_ONCE: usize = 64;

/// How often the spread is sampled while lines are sent.
const LOOKS: usize = 10;

/// The log of each guest: the number of lines and their interval.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lines {
    pub(super) each: usize,
    pub(super) every: Duration,
}

/// A host process and its guests.
pub(super) struct Crowd {
    host: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    port: u16,
    jobs: usize,
    runtime: Runtime,
}

impl Drop for Crowd {
    fn drop(&mut self) {
        drop(self.questions.take());
        let _ = self.host.kill();
        let _ = self.host.wait();
    }
}

impl Crowd {
    pub(super) fn start(jobs: usize) -> anyhow::Result<Self> {
        let mut host = Command::new(std::env::current_exe()?)
            .args(["crowd-host", &jobs.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let questions = host.stdin.take();
        let mut answers = BufReader::new(host.stdout.take().context("it is piped")?);
        let mut line = String::new();
        answers.read_line(&mut line)?;
        let port = line.trim().parse().context("the host of the crowd does not start")?;
        Ok(Self { host, questions, answers, port, jobs, runtime: Runtime::new()? })
    }

    /// The host's process.
    pub(super) fn process(&self) -> u32 {
        self.host.id()
    }

    /// Waits while the guests continue.
    pub(super) fn wait(&self, time: Duration) {
        // The timer must be created inside of the runtime.
        self.runtime.block_on(async { tokio::time::sleep(time).await });
    }

    /// Sends a question to the host and returns its answer.
    pub(super) fn ask(&mut self, question: &str) -> anyhow::Result<String> {
        let questions = self.questions.as_mut().context("the host is gone")?;
        writeln!(questions, "{question}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    /// The minimum and maximum number of lines received from a guest, and the total.
    pub(super) fn delivered(&mut self) -> anyhow::Result<(u64, u64, u64)> {
        let answer = self.ask("delivered")?;
        let numbers: Result<Vec<u64>, _> = answer.split(' ').map(str::parse).collect();
        match numbers?[..] {
            [least, most, all] => Ok((least, most, all)),
            _ => anyhow::bail!("the host says {answer:?}"),
        }
    }

    /// Starts polling in each guest. Each answers its actions. Returns when all polls wait.
    pub(super) fn poll(&mut self) -> anyhow::Result<()> {
        let (port, jobs) = (self.port, u32::try_from(self.jobs)?);
        self.runtime.block_on(async {
            let permits = Arc::new(Semaphore::new(AT_ONCE));
            for job in 0..jobs {
                let permit = Arc::clone(&permits).acquire_owned().await?;
                tokio::spawn(async move {
                    let first = begin(port, job, &poll_request()).await;
                    drop(permit);
                    if let Ok(first) = first {
                        let _ = serve(port, job, first).await;
                    }
                });
            }
            let _all = permits.acquire_many(u32::try_from(AT_ONCE)?).await?;
            // The host still reads the last requests.
            tokio::time::sleep(Duration::from_millis(500)).await;
            Ok(())
        })
    }

    /// Sends log lines from each guest. Returns the time that it took, and the worst spread.
    pub(super) fn log(&mut self, lines: Lines) -> anyhow::Result<(Duration, f64)> {
        let (port, jobs) = (self.port, self.jobs);
        let mut streams = self.runtime.block_on(async {
            let mut streams = Vec::with_capacity(jobs);
            for job in 0..u32::try_from(jobs)? {
                let head = format!(
                    "POST /engine/v1/log HTTP/1.1\r\n{HEADERS}Transfer-Encoding: chunked\r\n\r\n"
                );
                streams.push(begin(port, job, &head).await?);
            }
            anyhow::Ok(streams)
        })?;
        let line = format!("{LINE:x}\r\n{}\n\r\n", "x".repeat(LINE - 1));
        let (begun, mut spread) = (Instant::now(), 1.0_f64);
        for number in 1..=lines.each {
            self.runtime.block_on(async {
                for stream in &mut streams {
                    stream.write_all(line.as_bytes()).await?;
                }
                let due = begun + lines.every * u32::try_from(number)?;
                tokio::time::sleep_until(due.into()).await;
                anyhow::Ok(())
            })?;
            if number % (lines.each / LOOKS) == 0 {
                let (least, most, _) = self.delivered()?;
                spread = spread.max(most as f64 / least as f64);
            }
        }
        Ok((begun.elapsed(), spread))
    }
}

fn poll_request() -> String {
    format!("GET /engine/v1/poll HTTP/1.1\r\n{HEADERS}\r\n")
}

/// Opens a connection to a job and sends a request.
async fn begin(port: u16, job: u32, request: &str) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let mut bytes = job.to_be_bytes().to_vec();
    bytes.extend_from_slice(request.as_bytes());
    stream.write_all(&bytes).await?;
    Ok(stream)
}

/// Answers actions until the host ends.
async fn serve(port: u16, job: u32, mut poll: TcpStream) -> std::io::Result<()> {
    loop {
        let mut answer = String::new();
        poll.read_to_string(&mut answer).await?;
        if !answer.contains("\"none\"")
            && let Some((_, rest)) = answer.split_once("\"id\":\"")
            && let Some((id, _)) = rest.split_once('"')
        {
            let request = format!(
                "POST /engine/v1/reply?id={id} HTTP/1.1\r\n{HEADERS}Content-Length: 0\r\n\r\n"
            );
            let mut reply = begin(port, job, &request).await?;
            reply.read_to_string(&mut String::new()).await?;
        }
        poll = begin(port, job, &poll_request()).await?;
    }
}
