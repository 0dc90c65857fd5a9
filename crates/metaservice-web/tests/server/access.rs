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
    assert_eq!(page.get("/api/session").await.status, 200);
    page.cookie = None;
    page.enter().await;
    assert_eq!(page.get("/api/session").await.status, 200);
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
    let late = page.exchange("wrong").await;
    assert_eq!(late.status, 429);
    assert!((1..=6).contains(&late.headers["retry-after"].parse::<u32>().unwrap()));
    // Others who try tokens do not keep the owner out.
    page.enter().await;
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
    assert_eq!(page.request("GET", "/api/session", &missing, "").await.status, 200);
    let twice = [page.own(), vec![("Host", page.address.to_string())]].concat();
    assert_ne!(page.request("GET", "/api/session", &twice, "").await.status, 200);
    assert!(page.socket("/api/jobs", &page.own()).await.is_ok());
}

#[tokio::test]
async fn nothing_is_changed_by_get() {
    let page = Page::open().await;
    for target in [
        "/api/jobs/build/kill",
        "/api/jobs/build/signal",
        "/api/jobs/build/retry",
        "/api/jobs/build/remove",
        "/api/jobs/build/uploads",
        "/api/prune",
    ] {
        for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
            let answer = page.request(method, target, &page.own(), "").await;
            assert_eq!(answer.status, 405, "{method} {target}");
        }
    }
    assert_eq!(page.get("/api/session").await.status, 200);
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
    assert_eq!(
        page.request("POST", "/session", &page.own(), &body(16 * 1024 - 12)).await.status,
        401
    );
    assert_eq!(
        page.request("POST", "/session", &page.own(), &body(16 * 1024 - 11)).await.status,
        400
    );
}

#[tokio::test]
async fn connections_are_limited_and_a_closed_one_makes_room() {
    let page = Page::open().await;
    let mut sockets = Vec::new();
    while sockets.len() < 252 {
        sockets.push(page.socket("/api/jobs", &page.own()).await.unwrap());
    }
    // Websockets count, and so do connections that say nothing.
    let mut idle = Vec::new();
    while idle.len() < 4 {
        idle.push(TcpStream::connect(page.address).await.unwrap());
    }
    // A thousand more, all at once.
    let mut more = Vec::new();
    while more.len() < 1_000 {
        more.push(TcpStream::connect(page.address).await.unwrap());
    }
    for mut stream in more {
        let mut refused = Vec::new();
        stream.read_to_end(&mut refused).await.unwrap();
        assert_eq!(Answer::parse(&refused).status, 503);
    }
    let mut closed = sockets.pop().unwrap();
    closed.close(None).await.unwrap();
    while let Some(Ok(_)) = closed.next().await {}
    assert_eq!(page.get("/api/session").await.status, 200);
}

#[tokio::test]
async fn other_hosts_need_tls_and_users() {
    let page = Page::start().await;
    let source = || OneJob { client: page.client(), ended: Arc::default() };
    let bind = async |settings: Settings| {
        Server::bind(settings, Arc::new(source())).await.err().unwrap().to_string()
    };
    let (_, users) = users();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
        let mut settings = Settings::new(address.parse().unwrap());
        for part in ["nothing", "users", "tls"] {
            settings.users = (part == "users").then(|| users.clone());
            settings.identity = (part == "tls").then(|| identity().0);
            let refused = bind(settings.clone()).await;
            assert!(refused.contains("is not a loopback address"), "{part}: {refused}");
        }
    }
    let mut nameless = Settings::new("0.0.0.0:0".parse().unwrap());
    (nameless.users, nameless.identity) = (Some(users), Some(identity().0));
    let refused = bind(nameless).await;
    assert!(refused.ends_with("needs a name"), "{refused}");
    let taken = bind(Settings::new(page.address)).await;
    assert_eq!(taken, format!("cannot listen on {}", page.address));
}

/// The tokens of users with each role, and all of them.
fn users() -> ([String; 3], Users) {
    let all = Role::ALL.map(|role| NewUser::make(role.word(), Grant::User(role)).unwrap());
    let lines: Vec<_> = all.iter().map(NewUser::line).collect();
    (all.each_ref().map(|user| user.token().to_owned()), Users::parse(&lines.join("\n")).unwrap())
}

/// A certificate for this host, and its text.
fn identity() -> (Identity, MadeIdentity) {
    let made = MadeIdentity::new(&["localhost".to_owned()]).unwrap();
    let identity = Identity::from_pem(made.certificate.as_bytes(), made.key.as_bytes()).unwrap();
    (identity, made)
}

