use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::super::instance::{CloudCard, PublicKey};
use super::super::tokens::Tokens;
use super::super::tree;
use super::super::user_data::{InvalidUserData, UserData};
use super::*;

const SCRIPT: &str = "#!/bin/sh\necho agent\n";

fn cloud() -> Cloud {
    let key = |text: &str| text.parse::<PublicKey>().unwrap();
    Cloud::new("builder")
        .public_key(key("ssh-ed25519 AAAA one"))
        .public_key(key(" ecdsa-sha2-nistp256 BBBB= \n"))
        .card(CloudCard { mac: [2, 0, 0, 0, 0, 0xa], address: Some([169, 254, 1, 2].into()) })
        .card(CloudCard { mac: [2, 0, 0, 0, 0, 0xb], address: None })
}

fn ask(server: &mut Server, path: &str) -> Answer {
    let question = Question { method: "GET", path, token: None, ttl: None };
    server.answer(question, Instant::now(), || unreachable!("no token is asked for"))
}

#[track_caller]
fn text(server: &mut Server, path: &str) -> String {
    match ask(server, path) {
        Answer::Found(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        other => panic!("{path}: {other:?}"),
    }
}

/// Reads everything below a directory as cloud-init does: by its lists.
fn crawl(server: &mut Server, directory: &str, found: &mut BTreeSet<String>) {
    for line in text(server, directory).lines() {
        match line.split_once('=') {
            Some((number, _)) => crawl(server, &format!("{directory}{number}/"), found),
            None if line.ends_with('/') => crawl(server, &format!("{directory}{line}"), found),
            None => {
                let path = format!("{directory}{line}");
                let value = text(server, &path);
                found.insert(format!("{path} {}", value.lines().next().unwrap_or_default()));
            }
        }
    }
}

#[test]
fn everything_is_found_by_the_lists_and_is_what_was_said() {
    let cloud = cloud();
    let mut server = Server::new(&cloud, Some(SCRIPT));
    let id = cloud.instance_id();
    assert!(id.len() == 19 && id.starts_with("i-"), "{id}");
    let expected: BTreeSet<String> = [
        "ami-launch-index 0".to_owned(),
        "hostname builder".into(),
        format!("instance-id {id}"),
        "instance-type metaservice".into(),
        "local-hostname builder".into(),
        "local-ipv4 169.254.1.2".into(),
        "mac 02:00:00:00:00:0a".into(),
        "network/interfaces/macs/02:00:00:00:00:0a/device-number 0".into(),
        "network/interfaces/macs/02:00:00:00:00:0a/local-ipv4s 169.254.1.2".into(),
        "network/interfaces/macs/02:00:00:00:00:0a/mac 02:00:00:00:00:0a".into(),
        "network/interfaces/macs/02:00:00:00:00:0a/vpc-id vpc-local".into(),
        "network/interfaces/macs/02:00:00:00:00:0b/device-number 1".into(),
        "network/interfaces/macs/02:00:00:00:00:0b/mac 02:00:00:00:00:0b".into(),
        "network/interfaces/macs/02:00:00:00:00:0b/vpc-id vpc-local".into(),
        "placement/availability-zone local-1a".into(),
        "placement/region local-1".into(),
        "public-keys/0/openssh-key ssh-ed25519 AAAA one".into(),
        "public-keys/1/openssh-key ecdsa-sha2-nistp256 BBBB=".into(),
    ]
    .into();
    for version in tree::VERSIONS {
        let mut found = BTreeSet::new();
        let directory = format!("/{version}/meta-data/");
        crawl(&mut server, &directory, &mut found);
        let found: BTreeSet<String> =
            found.into_iter().map(|line| line[directory.len()..].to_owned()).collect();
        assert_eq!(found, expected);
        assert_eq!(text(&mut server, &format!("/{version}/user-data")), SCRIPT);
        assert_eq!(text(&mut server, &format!("/{version}")), "dynamic/\nmeta-data/\nuser-data");
        let document = text(&mut server, &format!("/{version}/dynamic/instance-identity/document"));
        let document: serde_json::Value = serde_json::from_str(&document).unwrap();
        assert_eq!(
            (document["instanceId"].as_str(), document["region"].as_str()),
            (Some(id), Some("local-1"))
        );
    }
}

#[test]
fn what_was_not_said_is_not_there() {
    let mut server = Server::new(&Cloud::new("bare"), None);
    for path in [
        "/",
        "",
        "/latest/user-data",
        "/latest/meta-data/public-keys/",
        "/latest/meta-data/network",
        "/latest/meta-data/mac",
        "/latest/meta-data/iam/security-credentials/",
        "/latest/api",
        "/2020-01-01/meta-data/",
        "/latest//meta-data/",
        "/latest/meta-data/../user-data",
        "/latest/meta-data/hostname/",
        "/Latest/meta-data/",
        "/nocloud",
        "/nocloud/network-config",
        "/openstack/latest/meta_data.json",
        "/engine/v1/agent/install",
    ] {
        assert_eq!(ask(&mut server, path), Answer::NotFound, "{path}");
    }
    assert_eq!(text(&mut server, "/nocloud/user-data"), "");
}

#[test]
fn a_seed_says_the_same() {
    let cloud = cloud();
    let mut server = Server::new(&cloud, Some(SCRIPT));
    let json = |text: String| serde_json::from_str::<serde_json::Value>(&text).unwrap();
    let seed = json(text(&mut server, "/nocloud/meta-data"));
    assert_eq!(seed["instance-id"].as_str(), Some(cloud.instance_id()));
    assert_eq!(seed["public-keys"][0], "ssh-ed25519 AAAA one");
    assert_eq!(text(&mut server, "/nocloud/user-data"), SCRIPT);
    let network = json(text(&mut server, "/nocloud/network-config"));
    assert_eq!(network["ethernets"]["card1"]["match"]["macaddress"], "02:00:00:00:00:0b");
}

#[test]
fn a_token_lives_as_long_as_was_asked_for() {
    let mut server = Server::new(&cloud(), None);
    let begin = Instant::now();
    let put = |server: &mut Server, ttl, now| {
        let question = Question { method: "PUT", path: TOKEN_PATH, token: None, ttl };
        server.answer(question, now, || "s3cret".to_owned())
    };
    for ttl in [None, Some(""), Some("0"), Some("21601"), Some("-1"), Some("1.5"), Some("x")] {
        assert_eq!(put(&mut server, ttl, begin), Answer::BadRequest, "{ttl:?}");
    }
    assert_eq!(put(&mut server, Some("21600"), begin), Answer::Token("s3cret".into(), 21_600));
    let mut get = |token, after| {
        let question =
            Question { method: "GET", path: "/latest/meta-data/hostname", token, ttl: None };
        server.answer(question, begin + Duration::from_secs(after), String::new)
    };
    assert_eq!(get(Some("s3cret"), 21_599), Answer::Found("builder".into()));
    assert_eq!(get(Some("s3cret"), 21_600), Answer::Unauthorized);
    for wrong in ["", "s3cre", "s3cret2", "S3cret"] {
        assert_eq!(get(Some(wrong), 0), Answer::Unauthorized, "{wrong:?}");
    }
    assert_eq!(get(None, 0), Answer::Found("builder".into()), "the older version has no tokens");
}

#[test]
fn methods_are_those_of_the_table() {
    let mut server = Server::new(&cloud(), None);
    for (method, path) in [
        ("GET", TOKEN_PATH),
        ("POST", TOKEN_PATH),
        ("PUT", "/latest/meta-data/"),
        ("HEAD", "/latest/meta-data/hostname"),
    ] {
        let question = Question { method, path, token: None, ttl: Some("60") };
        let answer = server.answer(question, Instant::now(), String::new);
        assert_eq!(answer, Answer::MethodNotAllowed, "{method} {path}");
    }
}

#[test]
fn instances_differ_and_their_machines_are_recognised() {
    let (one, other) = (Cloud::new("a"), Cloud::new("a"));
    assert_ne!(one.instance_id(), other.instance_id());
    assert_ne!(one.system_uuid(), other.system_uuid());
    let [a, b, ..] = one.system_uuid();
    assert_eq!((a, b >> 4), (0xec, 2));
}

#[test]
fn what_is_no_public_key() {
    for text in [
        "",
        "ssh-ed25519",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        "ssh-rsa A\nssh-rsa B",
        "from=\"x\" ssh-rsa AAAA",
        "ssh-rsa A;B",
    ] {
        assert!(text.parse::<PublicKey>().is_err(), "{text:?}");
    }
}

#[test]
fn user_data_have_a_kind() {
    for known in [
        "#!/bin/sh\n",
        "#cloud-config\n",
        "#Cloud-Config\n",
        "#include\nhttp://x",
        "## template: jinja\n",
        "Content-Type: multipart/mixed",
        "\u{1f}",
    ] {
        let mut bytes = known.as_bytes().to_vec();
        if known == "\u{1f}" {
            bytes.push(0x8b);
        }
        assert!(UserData::parse(bytes).is_ok(), "{known}");
    }
    assert_eq!(UserData::parse(*b"echo hello"), Err(InvalidUserData::UnknownKind));
    assert_eq!(UserData::parse(Vec::new()), Err(InvalidUserData::UnknownKind));
    let large = [b"#!".as_slice(), &[b' '; 1 << 20]].concat();
    assert_eq!(UserData::parse(large), Err(InvalidUserData::TooLarge((1 << 20) + 2)));
}

/// The parts of a MIME message, by a reader of its own: type and content.
fn parts(message: &[u8]) -> Vec<(String, Vec<u8>)> {
    use base64::Engine as _;
    let text = String::from_utf8(message.to_vec()).unwrap();
    let (_, rest) = text.split_once("boundary=\"").unwrap();
    let (boundary, rest) = rest.split_once('"').unwrap();
    let line = format!("\n--{boundary}");
    let parts = rest.split(&line).skip(1).take_while(|part| !part.starts_with("--"));
    let part = |part: &str| {
        let (head, body) = part.split_once("\n\n").unwrap();
        let kind = head.lines().find_map(|line| line.strip_prefix("Content-Type: ")).unwrap();
        assert!(body.lines().all(|line| line.len() <= 76));
        let body = base64::engine::general_purpose::STANDARD.decode(body.replace('\n', ""));
        (kind.to_owned(), body.unwrap())
    };
    parts.map(part).collect()
}

#[test]
fn a_mime_message_of_the_user_is_a_part_of_the_merged_one() {
    let own =
        b"Content-Type: multipart/mixed; boundary=\"==metaservice==\"\n\n--==metaservice==--\n";
    let cloud = Cloud::new("a").user_data(UserData::parse(*own).unwrap());
    let message = text(&mut Server::new(&cloud, Some(SCRIPT)), "/latest/user-data");
    assert!(
        message.starts_with("Content-Type: multipart/mixed; boundary=\"==metaservice===\"\n"),
        "{message}"
    );
    assert!(message.contains(std::str::from_utf8(own).unwrap()));
}

proptest! {
    #[test]
    fn merged_user_data_come_apart_again(content in proptest::collection::vec(any::<u8>(), 0..400)) {
        let own = [b"#!".as_slice(), &content].concat();
        let cloud = Cloud::new("a").user_data(UserData::parse(own.clone()).unwrap());
        let Answer::Found(message) = ask(&mut Server::new(&cloud, Some(SCRIPT)), "/latest/user-data")
            else { panic!() };
        let shell = "text/x-shellscript".to_owned();
        prop_assert_eq!(parts(&message), [(shell.clone(), own), (shell, SCRIPT.into())]);
    }

    #[test]
    fn no_question_panics_or_finds_what_is_not_in_a_list(
        path in "(/latest|/nocloud|)(/meta-data|/user-data|/dynamic|/api|)(/[a-z0-9:./-]{0,12}){0,3}",
        method in "(GET|PUT|POST)", token in proptest::option::of("[a-f0-9]{0,8}"),
    ) {
        let mut server = Server::new(&cloud(), Some(SCRIPT));
        let question = Question { method: &method, path: &path, token: token.as_deref(), ttl: None };
        let answer = server.answer(question, Instant::now(), || "t".into());
        let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        if !tree::VERSIONS.contains(&first) && first != "nocloud" {
            prop_assert_eq!(answer, Answer::NotFound);
        } else if token.is_some() {
            prop_assert!(!matches!(answer, Answer::Found(_)));
        }
    }

    #[test]
    fn floods_of_tokens_leave_the_last_ones(count in 1_usize..300) {
        let now = Instant::now();
        let mut tokens = Tokens::default();
        for n in 0..count {
            tokens.issue(n.to_string(), 60, now);
        }
        let alive = (0..count).filter(|n| tokens.is_valid(&n.to_string(), now)).count();
        prop_assert_eq!(alive, count.min(64));
        prop_assert!(tokens.is_valid(&(count - 1).to_string(), now));
    }
}
