//! Tests of stored logs: what a killed writer leaves, and files with any content.

use bytes::Bytes;
use metaservice_protocol::LogOutput;
use proptest::prelude::*;

use super::super::files::Files;
use super::super::segments::Segments;
use super::*;

struct Both {
    log: File,
    index: File,
}

impl Both {
    fn new() -> Self {
        let file = || tempfile::tempfile().unwrap();
        Self { log: file(), index: file() }
    }

    fn handles(&self) -> (File, File) {
        (self.log.try_clone().unwrap(), self.index.try_clone().unwrap())
    }

    fn open(&self) -> io::Result<StoredLog> {
        let (log, index) = self.handles();
        StoredLog::open(log, index)
    }

    fn files(&self, size: u64) -> Files {
        let (log, index) = self.handles();
        Files::create(log, index, size).unwrap()
    }
}

/// The missed bytes, and each byte with its output.
fn read(log: &StoredLog, from: LogFrom) -> io::Result<(u64, Vec<(LogOutput, u8)>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        let (mut reader, mut missed, mut all) = (log.reader(from).await?, 0, Vec::new());
        while let Some(segment) = reader.next_segment().await? {
            missed += segment.missed;
            all.extend(segment.bytes.iter().map(|byte| (segment.output, *byte)));
        }
        Ok((missed, all))
    })
}

fn chunks() -> impl Strategy<Value = Vec<(LogOutput, Vec<u8>)>> {
    let output = prop_oneof![Just(LogOutput::Stdout), Just(LogOutput::Stderr)];
    prop::collection::vec((output, prop::collection::vec(any::<u8>(), 0..30)), 0..30)
}

fn bytes_of(chunks: &[(LogOutput, Vec<u8>)]) -> Vec<(LogOutput, u8)> {
    let tagged = |(output, chunk): &(LogOutput, Vec<u8>)| {
        let output = *output;
        chunk.clone().into_iter().map(move |byte| (output, byte)).collect::<Vec<_>>()
    };
    chunks.iter().flat_map(tagged).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn a_log_is_read_as_it_was_written(chunks in chunks(), size in 1u64..400) {
        let (both, mut segments) = (Both::new(), Segments::default());
        let (files, mut offset) = (both.files(size), 0);
        for (output, chunk) in chunks.clone() {
            let batch = segments.batch(vec![(output, Bytes::from(chunk))], 1000, offset);
            files.write(&batch).unwrap();
            offset = batch.end();
        }
        let all = bytes_of(&chunks);
        let first = all.len().saturating_sub(usize::try_from(size).unwrap());
        let log = both.open().unwrap();
        prop_assert_eq!(log.length(), all.len() as u64);
        prop_assert_eq!(read(&log, LogFrom::Start).unwrap(), (first as u64, all[first..].to_vec()));
    }

    /// The writer is killed before any of its writes: the bytes of a batch, its records, its
    /// header.
    #[test]
    fn a_killed_writer_leaves_what_it_has_shown(chunks in chunks(), last in chunks(), step in 0..3) {
        let (both, mut segments) = (Both::new(), Segments::default());
        let files = both.files(1 << 20);
        let tagged = |chunks: &[(LogOutput, Vec<u8>)]| {
            chunks.iter().map(|(output, chunk)| (*output, Bytes::from(chunk.clone()))).collect()
        };
        let shown = segments.batch(tagged(&chunks), 1000, 0);
        files.write(&shown).unwrap();
        let header = files.index.header().unwrap().unwrap();
        let batch = segments.batch(tagged(&last), 2000, shown.end());
        if step > 0 {
            let bytes: Vec<u8> = batch.chunks.concat();
            files.ring.write(batch.offset, &bytes).unwrap();
        }
        if step > 1 {
            files.index.write(batch.number, &batch.segments, header).unwrap();
        }
        let log = both.open().unwrap();
        prop_assert_eq!(read(&log, LogFrom::Start).unwrap(), (0, bytes_of(&chunks)));
    }

    /// Whatever is in the files: no panic, and not more than there is.
    #[test]
    fn any_content_can_be_read(
        log in prop::collection::vec(any::<u8>(), 0..600),
        index in prop::collection::vec(any::<u8>(), 0..600),
        numbers in any::<[u64; 3]>(), header in any::<bool>(), small in any::<bool>(),
    ) {
        use std::os::unix::fs::FileExt;
        let both = Both::new();
        both.log.write_all_at(&log, 0).unwrap();
        both.index.write_all_at(&index, 0).unwrap();
        if header {
            let [size, end, count] = numbers.map(|n| if small { n % 800 } else { n });
            let (_, file) = both.handles();
            let header = super::super::index::Header { size: size.max(1), end, count };
            super::super::index::Index { file }.write(0, &[], header).unwrap();
        }
        let stored = both.open().unwrap();
        for from in [LogFrom::Start, LogFrom::Tail(3), LogFrom::Since(std::time::UNIX_EPOCH)] {
            let (_, all) = read(&stored, from).unwrap();
            prop_assert!(all.len() <= log.len());
        }
    }

    /// A state directory: the log is cut to what was confirmed, its index is older or lost.
    #[test]
    fn a_log_that_is_resumed_keeps_what_its_index_knows(
        before in chunks(), lost in chunks(), after in chunks(), index in 0..3,
    ) {
        let (both, mut segments) = (Both::new(), Segments::default());
        let files = both.files(super::super::ring::ENDLESS);
        let mut offset = 0;
        let mut add = |files: &Files, segments: &mut Segments, chunks: &[(LogOutput, Vec<u8>)]| {
            for (output, chunk) in chunks {
                let chunk = vec![(*output, Bytes::from(chunk.clone()))];
                let batch = segments.batch(chunk, 1000, offset);
                files.write(&batch).unwrap();
                offset = batch.end();
            }
            offset
        };
        let length = add(&files, &mut segments, &before);
        let copy = std::fs::read(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&both.index)));
        add(&files, &mut segments, &lost);
        both.log.set_len(length).unwrap();
        let mut expected = bytes_of(&before);
        match index {
            // The index is newer than what was confirmed, or as old.
            0 => {}
            1 => {
                use std::os::unix::fs::FileExt;
                both.index.set_len(0).unwrap();
                both.index.write_all_at(&copy.unwrap(), 0).unwrap();
            }
            _ => {
                both.index.set_len(0).unwrap();
                expected.iter_mut().for_each(|(output, _)| *output = LogOutput::Stdout);
            }
        }
        let (log, file) = both.handles();
        let (found, mut segments) = Files::resume(log, file, length).unwrap();
        offset = length;
        let mut add = |chunks: &[(LogOutput, Vec<u8>)]| {
            for (output, chunk) in chunks {
                let chunk = vec![(*output, Bytes::from(chunk.clone()))];
                let batch = segments.batch(chunk, 3000, offset);
                found.files.write(&batch).unwrap();
                offset = batch.end();
            }
        };
        add(&after);
        expected.extend(bytes_of(&after));
        prop_assert_eq!(read(&both.open().unwrap(), LogFrom::Start).unwrap(), (0, expected));
    }
}

