//! Inputs with a structure, made of bytes.

use arbitrary::{Arbitrary, Unstructured};

/// The steps that these bytes stand for: one after the other, until the bytes end.
///
/// A `Vec` of steps would end at half of the bytes that come before a step, so that random bytes
/// are two steps on average.
pub(crate) fn steps_of<T: for<'a> Arbitrary<'a>>(bytes: &[u8]) -> Vec<T> {
    let mut rest = Unstructured::new(bytes);
    let mut steps = Vec::new();
    while !rest.is_empty()
        && let Ok(step) = rest.arbitrary()
    {
        steps.push(step);
    }
    steps
}
