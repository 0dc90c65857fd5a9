//! Who is let in.

use super::*;

/// Requests of each kind: an action, a list, a log.
const REQUESTS: [(&str, &str); 4] = [
    ("POST", "/api/jobs/build/kill"),
    ("GET", "/api/jobs/build/log"),
    ("GET", "/api/jobs/build/log/download"),
    ("GET", "/api/session"),
];

#[tokio::test]
async fn without_a_session_there_is_only_the_page() {
    let page = Page::start().await;
    for (method, target) in REQUESTS {
        assert_eq!(page.request(method, target, &page.own(), "{}").await.status, 401, "{target}");
    }
    assert_eq!(page.socket("/api/jobs", &page.own()).await.err(), Some(401));
    let index = page.get("/").await;
    assert_eq!(
        (index.status, index.headers["content-type"].as_str()),
        (200, "text/html; charset=utf-8")
    );
    assert_eq!(page.get("/job/any").await.body, index.body);
    for (name, value) in [
        ("x-frame-options", "DENY"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(index.headers[name], value);
        assert_eq!(page.get("/api/session").await.headers[name], value, "errors too");
    }
    let policy = &index.headers["content-security-policy"];
    assert!(policy.starts_with("default-src 'self';") && !policy.contains("unsafe"), "{policy}");
}

#[tokio::test]
async fn a_token_lets_one_browser_in() {
    let mut page = Page::start().await;
    let token = page.token();
    let answer = page.exchange(&token).await;
    let cookie = &answer.headers["set-cookie"];
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap().to_owned();
    assert!(!cookie.contains(&token));
    // It was used.
    assert_eq!(page.exchange(&token).await.status, 401);
    let next = page.token();
    assert_ne!(next, token);
    for wrong in ["", "x", &token, &next[..63]] {
        assert_eq!(page.exchange(wrong).await.status, 401, "{wrong}");
    }
    for body in ["", "{}", "[]", "{\"token\":7}", "{\"token\":\"\",\"more\":1}"] {
        let answer = page.request("POST", "/session", &page.own(), body).await;
        assert_eq!(answer.status, 400, "{body}");
    }
    page.cookie = Some(format!("{cookie}0"));
    assert_eq!(page.get("/api/session").await.status, 401);
    page.cookie = Some(format!("a=b; {cookie}"));
    assert_eq!(page.get("/api/session").await.status, 204);
    page.cookie = None;
    page.enter().await;
    assert_eq!(page.get("/api/session").await.status, 204);
}

#[tokio::test]
async fn wrong_tokens_are_limited() {
    let mut page = Page::start().await;
    let statuses = async |token: &str| page.exchange(token).await.status;
    let mut denied = 0;
    while statuses("wrong").await == 401 {
        denied += 1;
    }
    assert!((10..20).contains(&denied), "{denied}");
    let token = page.token();
    let late = page.exchange(&token).await;
    assert_eq!(late.status, 429);
    assert!((1..=6).contains(&late.headers["retry-after"].parse::<u32>().unwrap()));
}

#[tokio::test]
async fn requests_of_other_sites_are_refused() {
    let page = Page::open().await;
    let port = page.address.port();
    let with = |name: &str, value: Option<&str>| {
        let mut headers = page.own();
        headers.retain(|(known, _)| *known != name);
        let name = ["Host", "Origin", "Sec-Fetch-Site"].into_iter().find(|known| *known == name);
        headers.extend(value.map(|value| (name.unwrap(), value.to_owned())));
        headers
    };
    let foreign = [
        with("Host", None),
        with("Host", Some(&format!("evil.example:{port}"))),
        with("Host", Some("127.0.0.1")),
        with("Host", Some("127.0.0.1:1")),
        with("Origin", Some("http://evil.example")),
        with("Origin", Some("null")),
        with("Origin", Some(&format!("https://127.0.0.1:{port}"))),
        with("Origin", Some("http://127.0.0.1:1")),
        with("Sec-Fetch-Site", Some("cross-site")),
        with("Sec-Fetch-Site", Some("same-site")),
    ];
    for headers in &foreign {
        for (method, target) in REQUESTS.into_iter().chain([("GET", "/"), ("POST", "/session")]) {
            let status = page.request(method, target, headers, "{}").await.status;
            // Without a host, it is no HTTP/1.1.
            assert!([400, 403].contains(&status), "{method} {target} {headers:?}: {status}");
        }
    }
    for headers in &foreign[1..] {
        let refused = page.socket("/api/jobs", headers).await.err();
        assert_eq!(refused, Some(403), "{headers:?}");
    }
    // A page of the same origin may only read without an origin.
    let missing = with("Origin", None);
    let killed = page.request("POST", "/api/jobs/build/kill", &missing, "{}").await;
    assert_eq!(killed.status, 403);
    assert_eq!(page.socket("/api/jobs", &missing).await.err(), Some(403));
    assert_eq!(page.request("GET", "/api/session", &missing, "").await.status, 204);
    let twice = [page.own(), vec![("Host", page.address.to_string())]].concat();
    assert_ne!(page.request("GET", "/api/session", &twice, "").await.status, 204);
    assert!(page.socket("/api/jobs", &page.own()).await.is_ok());
}

#[tokio::test]
async fn nothing_is_changed_by_get() {
    let page = Page::open().await;
    for target in ["/session", "/api/jobs/build/kill"] {
        for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
            let answer = page.request(method, target, &page.own(), "").await;
            assert_eq!(answer.status, 405, "{method} {target}");
        }
    }
    assert_eq!(page.get("/api/session").await.status, 204);
}

