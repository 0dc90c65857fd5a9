//! Compares a run with the committed data: which figures moved by more than a quarter.
//!
//! If a goal has a reference, its ratio is compared, because a ratio is stable on a busy machine.
//! Without a reference, the value itself is compared. Nothing here fails: the result is for people
//! to read.

use crate::data::Data;
use crate::judge::Verdict;
use crate::measure::Better;
use crate::page::number;

/// The relative change above which a figure is reported.
const MOVED: f64 = 0.25;

/// Returns one line for each figure that moved.
pub(crate) fn compare(before: &Data, now: &Data) -> Vec<String> {
    let mut lines = Vec::new();
    for record in &now.records {
        let Some(old) = before.find(record.group, &record.id) else { continue };
        for goal in &record.goals {
            let (Some(was), Some(is)) = (Verdict::of(old, goal), Verdict::of(record, goal)) else {
                continue;
            };
            let (was, is, better) = (was.ratio.median, is.ratio.median, is.better);
            let change = is / was - 1.0;
            if !change.is_finite() || change.abs() <= MOVED {
                continue;
            }
            let word = if (change > 0.0) == (better == Better::More) { "better" } else { "worse" };
            lines.push(format!(
                "{}/{} {} of {}: {} was {}, {:+.0} %: {word}",
                record.group,
                record.id,
                goal.quantity,
                goal.subject,
                number(is),
                number(was),
                change * 100.0,
            ));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::tests::record;
    use crate::measure::Goal;

    #[test]
    fn only_a_change_of_more_than_a_quarter_is_reported() {
        let data = |measured: f64, limit: f64| {
            let mut record = record(&[("metaservice", &[measured]), ("limit", &[limit])]);
            record.goals = vec![Goal::ratio("metaservice", "rate", 0.5, "limit")];
            Data { records: vec![record] }
        };
        assert!(compare(&data(80.0, 100.0), &data(40.0, 50.0)).is_empty());
        assert!(compare(&data(80.0, 100.0), &data(61.0, 100.0)).is_empty());
        let lines = compare(&data(80.0, 100.0), &data(40.0, 100.0));
        assert_eq!(lines, ["loopback/log rate of metaservice: 0.400 was 0.800, -50 %: worse"]);
        assert!(compare(&data(40.0, 100.0), &data(80.0, 100.0))[0].ends_with("better"));
        assert!(compare(&Data::default(), &data(1.0, 1.0)).is_empty());
    }
}
