//! The log of a job.

use super::*;

impl Page {
    /// The guest writes this to stdout.
    async fn write(&self, bytes: &[u8]) {
        assert_eq!(self.guest.post("/engine/v1/log", bytes).await.status, 200);
    }

    async fn json(&self, target: &str) -> Value {
        let answer = self.get(target).await;
        assert_eq!(answer.status, 200, "{target}: {}", String::from_utf8_lossy(&answer.body));
        answer.json()
    }

    /// Opens the log, and waits until it has this many lines.
    async fn log(&self, lines: u64) -> (u64, WebSocketStream<TcpStream>) {
        let started = self.json("/api/jobs/build/log").await["startedMs"].as_u64().unwrap();
        let target = format!("/api/jobs/build/log/length?started={started}");
        let mut socket = self.socket(&target, &self.own()).await.unwrap();
        while next(&mut socket).await["lines"] != lines {}
        (started, socket)
    }
}

fn texts(lines: &Value) -> Vec<String> {
    let text = |line: &Value| {
        line["spans"].as_array().unwrap().iter().map(|span| span["t"].as_str().unwrap()).collect()
    };
    lines.as_array().unwrap().iter().map(text).collect()
}

#[tokio::test]
async fn lines_are_read_where_they_are_asked_for() {
    let page = Page::open().await;
    let log: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
    page.write(log.as_bytes()).await;
    let (started, mut socket) = page.log(20_000).await;
    let lines = page
        .json(&format!("/api/jobs/build/log/lines?started={started}&from=12345&count=3&find=4"))
        .await;
    assert_eq!(texts(&lines), ["line 12345", "line 12346", "line 12347"]);
    assert_eq!(lines[0]["line"], 12345);
    assert_eq!(lines[0]["marks"], serde_json::json!([[8, 9]]));
    assert!(lines[0]["ms"].as_u64().unwrap() > 1_000_000_000_000);
    // The page learns of more, and of the end.
    page.write(b"\x1b[31mred\rR").await;
    let length = next(&mut socket).await;
    assert_eq!((&length["lines"], &length["state"]), (&20_001.into(), &"open".into()));
    let last =
        page.json(&format!("/api/jobs/build/log/lines?started={started}&from=20000&count=9")).await;
    let spans = serde_json::json!([{ "t": "Red", "s": "f1" }]);
    assert_eq!((last.as_array().unwrap().len(), &last[0]["spans"]), (1, &spans));
    page.service.shutdown().await.unwrap();
    while next(&mut socket).await["state"] != "complete" {}
}

#[tokio::test]
async fn the_whole_log_is_searched() {
    let page = Page::open().await;
    page.write(b"fine\nan ERROR\nfine\n\x1b[1merr\x1b[mor\n").await;
    let (started, _socket) = page.log(4).await;
    let search = format!("/api/jobs/build/log/search?started={started}&find=");
    let found = page.json(&format!("{search}error")).await;
    let expected =
        serde_json::json!({ "total": 2, "lines": [1, 3], "searched": 4, "complete": true });
    assert_eq!(found, expected);
    assert_eq!(page.json(&format!("{search}%5Efi%2Be%24")).await["total"], 0);
    for (pattern, message) in
        [("a%28", "unclosed group"), ("", "empty"), (&"x".repeat(2000), "longer")]
    {
        let refused = page.get(&format!("{search}{pattern}")).await;
        assert_eq!(refused.status, 400);
        assert!(refused.json()["message"].as_str().unwrap().contains(message), "{refused:?}");
    }
}

#[tokio::test]
async fn what_is_no_longer_kept_is_said() {
    let mut page = Page::keeping(64).await;
    page.enter().await;
    let log: String = (0..100).map(|n| format!("{n:03}\n")).collect();
    page.write(log.as_bytes()).await;
    let started = page.json("/api/jobs/build/log").await["startedMs"].as_u64().unwrap();
    let target = format!("/api/jobs/build/log/length?started={started}");
    let mut socket = page.socket(&target, &page.own()).await.unwrap();
    let length = loop {
        let length = next(&mut socket).await;
        if length["bytes"] == 400 {
            break length;
        }
    };
    assert_eq!((&length["missed"], &length["lines"]), (&336.into(), &16.into()));
    let lines =
        page.json(&format!("/api/jobs/build/log/lines?started={started}&from=0&count=2")).await;
    assert_eq!(texts(&lines), ["084", "085"]);
}

#[tokio::test]
async fn a_log_is_downloaded_as_it_was_written() {
    let page = Page::open().await;
    let log = b"<script>alert(1)</script>\x1b[31m\xff\0\r\n".repeat(1000);
    page.write(&log).await;
    let (_, _socket) = page.log(1000).await;
    let answer = page.get("/api/jobs/build/log/download").await;
    assert!(answer.body == log);
    assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
    assert_eq!(answer.headers["content-disposition"], "attachment; filename=\"build.log\"");
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
}

/// The log of a job that ends while the page looks at it is the same log.
#[tokio::test]
async fn a_log_that_was_open_can_be_read_when_its_job_has_ended() {
    let page = Page::open().await;
    let directory = page.directory.path().to_owned();
    let file = |name| {
        std::fs::File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(directory.join(name))
            .unwrap()
    };
    let kept =
        MetaService::builder(["true"]).keep_log(1 << 20).keep_log_in(file("log"), file("index"));
    let ended = kept.start().unwrap();
    let guest = {
        let service = ended.clone();
        Guest::new(move |connection| {
            let service = service.clone();
            tokio::spawn(async move { drop(service.serve_connection(connection).await) });
        })
    };
    guest.post("/engine/v1/log", b"one\ntwo").await;
    ended.shutdown().await.unwrap();
    *page.ended.lock().unwrap() = Some(directory);
    // Another job of this name.
    let gone = page.get("/api/jobs/build/log/lines?started=7&from=0&count=1").await;
    assert_eq!(gone.status, 410);
    let (started, mut socket) = page.log(2).await;
    assert_eq!(started, 0);
    let lines = page.json("/api/jobs/build/log/lines?started=0&from=1&count=9").await;
    assert_eq!(texts(&lines), ["two"]);
    drop(socket.close(None).await);
}
