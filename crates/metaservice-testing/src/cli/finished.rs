//! A run of the tool that has ended.

use std::io::Read;
use std::process::Child;

/// How the tool has ended.
#[derive(Debug)]
pub struct Finished {
    /// The exit code, or `None` if a signal has ended it.
    pub status: Option<i32>,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: String,
}

impl Finished {
    /// Checks the exit code, and returns stdout as text.
    #[track_caller]
    pub fn text(&self, status: i32) -> String {
        assert_eq!(self.status, Some(status), "stderr: {}", self.stderr);
        String::from_utf8(self.stdout.clone()).unwrap()
    }
}

/// Waits until the tool ends, and reads its output meanwhile.
#[track_caller]
pub fn finish(mut child: Child) -> Finished {
    let stdout = child.stdout.take().map(read_all);
    let stderr = child.stderr.take().map(read_all);
    let status = child.wait().unwrap().code();
    let stdout = stdout.map(|reader| reader.join().unwrap()).unwrap_or_default();
    let stderr = stderr.map(|reader| reader.join().unwrap()).unwrap_or_default();
    Finished { status, stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() }
}

pub(super) fn read_all(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        pipe.read_to_end(&mut all).unwrap();
        all
    })
}
