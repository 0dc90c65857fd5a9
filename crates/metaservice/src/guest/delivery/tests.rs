use super::*;

fn delivery() -> Delivery {
    let agents = [("linux-x86_64", "abc"), ("linux-a;b", "x")];
    Delivery::new(agents.map(|(name, agent)| (name.to_owned(), Bytes::from(agent))).into())
}

#[test]
fn agents_are_found_by_their_platform_and_nothing_else_is() {
    let delivery = delivery();
    assert_eq!(delivery.find("/engine/v1/agent/linux-x86_64"), Some("abc".into()));
    for path in
        ["/engine/v1/agent", "/engine/v1/agent/", "/engine/v1/agent/linux-arm", "/agent/install"]
    {
        assert_eq!(delivery.find(path), None, "{path}");
    }
    assert_eq!(Delivery::new(BTreeMap::new()).find("/engine/v1/agent/install"), None);
}

#[test]
fn the_script_knows_the_digests() {
    let script = delivery().find("/engine/v1/agent/install").unwrap();
    let script = std::str::from_utf8(&script).unwrap();
    let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert!(script.contains(&format!("linux-x86_64) expected={digest} ;;\n")), "{script}");
    assert!(!script.contains("a;b") && !script.contains("#DIGESTS#"));
    assert!(script.starts_with("#!/bin/sh\n") && script.ends_with("\nmain \"$@\"\n"));
}