#[tokio::test]
async fn paths_lead_to_no_other_file() {
    let page = Page::open().await;
    for target in [
        "/assets/../Cargo.toml",
        "/assets/..%2fCargo.toml",
        "/assets/%2e%2e%2fCargo.toml",
        "/assets/index.html",
        "/assets/",
        "/none",
        "/api/none",
        "/api/jobs/..%2f..%2fetc/log",
        "/api/jobs/none/log",
        "//api/session",
        "/%61pi/session",
    ] {
        assert_eq!(page.get(target).await.status, 404, "{target}");
    }
}

#[tokio::test]
async fn large_requests_are_refused() {
    let page = Page::open().await;
    let body = |length| format!("{{\"token\":\"{}\"}}", "x".repeat(length));
    assert_eq!(page.request("POST", "/session", &page.own(), &body(4000)).await.status, 401);
    assert_eq!(page.request("POST", "/session", &page.own(), &body(4100)).await.status, 400);
}

#[tokio::test]
async fn connections_are_limited_and_a_closed_one_makes_room() {
    let page = Page::open().await;
    let mut sockets = Vec::new();
    while sockets.len() < 60 {
        sockets.push(page.socket("/api/jobs", &page.own()).await.unwrap());
    }
    // Websockets count, and so do connections that say nothing.
    let mut idle = Vec::new();
    while idle.len() < 4 {
        idle.push(TcpStream::connect(page.address).await.unwrap());
    }
    let mut refused = Vec::new();
    let mut stream = TcpStream::connect(page.address).await.unwrap();
    stream.read_to_end(&mut refused).await.unwrap();
    assert_eq!(Answer::parse(&refused).status, 503);
    let mut closed = sockets.pop().unwrap();
    closed.close(None).await.unwrap();
    while let Some(Ok(_)) = closed.next().await {}
    assert_eq!(page.get("/api/session").await.status, 204);
}

#[tokio::test]
async fn the_page_is_for_this_host_alone() {
    let page = Page::start().await;
    let source = OneJob { client: page.client(), ended: Arc::default() };
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
        let listening = Server::bind(
            address.parse().unwrap(),
            Arc::new(OneJob { client: source.client.clone(), ended: Arc::default() }),
        );
        let refused = listening.await.err().unwrap().to_string();
        assert!(refused.ends_with("is not a loopback address"), "{refused}");
    }
    let taken = Server::bind(page.address, Arc::new(source)).await.err().unwrap();
    assert_eq!(taken.to_string(), format!("cannot listen on {}", page.address));
}
