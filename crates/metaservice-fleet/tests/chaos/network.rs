//! A worker whose network is cut. It needs the right to make network namespaces.

use std::process::{Command, Stdio};
use std::time::Duration;

use metaservice_fleet::state::Phase;
use metaservice_fleet::view::LEASE;

use super::checks::{has_its_log, runs};
use super::fake::{LONG, now};
use super::process::Part;
use super::request;
use super::servers::One;

/// A network namespace with a link to this host.
struct Link {
    space: String,
    here: String,
}

impl Link {
    /// The link, and the address of its end on this host. `None`: it is not permitted.
    fn new() -> Option<(Self, String)> {
        let id = std::process::id();
        let link = Self { space: format!("ms{id}"), here: format!("msh{id}") };
        let there = format!("msg{id}");
        let net = format!("10.201.{}", id % 250);
        let Self { space, here } = &link;
        let (near, far) = (format!("{net}.1/30"), format!("{net}.2/30"));
        let commands: [&[&str]; 6] = [
            &["netns", "add", space],
            &["link", "add", here, "type", "veth", "peer", "name", &there, "netns", space],
            &["address", "add", &near, "dev", here],
            &["link", "set", here, "up"],
            &["-n", space, "address", "add", &far, "dev", &there],
            &["-n", space, "link", "set", &there, "up"],
        ];
        commands.iter().all(|words| ip(words)).then_some((link, format!("{net}.1")))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        ip(&["link", "delete", &self.here]);
        ip(&["netns", "delete", &self.space]);
    }
}

fn ip(words: &[&str]) -> bool {
    let status = Command::new("ip").args(words).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_cut_off_ends_its_job_before_another_begins_it() {
    let Some((link, address)) = Link::new() else {
        eprintln!("skipped: this user may make no network namespace, or there is no `ip`");
        return;
    };
    let server = One::on(&address).await;
    let queue = server.queue().await;
    let root = tempfile::tempdir().unwrap();
    let part = |name: &str| Part {
        url: server.url(),
        replicas: 1,
        name: name.to_owned(),
        root: root.path().to_owned(),
    };
    let far = part("far").start_in("ip", &["netns", "exec", &link.space]);
    let id = "a".parse().unwrap();
    let mut request = request();
    request.spec.command = vec![LONG.to_owned()];
    queue.submit(&id, &request).await.unwrap();
    let mut follow = queue.follow(&id).await.unwrap();
    while !matches!(follow.next().await.unwrap().phase, Phase::Running { .. }) {}
    let near = part("near").start();
    assert!(ip(&["link", "set", &link.here, "down"]));
    let cut = now();
    let ending = async {
        loop {
            let job = follow.next().await.unwrap();
            if job.outcome().is_some() {
                return job;
            }
        }
    };
    let job = tokio::time::timeout(Duration::from_secs(60), ending).await.unwrap();
    let runs = runs(root.path());
    let [first, second] = [1, 2].map(|attempt| &runs[&("a".to_owned(), attempt)]);
    assert_eq!((first.worker.as_str(), second.worker.as_str()), ("far", "near"));
    let end = first.end.expect("the worker ended its job by itself");
    let lease = u64::try_from(LEASE.as_millis()).unwrap();
    assert!(end < cut + lease && end < second.begin, "{cut} {first:?} {second:?}");
    eprintln!("ended {} ms after the cut, began again after {}", end - cut, second.begin - cut);
    has_its_log(&queue, &id, &job).await;
    assert!(ip(&["link", "set", &link.here, "up"]));
    far.drained().await;
    near.drained().await;
}
