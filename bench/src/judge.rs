//! Whether a figure is reached.
//!
//! Subjects of one round ran one after the other, so a round's ratio is worth more than the
//! ratio of two medians: load that comes and goes is in both of its sides.

use crate::data::Record;
use crate::measure::{Better, Goal};
use crate::statistics::Summary;

/// What became of a goal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Verdict {
    /// Value by reference, of each round; the value itself where there is no reference.
    pub(crate) ratio: Summary,
    /// Value by bound, of each round.
    pub(crate) score: Summary,
    pub(crate) better: Better,
}

impl Verdict {
    /// `None` where samples are missing.
    pub(crate) fn of(record: &Record, goal: &Goal) -> Option<Self> {
        let better = record.quantity(&goal.quantity)?.better;
        let values = record.values(&goal.subject, &goal.quantity);
        let references = match &goal.reference {
            Some(reference) => record.values(&reference.subject, &reference.quantity),
            None => vec![Some(1.0); values.len()],
        };
        let pairs: Vec<(f64, f64)> =
            values.iter().zip(&references).filter_map(|(a, b)| (*a).zip(*b)).collect();
        let bound = |reference: f64| goal.factor.mul_add(reference, goal.plus);
        // A bound of nothing is met by nothing.
        let score = |value: f64, bound: f64| if bound == 0.0 { value } else { value / bound };
        Some(Self {
            ratio: Summary::of(pairs.iter().map(|(value, reference)| value / reference))?,
            score: Summary::of(pairs.iter().map(|(value, of)| score(*value, bound(*of))))?,
            better,
        })
    }

    pub(crate) fn is_reached(&self) -> bool {
        match self.better {
            Better::More => self.score.median >= 1.0,
            Better::Less => self.score.median <= 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::tests::record;

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        // The machine was twice as fast in the second round: the ratio stays.
        let record = record(&[("ours", &[40.0, 90.0, 42.0]), ("limit", &[50.0, 100.0, 50.0])]);
        let goal = Goal::ratio("ours", "rate", 0.8, "limit");
        let verdict = Verdict::of(&record, &goal).unwrap();
        assert!((verdict.ratio.median - 0.84).abs() < 1e-9);
        assert!(verdict.is_reached());
        let goal = Goal::ratio("ours", "rate", 0.85, "limit");
        assert!(!Verdict::of(&record, &goal).unwrap().is_reached());
    }

    #[test]
    fn a_bound_may_have_a_summand_or_no_reference() {
        let record = record(&[("ours", &[40.0]), ("limit", &[50.0])]);
        let verdict = |goal: &Goal| Verdict::of(&record, goal).unwrap();
        assert!(verdict(&Goal::absolute("ours", "rate", 40.0)).is_reached());
        assert!(!verdict(&Goal::absolute("ours", "rate", 41.0)).is_reached());
        assert!(!verdict(&Goal::ratio("ours", "rate", 0.8, "limit").plus(0.1)).is_reached());
        assert_eq!(Verdict::of(&record, &Goal::absolute("nobody", "rate", 1.0)), None);
    }
}
