//! Names that are similar to a mistyped one.

/// How many letters of a mistyped name may be wrong.
const LETTERS: usize = 2;

/// The most similar name, if one is similar enough.
pub(crate) fn similar(word: &str, names: &[String]) -> Option<String> {
    let distances = names.iter().map(|name| (distance(word, name), name));
    let (least, name) = distances.min_by_key(|(distance, _)| *distance)?;
    let most = LETTERS.min(word.chars().count().saturating_sub(1));
    (least <= most).then(|| name.clone())
}

/// The edit distance: letters that are missing, added, changed, or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut least =
                (rows[i][j] + usize::from(x != y)).min(row[j] + 1).min(rows[i][j + 1] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_name_is_found_and_another_word_is_not() {
        let names = ["memory", "env-file", "tty"].map(str::to_owned);
        for (typed, meant) in [("memroy", "memory"), ("env_file", "env-file"), ("ty", "tty")] {
            assert_eq!(similar(typed, &names).as_deref(), Some(meant));
        }
        for other in ["", "x", "frobnicate"] {
            assert_eq!(similar(other, &names), None, "{other}");
        }
        assert_eq!((distance("kitten", "sitting"), distance("", "abc")), (3, 3));
    }
}
