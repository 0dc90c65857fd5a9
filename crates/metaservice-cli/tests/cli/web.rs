//! `metaservice web`: the page of the jobs of this host, without a browser.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command};

use metaservice_testing::cli::{Cli, finish};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::METASERVICE;

/// The server, and a browser that it has let in.
struct Web {
    child: Child,
    page: String,
    jar: String,
}

impl Web {
    fn start(cli: &Cli) -> Self {
        let mut child = cli.command(["web", "--listen", "127.0.0.1:0"]).spawn().unwrap();
        let mut link = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut link).unwrap();
        let (page, token) = link.trim_end().split_once("/#token=").unwrap();
        let jar = cli.work().join("cookies").to_str().unwrap().to_owned();
        let web = Self { child, page: page.to_owned(), jar };
        assert_eq!(web.post("session", &format!("{{\"token\":\"{token}\"}}")).0, 204);
        web
    }

    fn post(&self, target: &str, body: &str) -> (u16, String) {
        let origin = format!("Origin: {}", self.page);
        let json = "Content-Type: application/json";
        self.curl(&["-X", "POST", "-H", &origin, "-H", json, "-d", body], target)
    }

    fn get(&self, target: &str) -> Value {
        let (status, body) = self.curl(&[], target);
        assert_eq!(status, 200, "{target}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// The status and the body.
    fn curl(&self, args: &[&str], target: &str) -> (u16, String) {
        let mut command = Command::new("curl");
        command.args(["-s", "-w", "\n%{http_code}", "-b", &self.jar, "-c", &self.jar]);
        let output = command.args(args).arg(format!("{}/{target}", self.page)).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), body.to_owned())
    }

    fn end(self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        let finished = finish(self.child);
        assert_eq!(finished.status, Some(130));
        let next = "metaservice: a browser has opened the page; the next link is ";
        assert!(finished.stderr.contains(&format!("{next}{}/#token=", self.page)), "{finished:?}");
    }
}

#[test]
fn the_page_has_the_logs_of_jobs_that_run_and_of_those_that_have_ended() {
    let cli = Cli::new(METASERVICE);
    let web = Web::start(&cli);
    let service = cli.serve(&["--name", "build", "--", "make", "test"]);
    service.request("GET", "execute", "");
    service.request_with("POST", "log", "", "one\ntwo\n");
    let started = web.get("api/jobs/build/log")["startedMs"].as_u64().unwrap();
    let download = || web.curl(&[], "api/jobs/build/log/download");
    assert_eq!(download(), (200, "one\ntwo\n".to_owned()));
    let search = format!("api/jobs/build/log/search?started={started}&find=TWO");
    assert_eq!(web.get(&search)["searched"], 2);
    service.request_with("POST", "log", "", "three\n");
    service.request("PUT", "failed", "");
    assert_eq!(service.finish().status, Some(1));
    // The same log, from the history.
    assert_eq!(download(), (200, "one\ntwo\nthree\n".to_owned()));
    let search = format!("api/jobs/build/log/search?started={started}&find=t");
    assert_eq!(web.get(&search)["lines"], serde_json::json!([1, 2]));
    let kill = web.post("api/jobs/build/kill", &format!("{{\"startedMs\":{started}}}"));
    assert_eq!(kill.0, 409, "{}", kill.1);
    cli.run(&["rm", "build"]).text(0);
    assert_eq!(download().0, 404);
    web.end();
}

#[test]
fn an_address_that_cannot_be_used_is_explained() {
    let cli = Cli::new(METASERVICE);
    let open = cli.run(&["web", "--listen", "0.0.0.0:7878"]);
    assert_eq!(open.text(125), "");
    assert!(
        open.stderr.contains("in --listen: 0.0.0.0:7878 is not a loopback address"),
        "{open:?}"
    );
    assert!(open.stderr.contains("hint: from another host, use `ssh -L 7878:"), "{open:?}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let second = cli.run(&["web", "--listen", &address]);
    assert_eq!(second.text(125), "");
    assert!(second.stderr.contains("hint: `--listen 127.0.0.1:0` takes a free port"), "{second:?}");
}
