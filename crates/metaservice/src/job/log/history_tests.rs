//! Tests of the history and its readers.

use proptest::prelude::*;

use super::*;
use crate::job::log::reader::{LogFrom, LogItem, LogReader};

fn stdout(bytes: impl Into<Bytes>) -> Vec<(LogOutput, Bytes)> {
    vec![(LogOutput::Stdout, bytes.into())]
}

async fn read_all(mut reader: LogReader) -> (Vec<u8>, u64) {
    let (mut bytes, mut missed) = (Vec::new(), 0);
    while let Some(item) = reader.next().await.unwrap() {
        match item {
            LogItem::Bytes(more) => bytes.extend_from_slice(&more),
            LogItem::Missed(count) => {
                assert!(bytes.is_empty(), "without a writer no reader is overtaken");
                missed += count;
            }
        }
    }
    (bytes, missed)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn readers_find_the_last_bytes_and_lines(
        size in 1u64..40,
        chunks in proptest::collection::vec("[ab\n]{0,12}", 0..12),
        asked in 0u64..60,
        lines in 0u64..6,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut history = History::create(&std::env::temp_dir(), size).unwrap();
            let readers = history.readers();
            let all = chunks.concat();
            for chunk in chunks {
                history.append(stdout(chunk)).await;
            }
            let first = all.len().saturating_sub(usize::try_from(size).unwrap());
            let kept = all[first..].to_owned();
            let open = async |from| read_all(readers.open(from, false).await.unwrap()).await;
            prop_assert_eq!(open(LogFrom::Start).await, (kept.clone().into_bytes(), first as u64));
            let place = usize::try_from(asked).unwrap().clamp(first, all.len());
            let missed = (first as u64).saturating_sub(asked);
            prop_assert_eq!(open(LogFrom::Offset(asked)).await, (all.as_bytes()[place..].to_vec(), missed));

            let split: Vec<&str> = kept.split_inclusive('\n').collect();
            let from = split.len().saturating_sub(usize::try_from(lines).unwrap());
            prop_assert_eq!(open(LogFrom::Tail(lines)).await.0, split[from..].concat().into_bytes());
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_following_reader_sees_each_byte_and_the_end() {
    let mut history = History::create(&std::env::temp_dir(), 1000).unwrap();
    let reader = history.readers().open(LogFrom::Start, true).await.unwrap();
    let reading = tokio::spawn(read_all(reader));
    for n in 0..100u8 {
        history.append(stdout(vec![n])).await;
    }
    drop(history);
    assert_eq!(reading.await.unwrap(), ((0..100).collect(), 0));
}

#[tokio::test]
async fn a_reader_that_was_overtaken_learns_how_much_it_missed() {
    let mut history = History::create(&std::env::temp_dir(), 10).unwrap();
    let mut reader = history.readers().open(LogFrom::Start, true).await.unwrap();
    history.append(stdout("abc")).await;
    assert_eq!(reader.next().await.unwrap(), Some(LogItem::Bytes("abc".into())));
    history.append(stdout("defghijklmnopqrstuvwxyz")).await;
    assert_eq!(reader.next().await.unwrap(), Some(LogItem::Missed(13)));
    let mut rest = Vec::new();
    while rest.len() < 10 {
        let Some(LogItem::Bytes(more)) = reader.next().await.unwrap() else { panic!("{rest:?}") };
        rest.extend_from_slice(&more);
    }
    assert_eq!(rest, b"qrstuvwxyz");
}

#[tokio::test]
async fn a_history_that_cannot_be_written_ends_and_says_so() {
    let file = File::options().read(true).open("/dev/null").unwrap();
    let files = Files::new(file, tempfile::tempfile().unwrap(), 10);
    let shared = Arc::new(Shared::new(files));
    let mut history =
        History { shared, segments: Segments::default(), failure: watch::Sender::new(None) };
    let mut reader = history.readers().open(LogFrom::Start, true).await.unwrap();
    history.append(stdout("abc")).await;
    assert_eq!(reader.next().await.unwrap(), None);
    assert!(history.failure.borrow().is_some());
}

/// All segments, each with the time at which it was read.
async fn read_segments(mut reader: LogReader) -> Vec<(LogOutput, u64, u64, Vec<u8>)> {
    let mut all = Vec::new();
    while let Some(segment) = reader.next_segment().await.unwrap() {
        let time = segment.time.map_or(0, milliseconds);
        all.push((segment.output, time, segment.missed, segment.bytes.to_vec()));
    }
    all
}

#[tokio::test]
async fn a_reader_finds_the_outputs_in_order_of_arrival() {
    let before = milliseconds(SystemTime::now());
    let mut history = History::create(&std::env::temp_dir(), 1000).unwrap();
    let reader = history.readers().open(LogFrom::Start, true).await.unwrap();
    let reading = tokio::spawn(read_segments(reader));
    let mut bytes = Bytes::from_static(b"onetwothree");
    let mut part = |length| bytes.split_to(length);
    let [out, err] = LogOutput::ALL;
    history.append(vec![(out, part(1)), (out, part(2)), (err, part(3))]).await;
    history.append(vec![(out, part(5))]).await;
    drop(history);
    let read = reading.await.unwrap();
    let outputs: Vec<_> = read.iter().map(|(output, _, _, bytes)| (*output, &bytes[..])).collect();
    assert_eq!(outputs, [(out, &b"one"[..]), (err, b"two"), (out, b"three")]);
    let after = milliseconds(SystemTime::now());
    assert!(
        read.iter().all(|(_, time, missed, _)| (before..=after).contains(time) && *missed == 0)
    );
}

#[tokio::test]
async fn a_slow_reader_of_segments_learns_how_much_it_missed() {
    let mut history = History::create(&std::env::temp_dir(), 10).unwrap();
    let mut reader = history.readers().open(LogFrom::Start, true).await.unwrap();
    let [out, err] = LogOutput::ALL;
    history.append(vec![(out, "abc".into())]).await;
    assert_eq!(reader.next_segment().await.unwrap().unwrap().bytes, "abc");
    history.append(vec![(err, "defghijklmnopq".into()), (out, "rst".into())]).await;
    drop(history);
    let rest = read_segments(reader).await;
    let missed: u64 = rest.iter().map(|(_, _, missed, _)| missed).sum();
    assert_eq!((missed, rest[0].2), (7, 7));
    let bytes = |wanted| {
        let of = rest.iter().filter(move |(output, ..)| *output == wanted);
        of.flat_map(|(.., bytes)| bytes.clone()).collect::<Vec<u8>>()
    };
    assert_eq!((bytes(err), bytes(out)), (b"klmnopq".to_vec(), b"rst".to_vec()));
}
