//! The likely causes of errors of a connection, with real servers.
#![allow(clippy::unwrap_used)]

mod servers;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use metaservice_fleet::queue::{Cause, ConnectError, Queue, Settings};
use servers::One;

/// A certificate, as a file of certificates has it.
const AUTHORITY: &str = "\
-----BEGIN CERTIFICATE-----
MIIBMDCB46ADAgECAhRFf+gr4/jgMLWgAbG1IqAkbTNRxDAFBgMrZXAwDTELMAkG
A1UEAwwCY2EwIBcNMjYxMTI4MDk1ODMxWhgPMjEyNjExMDQwOTU4MzFaMA0xCzAJ
BgNVBAMMAmNhMCowBQYDK2VwAyEACYf5eMlpf6Ii0ZWtTRqm6o3m14fClw979HNW
32cctB+jUzBRMB0GA1UdDgQWBBRWFEwW5D3Zlx3yoxDxssmfqYaTlDAfBgNVHSME
GDAWgBRWFEwW5D3Zlx3yoxDxssmfqYaTlDAPBgNVHRMBAf8EBTADAQH/MAUGAytl
cANBAGDgSzs+0cIJF97irr1zPDt2r+u1yXCh6KlTeitPYOPU3FHozJ43GiJNIO+n
L398/RSfWAtkqcmca2KVRP+ShAI=
-----END CERTIFICATE-----
";

async fn failed(url: &str, ca: Option<&Path>) -> ConnectError {
    let mut settings = Settings::new(url);
    settings.ca = ca.map(Path::to_owned);
    Queue::connect(&settings).await.unwrap_err()
}

async fn cause(url: &str, ca: Option<&Path>) -> Option<Cause> {
    failed(url, ca).await.likely()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_wrong_is_told_from_others() {
    let server = One::with_roles();
    server.queue_of("admin").await;
    let port = server.url().rsplit_once(':').unwrap().1.to_owned();
    let error = failed(&format!("tls://admin:secret@127.0.0.1:{port}"), None).await;
    assert_eq!(error.likely(), Some(Cause::Plain));
    let text = error.to_string();
    assert!(text.contains(&format!("queue at tls://127.0.0.1:{port}: ")), "{text}");
    assert!(!text.contains("secret"), "{text}");
    let wrong = format!("nats://admin:wrong@127.0.0.1:{port}");
    for url in [wrong, server.url()] {
        assert_eq!(cause(&url, None).await, Some(Cause::Credentials), "{url}");
    }
    assert_eq!(cause("nats://127.0.0.1:1", None).await, Some(Cause::Refused));
    let nowhere = "nats://no-such-host.invalid:4222";
    assert_eq!(cause(nowhere, None).await, Some(Cause::Name));
    let missing = PathBuf::from("/no/such/file.pem");
    let url = format!("tls://127.0.0.1:{port}");
    assert_eq!(cause(&url, Some(&missing)).await, Some(Cause::CaFile));
    // The server could be another one: it shows no certificate.
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(AUTHORITY.as_bytes()).unwrap();
    let plain = format!("nats://admin:admin@127.0.0.1:{port}");
    assert_eq!(cause(&plain, Some(file.path())).await, Some(Cause::Plain));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_something_else_is_silent() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    assert_eq!(cause(&url, None).await, Some(Cause::Silent));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_jetstream_is_no_queue() {
    let server = One::without_jetstream();
    let mut likely = Some(Cause::Refused);
    while likely == Some(Cause::Refused) {
        likely = cause(&server.url(), None).await;
    }
    assert_eq!(likely, Some(Cause::JetStream));
}
