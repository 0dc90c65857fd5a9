//! The network of a guest over the control API, with a network that only keeps what it gets.

use std::sync::Mutex;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use metaservice::MetaService;
use metaservice::control::{
    self, Client, ClientError, Code, Network, NetworkError, NetworkHandle, NetworkLog,
    NetworkPolicy, Publishing,
};
use tokio::net::UnixListener;
use tokio::sync::watch;

use super::{Controlled, controlled, raw};

/// A network whose log has as many lines as `lines` says.
struct Kept {
    policy: Mutex<NetworkPolicy>,
    lines: watch::Receiver<usize>,
}

impl Network for Kept {
    fn policy(&self) -> NetworkPolicy {
        self.policy.lock().unwrap().clone()
    }

    fn set_policy(&self, policy: &NetworkPolicy) -> Result<(), NetworkError> {
        if policy.allow.iter().any(|rule| rule == "*") {
            return Err(NetworkError::Invalid("in the rule *: write 'public'".to_owned()));
        }
        *self.policy.lock().unwrap() = policy.clone();
        Ok(())
    }

    fn log(&self, follow: bool) -> Option<NetworkLog> {
        let line = |number: usize| Ok(Bytes::from(format!("{{\"line\":{number}}}\n")));
        let lines = self.lines.clone();
        let now = *lines.borrow();
        if now == 0 {
            return None;
        }
        let first = futures_util::stream::iter((0..now).map(line));
        let later = futures_util::stream::unfold((lines, now), move |(mut lines, at)| async move {
            lines.wait_for(|lines| *lines > at).await.ok()?;
            Some((line(at), (lines, at + 1)))
        });
        Some(if follow { first.chain(later).boxed() } else { first.boxed() })
    }

    fn publish(&self, spec: &str) -> Publishing {
        let answer = match spec {
            "0:80" => Ok("127.0.0.1:4711".parse().unwrap()),
            "1:80" => Err(NetworkError::Refused("port 1 is taken".to_owned())),
            "2:80" => Err(NetworkError::Ended),
            _ => Err(NetworkError::Invalid(format!("{spec:?} is no port"))),
        };
        Box::pin(async { answer })
    }
}

/// A job with a network whose log has no line yet.
fn with_network() -> (Client, watch::Sender<usize>, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("job.sock");
    let service = MetaService::builder(["true"]).start().unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    let (sender, lines) = watch::channel(0);
    let policy = NetworkPolicy::new(vec!["a.example".to_owned()], Vec::new());
    let mut description = control::Description::from("job");
    description.network = Some(NetworkHandle::new(Kept { policy: Mutex::new(policy), lines }));
    tokio::spawn(control::serve(description, service, listener));
    (Client::new(socket), sender, directory)
}

#[track_caller]
fn code<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> Code {
    answer.unwrap_err().code().unwrap()
}

#[tokio::test]
async fn a_policy_is_changed_by_one_client_at_a_time() {
    let (client, _lines, _directory) = with_network();
    let before = client.network_policy().await.unwrap();
    assert_eq!((&before.allow[..], before.revision), (&["a.example".to_owned()][..], Some(0)));
    let mut changed = before.clone();
    changed.deny.push("b.example".to_owned());
    let after = client.set_network_policy(&changed).await.unwrap();
    assert_eq!((after.deny.len(), after.revision), (1, Some(1)));
    // A client that has not seen the change does not undo it.
    assert_eq!(code(client.set_network_policy(&before).await), Code::Busy);
    assert_eq!(client.network_policy().await.unwrap(), after);
    // A wrong policy changes nothing, and names the rule.
    let wrong = NetworkPolicy::new(vec!["*".to_owned()], Vec::new());
    let error = client.set_network_policy(&wrong).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::InvalidRequest));
    assert_eq!(error.to_string(), "in the rule *: write 'public'");
    assert_eq!(client.network_policy().await.unwrap(), after);
    // Without a revision, each policy is replaced.
    let all = NetworkPolicy::default();
    assert_eq!(client.set_network_policy(&all).await.unwrap().revision, Some(2));
    let (status, _) = raw(&client, "PUT", "/v1/net/policy", r#"{"allowed":[]}"#).await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn the_log_of_the_network_is_followed_to_its_end() {
    let (client, lines, _directory) = with_network();
    assert_eq!(code(client.network_log(false).await.map(drop)), Code::NotFound);
    lines.send_replace(2);
    let text = |bytes: Vec<Bytes>| String::from_utf8(bytes.concat()).unwrap();
    let now = client.network_log(false).await.unwrap().try_collect().await.unwrap();
    assert_eq!(text(now), "{\"line\":0}\n{\"line\":1}\n");
    let mut following = client.network_log(true).await.unwrap();
    let mut seen = String::new();
    while seen.lines().count() < 2 {
        seen += &text(vec![following.try_next().await.unwrap().unwrap()]);
    }
    lines.send_replace(3);
    drop(lines);
    let rest = following.try_collect().await.unwrap();
    assert_eq!(text(rest), "{\"line\":2}\n");
}

#[tokio::test]
async fn a_published_port_has_an_address_or_an_error() {
    let (client, _lines, _directory) = with_network();
    let published = client.publish("0:80").await.unwrap();
    assert_eq!(published.address.to_string(), "127.0.0.1:4711");
    for (spec, expected) in
        [("1:80", Code::Refused), ("2:80", Code::Terminated), ("x", Code::InvalidRequest)]
    {
        assert_eq!(code(client.publish(spec).await), expected, "{spec}");
    }
}

#[tokio::test]
async fn a_job_without_a_network_says_so() {
    let Controlled { client, _directory, .. } = controlled();
    let no_network = "the guest of this job has no network";
    for error in [
        client.network_policy().await.map(drop).unwrap_err(),
        client.set_network_policy(&NetworkPolicy::default()).await.map(drop).unwrap_err(),
        client.network_log(true).await.map(drop).unwrap_err(),
        client.publish("0:80").await.map(drop).unwrap_err(),
    ] {
        assert_eq!((error.code(), error.to_string()), (Some(Code::Refused), no_network.to_owned()));
    }
}
