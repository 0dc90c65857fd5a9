//! Files, lists, odd actions, and post-log.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use futures_util::StreamExt;
use metaservice_testing::host::{Agent, Artifact, Host, Reply, make_fifo, read_artifact};
use metaservice_testing::noise;
use metaservice_testing::wait::TIMEOUT;
use tokio::time::timeout;

use crate::AGENT;

async fn idle() -> (Host, Agent) {
    let host = Host::start(&["sleep", "1000"]).await;
    let agent = Agent::start(AGENT, &host).await;
    (host, agent)
}

fn file(bytes: &[u8]) -> Artifact {
    Artifact::File { bytes: bytes.to_vec(), length: Some(bytes.len() as u64) }
}

#[tokio::test]
async fn files_arrive_exactly() {
    let (host, agent) = idle().await;
    let directory = tempfile::tempdir().unwrap();
    for size in [0, 1, 256 * 1024 - 1, 256 * 1024, 256 * 1024 + 1, 20_000_000] {
        let path = directory.path().join("file");
        let bytes = noise(size, 1);
        std::fs::write(&path, &bytes).unwrap();
        assert!(host.artifact(&path).await == file(&bytes), "{size}");
    }
    let link = directory.path().join("link");
    symlink(directory.path().join("file"), &link).unwrap();
    assert!(matches!(host.artifact(&link).await, Artifact::File { .. }));
    agent.stop().await;
}

#[tokio::test]
async fn anything_but_a_file_is_not_found_and_never_hangs() {
    let (host, agent) = idle().await;
    let directory = tempfile::tempdir().unwrap();
    make_fifo(&directory.path().join("fifo"));
    let socket = std::os::unix::net::UnixListener::bind(directory.path().join("socket")).unwrap();
    symlink("loop", directory.path().join("loop")).unwrap();
    let inside = directory.path().join("fifo/below");
    for name in ["fifo", "socket", "", "missing", "loop"] {
        let found = host.artifact(directory.path().join(name)).await;
        assert_eq!(found, Artifact::NotFound, "{name}");
    }
    for path in [Path::new("/dev/zero"), Path::new("/dev/tty"), &inside, Path::new("")] {
        assert_eq!(host.artifact(path).await, Artifact::NotFound, "{}", path.display());
    }
    drop(socket);
    agent.stop().await;
}

