//! Decides whether a figure reaches its target.
//!
//! The subjects of one round run directly after each other. The ratio of one round is therefore
//! more reliable than the ratio of two medians: varying load is in both of its sides.

use crate::data::Record;
use crate::measure::{Better, Comparison, Goal, Reference};
use crate::statistics::Summary;

/// The result for a goal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Verdict {
    /// The value divided by the reference, for each round; the value if there is no reference.
    pub(crate) ratio: Summary,
    /// The value divided by the target, for each round.
    pub(crate) score: Summary,
    pub(crate) better: Better,
}

impl Verdict {
    /// Returns `None` if samples are missing.
    pub(crate) fn of(record: &Record, goal: &Goal) -> Option<Self> {
        let better = record.quantity(&goal.quantity)?.better;
        let pairs = pairs(record, &goal.subject, &goal.quantity, goal.reference.as_ref());
        let target = |reference: f64| goal.factor.mul_add(reference, goal.plus);
        // A target of zero is reached only by zero.
        let score = |value: f64, target: f64| if target == 0.0 { value } else { value / target };
        Some(Self {
            ratio: ratio(&pairs)?,
            score: Summary::of(pairs.iter().map(|(value, of)| score(*value, target(*of))))?,
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

/// The ratio of each round. Returns `None` if samples are missing.
pub(crate) fn compared(record: &Record, comparison: &Comparison) -> Option<Summary> {
    let Comparison { subject, quantity, reference } = comparison;
    ratio(&pairs(record, subject, quantity, Some(reference)))
}

fn ratio(pairs: &[(f64, f64)]) -> Option<Summary> {
    Summary::of(pairs.iter().map(|(value, reference)| value / reference))
}

/// The values of a subject, each with the reference of its round: 1 if there is no reference.
fn pairs(
    record: &Record,
    subject: &str,
    quantity: &str,
    reference: Option<&Reference>,
) -> Vec<(f64, f64)> {
    let values = record.values(subject, quantity);
    let references = match reference {
        Some(reference) => record.values(&reference.subject, &reference.quantity),
        None => vec![Some(1.0); values.len()],
    };
    values.iter().zip(&references).filter_map(|(a, b)| (*a).zip(*b)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::tests::record;

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        // The machine was twice as fast in the second round. The ratio is the same.
        let record =
            record(&[("metaservice", &[40.0, 90.0, 42.0]), ("limit", &[50.0, 100.0, 50.0])]);
        let goal = Goal::ratio("metaservice", "rate", 0.8, "limit");
        let verdict = Verdict::of(&record, &goal).unwrap();
        assert!((verdict.ratio.median - 0.84).abs() < 1e-9);
        assert!(verdict.is_reached());
        let goal = Goal::ratio("metaservice", "rate", 0.85, "limit");
        assert!(!Verdict::of(&record, &goal).unwrap().is_reached());
    }

    #[test]
    fn a_target_can_have_a_summand_or_no_reference() {
        let record = record(&[("metaservice", &[40.0]), ("limit", &[50.0])]);
        let verdict = |goal: &Goal| Verdict::of(&record, goal).unwrap();
        assert!(verdict(&Goal::absolute("metaservice", "rate", 40.0)).is_reached());
        assert!(!verdict(&Goal::absolute("metaservice", "rate", 41.0)).is_reached());
        assert!(!verdict(&Goal::ratio("metaservice", "rate", 0.8, "limit").plus(0.1)).is_reached());
        assert_eq!(Verdict::of(&record, &Goal::absolute("unknown", "rate", 1.0)), None);
    }
}
