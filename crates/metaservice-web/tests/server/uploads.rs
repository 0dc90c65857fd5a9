//! Files to the guest.

use super::*;

#[tokio::test]
async fn a_file_of_a_tree_stays_below_its_directory() {
    let page = Page::open().await;
    let started = page.client().job().await.unwrap().started_ms;
    let begin = async |path: &str, member: &str| {
        let body = serde_json::json!({
            "startedMs": started, "path": path, "size": 3, "member": member,
        });
        page.request("POST", "/api/jobs/build/uploads", &page.own(), &body.to_string()).await
    };
    for member in ["../a", "/etc/passwd", "a/../../b", "a//b", "a/", ".", "", "a\0b", "./a"] {
        let answer = begin("/tmp", member).await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (400, Some("Invalid")),
            "{member}"
        );
    }
    assert_eq!(begin("tmp", "a/b").await.status, 400);
    assert_eq!(begin("/tmp\0", "a/b").await.status, 400);
    let deep = format!("{}b", "a/".repeat(200));
    assert_eq!(begin("/tmp", &deep).await.status, 400);
    let long = "a".repeat(5000);
    assert_eq!(begin("/tmp", &long).await.status, 400);
    let answer = begin("/tmp", "tree/sub/file").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.json()["id"].is_string());
}