#[tokio::test]
async fn a_log_has_its_outputs_and_times_after_its_service_has_ended() {
    let both = Both::new();
    let (log, index) = both.handles();
    let mut history = super::super::history::History::create_in(log, index, 100).unwrap();
    let [out, err] = LogOutput::ALL;
    history.append(vec![(out, "a\nb\n".into()), (err, "c\n".into())]).await;
    drop(history);
    let stored = both.open().unwrap();
    let mut reader = stored.reader(LogFrom::Tail(2)).await.unwrap();
    let first = reader.next_segment().await.unwrap().unwrap();
    assert_eq!((first.output, &first.bytes[..]), (out, &b"b\n"[..]));
    assert!(first.time.unwrap().elapsed().unwrap().as_secs() < 60);
    let second = reader.next_segment().await.unwrap().unwrap();
    assert_eq!((second.output, &second.bytes[..]), (err, &b"c\n"[..]));
    assert!(reader.next_segment().await.unwrap().is_none());
}

proptest! {
    /// What the writer gets is what readers see: the last bytes, with their outputs.
    #[test]
    fn a_written_log_is_read_as_it_was(chunks in chunks(), keep in 0u64..200) {
        let both = Both::new();
        let (log, index) = both.handles();
        let mut writer = StoredLogWriter::create(log, index, keep).unwrap();
        for (output, chunk) in &chunks {
            writer.write(*output, None, Bytes::from(chunk.clone())).unwrap();
        }
        let all = bytes_of(&chunks);
        let kept = all.len().min(usize::try_from(keep.max(1)).unwrap());
        let (missed, read) = read(&both.open().unwrap(), LogFrom::Start).unwrap();
        prop_assert_eq!(missed, (all.len() - kept) as u64);
        prop_assert_eq!(&read[..], &all[all.len() - kept..]);
    }
}
