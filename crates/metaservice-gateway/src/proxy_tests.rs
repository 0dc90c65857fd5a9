use tokio::net::TcpListener;

use super::*;

fn proxy(variables: &[(&str, &str)]) -> Result<Proxy, (&'static str, InvalidProxy)> {
    Proxy::from_environment(|name| {
        variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    })
}

fn name(text: &str) -> DomainName {
    text.parse().unwrap()
}

#[test]
fn a_proxy_is_used_for_its_ports_and_names() {
    let proxy = proxy(&[
        ("HTTPS_PROXY", "http://upper.example:1"),
        ("https_proxy", "http://a%40b:c@proxy.example:3128/"),
        ("ALL_PROXY", "[2001:db8::1]:8080"),
        ("NO_PROXY", "direct.example, .other.example,10.0.0.0/8,*.third.example"),
    ]);
    let proxy = proxy.unwrap();
    let https = proxy.of(&name("a.example"), 443).unwrap();
    assert_eq!((&https.host, https.port), (&Host::Name(name("proxy.example")), 3128));
    let basic = format!("Basic {}", STANDARD.encode("a@b:c"));
    assert_eq!(https.authorization, Some(basic));
    assert!(!format!("{https:?}").contains("Basic"), "a password is not printed");
    let all = proxy.of(&name("a.example"), 22).unwrap();
    assert_eq!((&all.host, all.port), (&Host::Address("2001:db8::1".parse().unwrap()), 8080));
    for text in ["direct.example", "x.direct.example", "other.example", "a.third.example"] {
        assert_eq!(proxy.of(&name(text), 443), None, "{text}");
    }
}

#[test]
fn other_proxies_are_errors_and_none_is_none() {
    for (value, error) in [
        ("socks5://a.example:1", InvalidProxy::Scheme),
        ("https://a.example:1", InvalidProxy::Scheme),
        ("http://", InvalidProxy::Host),
        ("a.example:http", InvalidProxy::Host),
        ("a.example:70000", InvalidProxy::Host),
    ] {
        assert_eq!(proxy(&[("ALL_PROXY", value)]), Err(("ALL_PROXY", error)), "{value}");
    }
    assert_eq!(proxy(&[("all_proxy", "")]), Ok(Proxy::default()));
    let only_https = proxy(&[("https_proxy", "127.0.0.1:3128")]).unwrap();
    assert!(only_https.of(&name("a.example"), 443).is_some());
    assert!(only_https.of(&name("a.example"), 80).is_none());
    let nothing = proxy(&[("https_proxy", "127.0.0.1:3128"), ("no_proxy", "*")]).unwrap();
    assert_eq!(nothing.of(&name("a.example"), 443), None);
}

/// Asks a proxy that gives this answer. Returns the request, the result, and what follows.
async fn ask(answer: &'static [u8]) -> (String, io::Result<()>, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::parse(&format!("user:pass@{address}")).unwrap();
    let peer = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(answer).await.unwrap();
        String::from_utf8(request).unwrap()
    };
    let client = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let result = server.tunnel(&mut stream, &name("a.example"), 443).await;
        let mut rest = Vec::new();
        if result.is_ok() {
            stream.read_to_end(&mut rest).await.unwrap();
        }
        (result, rest)
    };
    let (request, (result, rest)) = tokio::join!(peer, client);
    (request, result, rest)
}

#[tokio::test]
async fn a_tunnel_carries_what_follows_the_answer() {
    let (request, result, rest) = ask(b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\nbanner").await;
    assert_eq!(
        request,
        "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\
         Proxy-Authorization: Basic dXNlcjpwYXNz\r\n\r\n"
    );
    result.unwrap();
    assert_eq!(rest, b"banner");
}

#[tokio::test]
async fn a_proxy_that_refuses_or_makes_no_sense_is_an_error() {
    let (_, result, _) = ask(b"HTTP/1.1 403 Forbidden\r\n\r\n").await;
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    for answer in [b"HTTP/1.1 200".as_slice(), b"SSH-2.0-x\r\n\r\n"] {
        assert!(ask(answer).await.1.is_err());
    }
}