#[tokio::test]
async fn files_of_the_kernel_arrive_whole() {
    let (host, agent) = idle().await;
    let version = std::fs::read("/proc/version").unwrap();
    assert_eq!(host.artifact("/proc/version").await, file(&version));
    // Larger than a block: one line for each of many thousand mappings or symbols.
    let large = std::fs::read("/proc/kallsyms").unwrap();
    let Artifact::File { bytes, length } = host.artifact("/proc/kallsyms").await else { panic!() };
    assert_eq!(bytes.len(), large.len());
    assert_eq!(length, if large.len() >= 256 * 1024 { None } else { Some(large.len() as u64) });
    // Its size is 4096, and it has less content.
    let short = "/sys/kernel/mm/transparent_hugepage/enabled";
    if let Ok(content) = std::fs::read(short) {
        assert_eq!(host.artifact(short).await, file(&content));
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_growing_file_arrives_as_it_was_when_it_was_opened() {
    let (host, agent) = idle().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("growing");
    let mut growing = std::fs::File::create(&path).unwrap();
    growing.write_all(&vec![1; 30_000_000]).unwrap();
    let (headers, mut body) = host.artifact_begun(&path).await;
    growing.write_all(&vec![2; 10_000_000]).unwrap();
    assert!(read_artifact(&headers, &mut body).await == file(&vec![1; 30_000_000]));
    agent.stop().await;
}

#[tokio::test]
async fn a_shrinking_file_breaks_the_reply() {
    let (host, agent) = idle().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shrinking");
    std::fs::write(&path, vec![1; 50_000_000]).unwrap();
    let (headers, mut body) = host.artifact_begun(&path).await;
    std::fs::File::options().write(true).open(&path).unwrap().set_len(1_000_000).unwrap();
    assert_eq!(read_artifact(&headers, &mut body).await, Artifact::Broken);
    agent.stop().await;
}

#[tokio::test]
async fn a_slow_fetch_delays_nothing_else() {
    let (host, agent) = idle().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("large");
    std::fs::write(&path, vec![1; 50_000_000]).unwrap();
    let mut slow = Vec::new();
    for _ in 0..8 {
        slow.push(host.artifact_begun(&path).await);
    }
    let small = directory.path().join("small");
    std::fs::write(&small, b"x").unwrap();
    assert_eq!(host.artifact(&small).await, file(b"x"));
    assert!(host.list(directory.path()).await.0.is_some());
    drop(slow);
    agent.stop().await;
}

#[tokio::test]
async fn a_list_has_all_plain_files_and_nothing_else() {
    let (host, agent) = idle().await;
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    std::fs::create_dir_all(root.join("a/b/c")).unwrap();
    for name in ["top", "a/one", "a/b/c/two", "\u{1F980} \"q\"\n"] {
        std::fs::write(root.join(name), b"").unwrap();
    }
    std::fs::write(root.join(std::ffi::OsStr::from_bytes(b"bad-\xff")), b"").unwrap();
    symlink(root, root.join("a/b/loop")).unwrap();
    symlink("top", root.join("link")).unwrap();
    make_fifo(&root.join("fifo"));
    let at = |name: &str| root.join(name).to_str().unwrap().to_owned();
    let expected: BTreeSet<String> =
        ["top", "a/one", "a/b/c/two", "\u{1F980} \"q\"\n"].map(at).into();
    let (files, not_found) = host.list(root).await;
    let files = files.unwrap();
    assert!(files.is_sorted());
    assert_eq!((files.into_iter().collect::<BTreeSet<_>>(), not_found), (expected, false));

    assert_eq!(host.list(root.join("missing")).await, (None, true));
    assert_eq!(host.list(root.join("top")).await, (Some(vec![at("top")]), false));
    assert_eq!(host.list("/dev/null").await, (Some(vec![]), false));
    agent.stop().await;
}

#[tokio::test]
async fn a_hundred_thousand_files_are_listed_quickly() {
    let (host, agent) = idle().await;
    let directory = tempfile::tempdir().unwrap();
    for branch in 0..100 {
        let branch = directory.path().join(format!("{branch:02}"));
        std::fs::create_dir(&branch).unwrap();
        (0..1000).for_each(|n| std::fs::write(branch.join(format!("{n:03}")), b"").unwrap());
    }
    let files = host.list(directory.path()).await.0.unwrap();
    assert_eq!(files.len(), 100_000);
    assert!(files.is_sorted());
    agent.stop().await;
}

#[tokio::test]
async fn unreadable_parts_are_left_out() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // Root can read everything, so this agent runs as another user.
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    std::fs::set_permissions(root, PermissionsExt::from_mode(0o755)).unwrap();
    for name in ["open", "shut"] {
        std::fs::create_dir(root.join(name)).unwrap();
        std::fs::write(root.join(name).join("file"), b"x").unwrap();
        std::fs::write(root.join(name).join("secret"), b"x").unwrap();
        let secret = root.join(name).join("secret");
        std::fs::set_permissions(secret, PermissionsExt::from_mode(0o000)).unwrap();
    }
    std::fs::set_permissions(root.join("shut"), PermissionsExt::from_mode(0o000)).unwrap();
    let program = root.join("agent");
    std::fs::copy(env!("CARGO_BIN_EXE_metaservice-guest"), &program).unwrap();
    let host = Host::start(&["true"]).await;
    let mut agent = tokio::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&program)
        .args([
            "--host",
            &host.address.to_string(),
            "--state",
            "/tmp/metaservice-test-unprivileged",
        ])
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    assert!(host.result().await.0);
    let at = |name: &str| root.join(name).to_str().unwrap().to_owned();
    assert_eq!(host.list(root).await, (Some(vec![at("agent"), at("open/file")]), false));
    assert_eq!(host.list(root.join("shut")).await, (Some(vec![]), false));
    assert_eq!(host.artifact(root.join("open/secret")).await, Artifact::NotFound);
    let pid = rustix::process::Pid::from_raw(agent.id().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    agent.wait().await.unwrap();
    std::fs::remove_dir_all("/tmp/metaservice-test-unprivileged").unwrap();
}

#[tokio::test]
async fn unknown_and_repeated_actions_are_ignored() {
    let (host, agent) = idle().await;
    host.push("u-1", "dance", "", None, false);
    let (sender, path) = (host.expect("twice"), tempfile::NamedTempFile::new().unwrap());
    std::fs::write(path.path(), vec![0; 5_000_000]).unwrap();
    let path = path.path().to_str().unwrap();
    host.push("twice", "get-artifact", path, None, false);
    host.push("twice", "get-artifact", path, None, false);
    let Reply::Post { headers, mut body } = timeout(TIMEOUT, sender).await.unwrap().unwrap() else {
        panic!()
    };
    assert!(matches!(read_artifact(&headers, &mut body).await, Artifact::File { .. }));
    // The agent still polls.
    assert_eq!(host.artifact("/nowhere").await, Artifact::NotFound);
    agent.stop().await;
}

#[tokio::test]
async fn actions_are_served_after_the_result_too() {
    let host = Host::start(&["true"]).await;
    let agent = Agent::start(AGENT, &host).await;
    host.result().await;
    let version = std::fs::read("/proc/version").unwrap();
    assert_eq!(host.artifact("/proc/version").await, file(&version));
    agent.stop().await;
}

async fn post_log(host: &Host, file: &str, input: &[u8]) -> std::process::Output {
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_metaservice-guest"))
        .args(["--host", &host.address.to_string(), "post-log", file])
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stdin, input).await.unwrap();
    drop(stdin);
    child.wait_with_output().await.unwrap()
}