#[tokio::test]
async fn each_role_may_do_what_it_says() {
    let (tokens, users) = users();
    let mut settings = Settings::new("127.0.0.1:0".parse().unwrap());
    settings.users = Some(users);
    let mut page = Page::with(1 << 20, settings).await;
    assert_eq!(page.links.current(), format!("http://{}/", page.address));
    assert_eq!(page.get("/session").await.json()["signIn"], true);
    assert_eq!(page.exchange(&"0".repeat(64)).await.status, 401);
    // What a request gets if the role is enough: the job is another one, or there is none.
    let requests = [
        ("GET", "/api/jobs/build", "", Role::Watch, 200),
        ("GET", "/api/jobs/none/stats?started=1", "", Role::Watch, 400),
        ("GET", "/api/jobs/none/artifact?started=1&name=a", "", Role::Watch, 404),
        ("GET", "/api/images", "", Role::Operate, 200),
        ("GET", "/api/jobs/none/files?started=1&path=/", "", Role::Operate, 404),
        ("GET", "/api/jobs/none/look?started=1&path=/", "", Role::Operate, 404),
        ("GET", "/api/jobs/none/picture?started=1&path=/", "", Role::Operate, 404),
        ("GET", "/api/jobs/none/file?started=1&path=/", "", Role::Operate, 404),
        ("POST", "/api/jobs/none/kill", "{\"startedMs\":1}", Role::Operate, 404),
        ("POST", "/api/jobs/none/kill", "{\"startedMs\":1,\"what\":\"machine\"}", Role::Admin, 404),
        ("POST", "/api/jobs/none/signal", "{\"startedMs\":1,\"signal\":9}", Role::Operate, 404),
        ("POST", "/api/jobs/none/retry", "{\"startedMs\":1}", Role::Operate, 404),
        ("POST", "/api/jobs", "{\"spec\":{\"command\":[\"a\"]}}", Role::Operate, 409),
        (
            "POST",
            "/api/jobs/none/uploads",
            "{\"startedMs\":1,\"path\":\"/a\",\"size\":1}",
            Role::Operate,
            404,
        ),
        ("PUT", "/api/uploads/x?offset=0", "", Role::Operate, 404),
        ("POST", "/api/jobs/none/remove", "{\"startedMs\":1}", Role::Admin, 404),
        ("POST", "/api/prune", "{}", Role::Admin, 200),
    ];
    for (role, token) in Role::ALL.into_iter().zip(&tokens) {
        page.cookie = None;
        page.enter_with(token).await;
        let session = page.get("/api/session").await.json();
        assert_eq!(
            (&session["user"], &session["role"]),
            (&role.word().into(), &role.word().into())
        );
        for (method, target, body, needed, allowed) in requests {
            let answer = page.request(method, target, &page.own(), body).await;
            let expected = if role >= needed { allowed } else { 403 };
            assert_eq!(answer.status, expected, "{role}: {method} {target}: {answer:?}");
        }
        let terminal = "/api/jobs/build/terminal?started=1&columns=80&rows=24";
        let refused = page.socket(terminal, &page.own()).await.err().unwrap();
        assert_eq!(refused, if role >= Role::Operate { 410 } else { 403 }, "{role}");
    }
    let ended = page.request("DELETE", "/api/session", &page.own(), "").await;
    assert_eq!(ended.status, 204);
    assert_eq!(page.get("/api/session").await.status, 401);
}

#[tokio::test]
async fn the_user_of_this_host_has_a_link_and_may_do_all() {
    let page = Page::open().await;
    let session = page.get("/api/session").await.json();
    assert_eq!(
        session,
        serde_json::json!({
            "user": null, "role": "admin", "source": "host", "place": "here",
            "can": { "run": true, "remove": true, "signOut": true },
        })
    );
    let run = "{\"spec\":{\"command\":[\"a\"]}}";
    let started = page.request("POST", "/api/jobs", &page.own(), run).await;
    assert_eq!((started.status, &started.json()["name"]), (200, &"a".into()));
    for wrong in ["{}", "{\"spec\":7}", "{\"spec\":{},\"more\":1}"] {
        assert_eq!(page.request("POST", "/api/jobs", &page.own(), wrong).await.status, 400);
    }
}

