use super::*;

fn record(name: &str, verdict: Decision) -> Record {
    let mut record = Record::new(Protocol::Tcp, 5);
    record.name = Some(name.to_owned());
    record.port = Some(443);
    record.verdict = verdict;
    record.reason = if verdict == Decision::Allowed { Reason::Ended } else { Reason::NoRule };
    record
}

fn file(limit: u64) -> Option<LogFile> {
    Some(LogFile::new(tempfile::tempfile().unwrap(), limit))
}

#[tokio::test]
async fn a_follower_gets_each_line_once_and_then_the_end() {
    let (log, _denials) = Log::new(file(1 << 20));
    log.record(record("a.example", Decision::Denied));
    let mut follower = log.follow().unwrap();
    let first = follower.next().await.unwrap().unwrap();
    assert_eq!(first.iter().filter(|byte| **byte == b'\n').count(), 1);
    let (next, ()) = tokio::join!(follower.next(), async {
        log.record(record("b.example", Decision::Allowed));
    });
    assert!(String::from_utf8(next.unwrap().unwrap()).unwrap().contains("b.example"));
    log.record(record("c.example", Decision::Allowed));
    log.end();
    assert!(follower.next().await.unwrap().is_some());
    assert_eq!(follower.next().await.unwrap(), None);
}

#[test]
fn a_log_of_many_chunks_is_read_line_by_line() {
    let (log, _denials) = Log::new(file(1 << 20));
    for number in 0..2000 {
        log.record(record(&format!("n{number}.example"), Decision::Allowed));
    }
    let (mut follower, mut text) = (log.follow().unwrap(), Vec::new());
    while let Some(lines) = follower.read().unwrap() {
        assert_eq!(lines.last(), Some(&b'\n'));
        text.extend(lines);
    }
    let text = String::from_utf8(text).unwrap();
    for (number, line) in text.lines().enumerate() {
        assert!(line.contains(&format!("\"n{number}.example\"")), "{line}");
    }
    assert_eq!(text.lines().count(), 2000);
}

#[test]
fn what_does_not_fit_into_the_file_is_counted() {
    let (log, _denials) = Log::new(file(1000));
    for _ in 0..100 {
        log.record(record("a.example", Decision::Allowed));
    }
    log.count_unrecorded();
    let lines = log.follow().unwrap().read().unwrap().unwrap();
    let written = lines.iter().filter(|byte| **byte == b'\n').count() as u64;
    assert!(lines.len() <= 1000 && written > 0);
    let totals = log.totals();
    assert_eq!((totals.allowed, totals.denied), (100, 1));
    assert_eq!(totals.unrecorded, 101 - written);
}

#[test]
fn the_end_of_a_file_is_reported_once_and_the_rest_is_counted() {
    let ends = |file: File, limit| {
        let (sender, ends) = std::sync::mpsc::channel();
        let log = LogFile::new(file, limit).on_end(move |end| sender.send(end).unwrap());
        let (log, _denials) = Log::new(Some(log));
        for _ in 0..5 {
            log.record(record("a.example", Decision::Allowed));
        }
        let unrecorded = log.totals().unrecorded;
        drop(log);
        (ends.iter().collect::<Vec<_>>(), unrecorded)
    };
    let (full, unrecorded) = ends(tempfile::tempfile().unwrap(), 300);
    assert!(matches!(full[..], [LogEnd::Full]), "{full:?}");
    assert!((1..5).contains(&unrecorded), "{unrecorded}");
    let disk = File::options().read(true).append(true).open("/dev/full").unwrap();
    let (failed, unrecorded) = ends(disk, 1 << 20);
    let [LogEnd::Failed(error)] = &failed[..] else { panic!("{failed:?}") };
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(unrecorded, 5);
}

#[test]
fn a_name_that_does_not_resolve_is_reported_once() {
    let (log, mut denials) = Log::new(None);
    for _ in 0..2 {
        let mut allowed = record("a.example", Decision::Allowed);
        allowed.reason = Reason::Unresolved;
        log.record(allowed);
    }
    assert_eq!(denials.try_recv().unwrap().record.reason, Reason::Unresolved);
    assert!(denials.try_recv().is_err());
}

#[test]
fn only_the_first_denial_of_a_name_and_a_port_is_reported() {
    let (log, mut denials) = Log::new(None);
    log.record(record("a.example", Decision::Denied));
    log.record(record("a.example", Decision::Denied));
    let mut other = record("a.example", Decision::Denied);
    other.port = Some(80);
    log.record(other);
    log.record(record("b.example", Decision::Allowed));
    for number in 0..2 * MAX_DENIALS {
        log.record(record(&format!("n{number}.example"), Decision::Denied));
    }
    let first = denials.try_recv().unwrap();
    assert_eq!(first.record.name.as_deref(), Some("a.example"));
    assert_eq!(first.rule.as_deref(), Some("a.example:443"));
    assert_eq!(denials.try_recv().unwrap().rule.as_deref(), Some("a.example:80"));
    let rest = std::iter::from_fn(|| denials.try_recv().ok()).count();
    assert_eq!(rest, MAX_DENIALS - 2);
    assert!(log.follow().is_none());
}
