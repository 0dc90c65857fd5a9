//! `metaservice web`, and a browser that it has let in.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::finished::finish;

/// The server of the page, and a browser that it has let in.
#[derive(Debug)]
pub struct Web {
    child: Child,
    /// The address of the page, without the last slash.
    pub page: String,
    jar: String,
}

impl Web {
    /// Starts the server with this command, and lets the browser in. Its cookies are in a file of
    /// the directory.
    pub(super) fn start(mut command: Command, directory: &Path) -> Self {
        let mut child = command.spawn().unwrap();
        let mut link = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut link).unwrap();
        let (page, token) = link.trim_end().split_once("/#token=").unwrap();
        let jar = directory.join("cookies").to_str().unwrap().to_owned();
        let web = Self { child, page: page.to_owned(), jar };
        assert_eq!(web.post("session", &format!("{{\"token\":\"{token}\"}}")).0, 204);
        web
    }

    /// Asks for something to be done. Returns the status and the body.
    pub fn post(&self, target: &str, body: &str) -> (u16, String) {
        let origin = format!("Origin: {}", self.page);
        let json = "Content-Type: application/json";
        self.curl(&["-X", "POST", "-H", &origin, "-H", json, "-d", body], target)
    }

    /// The JSON at an address.
    pub fn get(&self, target: &str) -> Value {
        let (status, body) = self.curl(&[], target);
        assert_eq!(status, 200, "{target}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// What curl gets with these arguments: the status and the body.
    pub fn curl(&self, args: &[&str], target: &str) -> (u16, String) {
        let mut command = Command::new("curl");
        command.args(["-s", "-w", "\n%{http_code}", "-b", &self.jar, "-c", &self.jar]);
        let output = command.args(args).arg(format!("{}/{target}", self.page)).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), body.to_owned())
    }

    /// The cookie of the browser, as a header has it.
    pub fn cookie(&self) -> String {
        let jar = fs::read_to_string(&self.jar).unwrap();
        let cookie = jar.lines().find_map(|line| line.strip_prefix("#HttpOnly_")).unwrap();
        let fields: Vec<_> = cookie.split('\t').collect();
        format!("{}={}", fields[5], fields[6])
    }

    /// Ends the server as Ctrl-C does.
    pub fn end(self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        let finished = finish(self.child);
        assert_eq!(finished.status, Some(130));
        let next = "metaservice: a browser has opened the page; the next link is ";
        assert!(finished.stderr.contains(&format!("{next}{}/#token=", self.page)), "{finished:?}");
    }
}
