//! The list of jobs, and what is done to one.

use metaservice::control::JobState;

use super::*;

#[tokio::test]
async fn the_list_comes_over_a_websocket() {
    let page = Page::open().await;
    let mut socket = page.socket("/api/jobs", &page.own()).await.unwrap();
    let list = loop {
        let list = next(&mut socket).await;
        if list["known"] == true {
            break list;
        }
    };
    let job = &list["jobs"][0];
    assert_eq!(
        (&job["name"], &job["state"], &job["command"]),
        (&JOB.into(), &"waiting".into(), &"make test".into())
    );
    // The page sends nothing: what sends is not the page.
    socket.send(Message::Text("hello".into())).await.unwrap();
    while let Some(Ok(message)) = socket.next().await {
        assert!(!message.is_text(), "{message:?}");
    }
}

#[tokio::test]
async fn a_job_is_killed_when_it_is_the_one_that_was_shown() {
    let page = Page::open().await;
    let client = page.client();
    let started = client.job().await.unwrap().started_ms;
    let kill =
        async |body: String| page.request("POST", "/api/jobs/build/kill", &page.own(), &body).await;
    assert_eq!(kill("{}".to_owned()).await.status, 400);
    assert_eq!(kill(format!("{{\"startedMs\":{}}}", started + 1)).await.status, 410);
    let other = page.request("POST", "/api/jobs/none/kill", &page.own(), "{\"startedMs\":1}").await;
    assert_eq!(other.status, 404);
    assert_eq!(client.job().await.unwrap().state, JobState::Waiting);
    let body = format!("{{\"startedMs\":{started}}}");
    let (killed, ()) = tokio::join!(kill(body), async {
        // The guest fetches its command, and takes the order.
        page.guest.get("/engine/v1/execute").await;
        let action = page.guest.poll().await;
        let reply = metaservice_testing::guest::reply_to(&action);
        assert_eq!(page.guest.post(&reply, b"").await.status, 200, "{action}");
    });
    assert_eq!((killed.status, killed.json()["killed"].as_str()), (200, Some("command")));
}
