//! Tests of the index: what is found in it, and what is left of one that was damaged.

use proptest::prelude::*;

use super::super::segments::Segments;
use super::*;

fn index() -> Index {
    Index { file: tempfile::tempfile().unwrap() }
}

/// A byte at each of these times.
fn filled(times: &[u64]) -> (Index, Known) {
    let (index, mut segments) = (index(), Segments::default());
    let all: Vec<Segment> = (0..)
        .zip(times)
        .filter_map(|(offset, time)| segments.note(LogOutput::Stdout, *time, offset))
        .collect();
    let header = Header { size: 9, end: times.len() as u64, count: segments.count() };
    index.write(0, &all, header).unwrap();
    (index, Known::all(header.count))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn each_byte_since_a_time_is_found_and_few_before(
        gaps in proptest::collection::vec(0u64..3, 1..600), asked in 0u64..2000,
    ) {
        let mut time = 1;
        let times: Vec<u64> = gaps.iter().map(|gap| { time += gap; time }).collect();
        let (index, known) = filled(&times);
        let end = times.len() as u64;
        let exact = times.iter().position(|came| *came >= asked).map_or(end, |at| at as u64);
        let found = index.since(&known, asked, end).unwrap();
        prop_assert!(found <= exact, "{found} {exact}");
        for offset in found..exact {
            prop_assert!(times[usize::try_from(offset).unwrap()] + resolution_ms(known.records.end) > asked);
        }
    }

    /// Any bytes in place of any part of the file: what is found is in order, and covers all bytes.
    #[test]
    fn a_damaged_index_still_covers_each_byte(
        switches in proptest::collection::vec(1u64..9, 0..80),
        place in 0u64..1500, damage in proptest::collection::vec(any::<u8>(), 0..300),
        cut in proptest::option::of(0u64..1500),
    ) {
        let (index, mut segments, mut offset) = (index(), Segments::default(), 0);
        let mut all = Vec::new();
        for (length, output) in switches.iter().zip(LogOutput::ALL.into_iter().cycle()) {
            all.extend(segments.note(output, 5, offset));
            offset += length;
        }
        let header = Header { size: 1 << 20, end: offset, count: all.len() as u64 };
        index.write(0, &all, header).unwrap();
        index.file.write_all_at(&damage, place).unwrap();
        if let Some(cut) = cut {
            index.file.set_len(cut).unwrap();
        }
        let header = index.header().unwrap().unwrap_or(Header { size: 1, end: 0, count: 0 });
        let known = index.examine(header, offset).unwrap();
        let mut at = 0;
        while at < offset {
            let (found, end) = index.segments(&known, at..offset, 7).unwrap();
            prop_assert!(found[0].offset <= at && found.len() <= 7 && at < end && end <= offset);
            prop_assert!(found.windows(2).all(|two| two[0].offset < two[1].offset));
            // What is known is true: damage makes stdout of it, and never stderr.
            for segment in found.iter().filter(|segment| segment.output == LogOutput::Stderr) {
                prop_assert!(all.contains(segment) || !damage.is_empty(), "{segment:?}");
            }
            at = end;
        }
        index.since(&known, 4, offset).unwrap();
    }
}

#[test]
fn bytes_before_a_silence_are_not_from_within_it() {
    let (index, known) = filled(&[1000, 3_601_000]);
    assert_eq!(index.since(&known, 1_800_000, 2).unwrap(), 1);
    assert_eq!(index.since(&known, 3_601_001, 2).unwrap(), 2);
    assert_eq!(index.since(&known, 1000, 2).unwrap(), 0);
}

#[test]
fn the_oldest_records_are_overwritten_and_their_bytes_count_as_stdout() {
    let (index, mut segments) = (index(), Segments::default());
    let count = MAX_RECORDS + 1000;
    let outputs = LogOutput::ALL.into_iter().rev().cycle();
    let all: Vec<Segment> =
        (0..count).zip(outputs).filter_map(|(at, output)| segments.note(output, 7, at)).collect();
    let header = Header { size: 1 << 30, end: count, count };
    for (number, batch) in (0..).step_by(1 << 18).zip(all.chunks(1 << 18)) {
        index.write(number, batch, header).unwrap();
    }
    let length = index.file.metadata().unwrap().len();
    assert_eq!(length, RECORDS + MAX_RECORDS * RECORD as u64);
    for known in [Known::all(count), index.examine(header, count).unwrap()] {
        let (found, end) = index.segments(&known, 0..count, 2).unwrap();
        assert_eq!((found[0].output, found[0].offset, found[0].time_ms), (LogOutput::Stdout, 0, 7));
        assert_eq!(found[1], all[usize::try_from(found[1].offset).unwrap()]);
        assert!(end >= 1000);
        let (found, _) = index.segments(&known, count - 3..count, 9).unwrap();
        assert_eq!(found, all[all.len() - 3..]);
    }
    // The process is killed after records and before the header: the oldest are lost.
    let later: Vec<Segment> = (count..count + 5)
        .filter_map(|at| segments.note(LogOutput::ALL[usize::from(at % 2 == 0)], 7, at))
        .collect();
    assert_eq!(later.len(), 5);
    index.write(count, &later, header).unwrap();
    let known = index.examine(header, count).unwrap();
    assert_eq!(known.records, count - MAX_RECORDS + 5..count);
}

#[test]
fn a_lost_end_is_not_known() {
    let (index, mut segments) = (index(), Segments::default());
    let all: Vec<Segment> = LogOutput::ALL
        .into_iter()
        .cycle()
        .zip([0, 10, 20, 30])
        .filter_map(|(output, at)| segments.note(output, 100 + at, at))
        .collect();
    let header = Header { size: 1 << 20, end: 40, count: 4 };
    index.write(0, &all, header).unwrap();
    // The last record was never written: the one before has no known end.
    index.file.write_all_at(&[0; RECORD], place(3)).unwrap();
    let known = index.examine(header, 40).unwrap();
    assert_eq!(known, Known { records: 0..2, covered: 20, time_ms: 120 });
    let (found, end) = index.segments(&known, 25..40, 9).unwrap();
    let unknown = Segment { offset: 25, output: LogOutput::Stdout, time_ms: 120 };
    assert_eq!((found, end), (vec![unknown], 40));
}
