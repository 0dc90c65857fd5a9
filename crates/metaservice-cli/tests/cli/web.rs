//! `metaservice web`: the page of the jobs of this host, without a browser.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use metaservice_testing::cli::{Cli, Service, Web};
use serde_json::Value;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::METASERVICE;

#[test]
fn the_page_has_the_logs_of_jobs_that_run_and_of_those_that_have_ended() {
    let cli = Cli::new(METASERVICE);
    let web = cli.web(&[]);
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

/// The agent of the tool, as a process of this host.
struct Agent(Child);

impl Agent {
    fn start(cli: &Cli, service: &Service) -> Self {
        let program = cli.work().join("agent");
        let from = format!("http://{}/engine/v1/agent/linux-x86_64", service.address);
        let fetched = Command::new("curl").args(["-sfo"]).arg(&program).arg(from).status().unwrap();
        assert!(fetched.success());
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let child = Command::new(program)
            .args(["--host", &service.address, "--state"])
            .arg(cli.work().join("agent-state"))
            .stdin(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn files_go_both_ways() {
    let cli = Cli::new(METASERVICE);
    let web = cli.web(&[]);
    let service = cli.serve(&["--cloud", "--name", "build", "--", "sleep", "600"]);
    let _agent = Agent::start(&cli, &service);
    let client = cli.run(&["wait", "--for", "running", "build"]);
    client.text(0);
    let started = web.get("api/jobs/build")["job"]["startedMs"].as_u64().unwrap();
    let guest = cli.work().join("guest");
    fs::create_dir_all(guest.join("<b>directory")).unwrap();
    fs::write(guest.join("text"), "one\ntwo\n").unwrap();
    fs::write(guest.join("picture.txt"), b"\x89PNG\r\n\x1a\n....").unwrap();
    fs::write(guest.join("page.png"), "<svg onload=alert(1)>").unwrap();
    let at = |kind: &str, path: &str| {
        format!("api/jobs/build/{kind}?started={started}&path={}{path}", guest.display())
    };
    let listed = web.get(&at("files", ""));
    let mut names: Vec<_> = listed["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| format!("{} {}", entry["name"].as_str().unwrap(), entry["kind"]))
        .collect();
    names.sort();
    let expected = [
        "<b>directory \"directory\"",
        "page.png \"file\"",
        "picture.txt \"file\"",
        "text \"file\"",
    ];
    assert_eq!(names, expected);
    assert_eq!(web.get(&at("look", "/text"))["text"], "one\ntwo\n");
    assert_eq!(web.get(&at("look", "/picture.txt"))["kind"], "picture");
    // The type is that of the bytes, whatever the name says.
    let head = ["-D", "-", "-o", "/dev/null"];
    let shown = web.curl(&head, &at("picture", "/picture.txt")).1;
    assert!(shown.contains("content-type: image/png"), "{shown}");
    assert_eq!(web.curl(&[], &at("picture", "/page.png")).0, 409);
    let head = web.curl(&["-i"], &at("file", "/page.png")).1;
    assert!(head.contains("content-disposition: attachment; filename=\"page.png\""), "{head}");
    assert!(head.contains("content-type: application/octet-stream"), "{head}");
    assert!(head.contains("x-content-type-options: nosniff"), "{head}");
    assert!(web.curl(&["-i"], &format!("{}&as=tar", at("file", ""))).1.contains("guest.tar\""));
    for wrong in ["", "text", "/a%00b"] {
        let target = format!("api/jobs/build/files?started={started}&path={wrong}");
        assert_eq!(web.curl(&[], &target).0, 400, "{wrong}");
    }
    assert_eq!(web.curl(&[], &at("files", "/none")).0, 404);
    // A directory of any size takes a limited part of the server's memory.
    let many = guest.join("many");
    fs::create_dir(&many).unwrap();
    (0..10_001).for_each(|number| drop(fs::File::create(many.join(number.to_string())).unwrap()));
    let listed = web.get(&at("files", "/many"));
    let count = listed["entries"].as_array().unwrap().len();
    assert_eq!((count, &listed["more"]), (10_000, &true.into()));
    // A device has no end, and is no file.
    let device = format!("api/jobs/build/look?started={started}&path=/dev/zero");
    assert_eq!(web.curl(&[], &device).0, 409);
    upload(&web, started, &guest.join("uploaded"));
    cli.run(&["kill", "build"]).text(0);
    service.finish();
    web.end();
}

/// Uploads a file in parts, as a browser does.
fn upload(web: &Web, started: u64, to: &Path) {
    let begin = |size: usize| {
        let path = to.display();
        let body = format!("{{\"startedMs\":{started},\"path\":\"{path}\",\"size\":{size}}}");
        let (status, body) = web.post("api/jobs/build/uploads", &body);
        assert_eq!(status, 200, "{body}");
        let begun: Value = serde_json::from_str(&body).unwrap();
        format!("api/uploads/{}", begun["id"].as_str().unwrap())
    };
    let origin = format!("Origin: {}", web.page);
    let put = |upload: &str, offset: usize, bytes: &str| {
        let part = ["-X", "PUT", "-H", &origin, "--data-binary", bytes];
        web.curl(&part, &format!("{upload}?offset={offset}"))
    };
    let whole = begin(11);
    assert_eq!(put(&whole, 0, "hello ").1, r#"{"offset":6,"size":11,"done":false}"#);
    // A part that was sent again, after its answer was lost.
    assert_eq!(put(&whole, 0, "hello ").0, 409);
    assert_eq!(web.get(&whole)["offset"], 6);
    assert!(!to.exists(), "the file is in its place at the end");
    assert_eq!(put(&whole, 6, "world").1, r#"{"offset":11,"size":11,"done":true}"#);
    assert_eq!(fs::read_to_string(to).unwrap(), "hello world");
    // A browser that has lost the answer asks again.
    assert_eq!(web.get(&whole)["done"], true);
    // One that lies about its size, and one that is given up, change nothing.
    assert_eq!(put(&begin(3), 0, "four").0, 409);
    let given_up = begin(9);
    assert_eq!(put(&given_up, 0, "bye").0, 200);
    assert_eq!(web.curl(&["-X", "DELETE", "-H", &origin], &given_up).0, 204);
    assert_eq!(put(&given_up, 3, "bye").0, 404);
    assert_eq!(fs::read_to_string(to).unwrap(), "hello world");
    assert_eq!(put(&begin(0), 0, "").1, r#"{"offset":0,"size":0,"done":true}"#);
    assert_eq!(fs::read_to_string(to).unwrap(), "");
}

/// A websocket of the page.
pub(crate) type Socket = tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>;

pub(crate) async fn open(web: &Web, target: &str) -> Socket {
    let address = web.page.strip_prefix("http://").unwrap();
    let mut request = format!("ws://{address}/{target}").into_client_request().unwrap();
    request.headers_mut().insert("Cookie", web.cookie().parse().unwrap());
    request.headers_mut().insert("Origin", web.page.parse().unwrap());
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    tokio_tungstenite::client_async(request, stream).await.unwrap().0
}

/// What a terminal writes until it has written this.
async fn until(socket: &mut Socket, text: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(text) {
        match socket.next().await.unwrap().unwrap() {
            Message::Binary(bytes) => seen.push_str(&String::from_utf8_lossy(&bytes)),
            Message::Text(said) => return format!("{seen}[{said}]"),
            _ => {}
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_held_back_and_ends_with_its_browser() {
    let cli = Cli::new(METASERVICE);
    let web = cli.web(&[]);
    let service = cli.serve(&["--cloud", "--name", "build", "--", "sleep", "600"]);
    let _agent = Agent::start(&cli, &service);
    cli.run(&["wait", "--for", "running", "build"]).text(0);
    let started = web.get("api/jobs/build")["job"]["startedMs"].as_u64().unwrap();
    let command = |word: &str| {
        let size = "columns=80&rows=24";
        format!("api/jobs/build/terminal?started={started}&{size}&command=%5B%22{word}%22%5D")
    };
    let mut shell = open(&web, &command("sh")).await;
    shell.send(Message::Text("{\"resize\":[100,30]}".into())).await.unwrap();
    let typed = "stty size; echo $TERM; tty >/dev/null && echo terminal; exit 7\n";
    shell.send(Message::Binary(typed.into())).await.unwrap();
    let seen = until(&mut shell, "{").await;
    assert!(seen.contains("30 100\r\nxterm-256color\r\nterminal\r\n"), "{seen}");
    assert!(seen.ends_with("[{\"ended\":{\"status\":7}}]"), "{seen}");
    let mut missing = open(&web, &command("no-such-program")).await;
    let said = until(&mut missing, "{").await;
    assert!(said.contains("no-such-program"), "{said}");
    // Without a word of the browser, only a window arrives. Then more does.
    let mut floods = open(&web, &command("yes")).await;
    let mut arrived = 0;
    while let Ok(Some(Ok(message))) = timeout(Duration::from_secs(2), floods.next()).await {
        arrived += message.len();
    }
    assert!((256 << 10..512 << 10).contains(&arrived), "{arrived}");
    let took = format!("{{\"took\":{arrived}}}");
    floods.send(Message::Text(took.into())).await.unwrap();
    assert!(until(&mut floods, "y\r\n").await.contains('y'));
    let yes = || cli.run(&["exec", "build", "--", "pgrep", "-x", "yes"]).status;
    assert_eq!(yes(), Some(0));
    drop(floods);
    metaservice_testing::wait::until("the end of yes", || yes() == Some(1));
    cli.run(&["kill", "build"]).text(0);
    service.finish();
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
    assert!(open.stderr.contains("hint: use `ssh -L 7878:"), "{open:?}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let second = cli.run(&["web", "--listen", &address]);
    assert_eq!(second.text(125), "");
    assert!(second.stderr.contains("hint: `--listen 127.0.0.1:0` takes a free port"), "{second:?}");
}

#[test]
fn users_are_added_once_and_a_missing_file_is_explained() {
    let cli = Cli::new(METASERVICE);
    let missing = cli.run(&["web", "--auth", "users"]);
    assert_eq!(missing.text(125), "");
    assert!(missing.stderr.contains("in --auth: cannot read users"), "{missing:?}");
    assert!(missing.stderr.contains("--add-user NAME:admin` makes the file"), "{missing:?}");
    let add = || cli.run(&["web", "--auth", "users", "--add-user", "anna:watch"]);
    let token = add().text(0);
    let file = fs::read_to_string(cli.work().join("users")).unwrap();
    assert!(file.starts_with("anna watch ") && !file.contains(token.trim()), "{file}");
    let again = add();
    assert_eq!(again.text(125), "");
    assert!(again.stderr.contains("has a user of this name"), "{again:?}");
    assert_eq!(fs::read_to_string(cli.work().join("users")).unwrap(), file);
}
