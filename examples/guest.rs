//! A guest in fifty lines that uses only sockets: it fetches the job, runs it, streams its output
//! as the log, and reports the result. It answers no actions.
//!
//!     cargo run -p metaservice-examples --bin guest -- 169.254.169.254:80

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use metaservice_protocol::{Endpoint, Execute};

fn main() -> Result<(), Box<dyn Error>> {
    let host = std::env::args().nth(1).unwrap_or_else(|| "169.254.169.254:80".into());
    let execute = answer(ask(&host, "GET", Endpoint::Execute, "")?)?;
    let Execute { command, env, .. } = serde_json::from_slice(&execute)?;

    let (program, arguments) = command.split_first().ok_or("there is nothing to run")?;
    let mut child =
        Command::new(program).args(arguments).envs(env).stdout(Stdio::piped()).spawn()?;
    let mut output = child.stdout.take().ok_or("the command has no output")?;

    // The log is one request of unknown length. It is open while the command runs.
    let mut log = ask(&host, "POST", Endpoint::Log, "Transfer-Encoding: chunked\r\n")?;
    let mut buffer = [0; 16 * 1024];
    loop {
        let count = output.read(&mut buffer)?;
        write!(log, "{count:x}\r\n")?;
        log.write_all(&buffer[..count])?;
        log.write_all(b"\r\n")?;
        if count == 0 {
            break;
        }
    }
    answer(log)?;

    let success = child.wait()?.success();
    let endpoint = if success { Endpoint::Success } else { Endpoint::Failed };
    answer(ask(&host, "PUT", endpoint, "Content-Length: 0\r\n")?)?;
    Ok(())
}

fn ask(host: &str, method: &str, endpoint: Endpoint, headers: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(host)?;
    let path = endpoint.path();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n"
    )?;
    Ok(stream)
}

fn answer(mut stream: TcpStream) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or("no HTTP answer")?;
    let ok = answer.starts_with(b"HTTP/1.1 200 ");
    if ok { Ok(answer.split_off(head + 4)) } else { Err("the service refused".into()) }
}