#[tokio::test]
async fn a_proxy_says_who_its_users_are() {
    let proxy = NewUser::make("nginx", Grant::Proxy).unwrap();
    let anna = NewUser::make("anna", Grant::User(Role::Watch)).unwrap();
    let mut settings = Settings::new("127.0.0.1:0".parse().unwrap());
    settings.names = vec!["https://jobs.example".to_owned()];
    let text = format!("{}\n{}\n", proxy.line(), anna.line());
    settings.users = Some(Users::parse(&text).unwrap());
    let mut page = Page::with(1 << 20, settings).await;
    assert_eq!(page.links.current(), "https://jobs.example/");
    let headers = |token: &str, users: &[&str]| {
        let mut headers = vec![
            ("Host", "jobs.example".to_owned()),
            ("Origin", "https://jobs.example".to_owned()),
            ("Content-Type", "application/json".to_owned()),
            ("Metaservice-Proxy", token.to_owned()),
        ];
        headers.extend(users.iter().map(|user| ("Metaservice-User", (*user).to_owned())));
        headers
    };
    let right = headers(proxy.token(), &["anna"]);
    let session = page.request("GET", "/api/session", &right, "").await.json();
    assert_eq!((&session["user"], &session["role"]), (&"anna".into(), &"watch".into()));
    assert_eq!(session["can"]["signOut"], false);
    drop(page.socket("/api/jobs", &right).await.unwrap());
    let prune = page.request("POST", "/api/prune", &right, "{}").await;
    assert_eq!(prune.status, 403, "the role is that of the user");
    for wrong in [
        headers(proxy.token(), &[]),
        headers(proxy.token(), &["anna", "anna"]),
        headers(proxy.token(), &["nginx"]),
        headers(proxy.token(), &["olaf"]),
        headers(anna.token(), &["anna"]),
        headers("", &["anna"]),
    ] {
        assert_eq!(page.request("GET", "/api/session", &wrong, "").await.status, 401);
    }
    let mut foreign = right.clone();
    foreign[1].1 = "https://evil.example".to_owned();
    assert_eq!(page.request("POST", "/api/prune", &foreign, "{}").await.status, 403);
    assert_eq!(page.socket("/api/jobs", &foreign).await.err(), Some(403));

    // Also a browser that has signed in is no one with a wrong header.
    page.enter_with(anna.token()).await;
    assert_eq!(page.get("/api/session").await.status, 200);
    let wrong = page.request("GET", "/api/session", &headers("x", &["anna"]), "").await;
    assert_eq!(wrong.status, 401);
    assert_eq!(page.exchange(proxy.token()).await.status, 401, "a proxy does not sign in");
}

#[tokio::test]
async fn with_tls_the_cookie_is_for_tls_alone() {
    let (identity, made) = identity();
    let mut settings = Settings::new("127.0.0.1:0".parse().unwrap());
    settings.identity = Some(identity);
    let mut page = Page::with(1 << 20, settings).await;
    let (address, link) = (page.address, page.links.current());
    let token = link.strip_prefix(&format!("https://{address}/#token=")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let trusted = directory.path().join("certificate");
    std::fs::write(&trusted, &made.certificate).unwrap();
    let curl = tokio::process::Command::new("curl")
        .args([
            "-si",
            "--cacert",
            trusted.to_str().unwrap(),
            "-H",
            "Content-Type: application/json",
        ])
        .args(["-H", &format!("Origin: https://localhost:{}", address.port()), "-d"])
        .arg(format!("{{\"token\":\"{token}\"}}"))
        .arg(format!("https://localhost:{}/session", address.port()))
        .output();
    let answer = String::from_utf8(curl.await.unwrap().stdout).unwrap();
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    assert!(answer.contains("; HttpOnly; SameSite=Strict; Secure"), "{answer}");
    // Without TLS, there is no answer.
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut bytes = Vec::new();
    let _ = plain.read_to_end(&mut bytes).await;
    assert!(!bytes.starts_with(b"HTTP"), "{bytes:?}");
}

#[tokio::test]
async fn what_is_open_ends_when_its_user_signs_out() {
    let mut page = Page::open().await;
    let mut first = page.socket("/api/jobs", &page.own()).await.unwrap();
    next(&mut first).await;
    let first_cookie = page.cookie.clone();
    page.enter().await;
    let mut other = page.socket("/api/jobs", &page.own()).await.unwrap();
    next(&mut other).await;
    page.cookie = first_cookie;
    assert_eq!(page.request("DELETE", "/api/session", &page.own(), "").await.status, 204);
    while first.next().await.is_some_and(|message| message.is_ok()) {}
    // That of another browser continues.
    other.send(Message::Ping("still open".into())).await.unwrap();
    while !matches!(other.next().await.unwrap().unwrap(), Message::Pong(_)) {}
}