#[tokio::test]
async fn post_log_sends_a_file_or_its_input() {
    let host = Host::start(&["true"]).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let bytes = noise(3_000_000, 1);
    std::fs::write(file.path(), &bytes).unwrap();
    assert!(post_log(&host, file.path().to_str().unwrap(), b"").await.status.success());
    assert!(host.log() == bytes);
    assert!(post_log(&host, "-", b"from input\n").await.status.success());
    assert!(host.log().ends_with(b"from input\n"));
    assert_eq!(host.log_requests(), 2);

    let failed = post_log(&host, "/nowhere/log", b"").await;
    assert_eq!(failed.status.code(), Some(1));
    let said = String::from_utf8(failed.stderr).unwrap();
    assert_eq!(said, "error: cannot read /nowhere/log: No such file or directory\n");
    host.refuse_log(500);
    let failed = post_log(&host, "-", b"x").await;
    let said = String::from_utf8(failed.stderr).unwrap();
    assert!(said.contains("the service answered 500: InternalError it is"), "{said}");
    host.assert_strict();
}

#[tokio::test]
async fn errors_of_the_command_line_name_the_mistake() {
    let run = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_metaservice-guest"));
        let output = command.args(arguments).output().await.unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, said) = run(&["--config", "/nowhere/c.yml"]).await;
    assert_eq!(status, Some(1));
    assert_eq!(
        said,
        "error: cannot read the configuration /nowhere/c.yml: No such file or directory\n"
    );
    let (status, said) = run(&["--host", "example.invalid"]).await;
    assert_eq!(status, Some(2));
    assert!(
        said.starts_with("error: 'example.invalid' is neither an address nor a name"),
        "{said}"
    );
}

#[tokio::test]
async fn a_reply_that_the_host_has_dropped_ends() {
    let (host, agent) = idle().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), vec![0; 50_000_000]).unwrap();
    let (_, body) = host.artifact_begun(file.path()).await;
    let mut stream = body.into_data_stream();
    assert!(stream.next().await.is_some());
    drop(stream);
    assert_eq!(host.artifact("/nowhere").await, Artifact::NotFound);
    agent.stop().await;
}
