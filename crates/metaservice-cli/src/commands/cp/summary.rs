//! The message about a complete copy.

use indicatif::{BinaryBytes, HumanCount};
use metaservice_sandbox::copy::{Content, LeftOut};
use serde_json::json;

use crate::output::printer::{Printer, printable};
use crate::output::progress::Progress;

/// What was copied, in words.
fn words(content: &Content) -> Vec<String> {
    let some = |count: u64, one: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{} {one}s", HumanCount(count)),
    };
    // A directory can have no files. A single link is not a file.
    let files = content.files.filter(|files| *files > 0 || content.links == 0);
    let files = files.map(|files| some(files, "file"));
    let links = (content.links > 0).then(|| some(content.links, "link"));
    files.into_iter().chain(links).collect()
}

/// Removes the progress bar, and prints in one line what was copied and what was left out.
pub(super) fn report(
    printer: Printer,
    from: &str,
    to: &str,
    progress: Progress,
    content: &Content,
) {
    let (bytes, elapsed) = progress.finish();
    let rate = rate(bytes, elapsed);
    let mut words = words(content);
    words.push(BinaryBytes(bytes).to_string());
    words.push(format!("{}/s", BinaryBytes(rate)));
    printer.note(&format!("{from} -> {to} ({})", words.join(", ")));
    let left_out = &content.left_out;
    if left_out.count > 0 {
        printer.note(&left_out_words(left_out));
    }
    printer.event(
        "copied",
        json!({
            "source": from,
            "destination": to,
            "bytes": bytes,
            "files": content.files,
            "links": content.links,
            "leftOut": left_out.count,
            "seconds": elapsed.as_secs_f64(),
        }),
    );
}

/// Bytes per second.
fn rate(bytes: u64, elapsed: std::time::Duration) -> u64 {
    let nanoseconds = elapsed.as_nanos().max(1);
    let rate = u128::from(bytes) * 1_000_000_000 / nanoseconds;
    u64::try_from(rate).unwrap_or(u64::MAX)
}

fn left_out_words(left_out: &LeftOut) -> String {
    let paths = left_out.first.iter().map(|path| path.display().to_string());
    let mut paths = paths.collect::<Vec<_>>().join(", ");
    if left_out.first.len() as u64 != left_out.count {
        paths += ", \u{2026}";
    }
    let count = HumanCount(left_out.count);
    printable(&format!("left out, as no copy carries it: {paths} ({count} in all)"))
        .replace('\n', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn content_is_counted_in_words() {
        let words = |files, links| {
            let mut content = Content::default();
            (content.files, content.links) = (files, links);
            super::words(&content).join(", ")
        };
        assert_eq!(words(Some(1), 0), "1 file");
        assert_eq!(words(Some(5000), 1), "5,000 files, 1 link");
        assert_eq!(
            (words(Some(0), 0), words(Some(0), 2), words(None, 0)),
            ("0 files".to_owned(), "2 links".to_owned(), String::new())
        );
        assert_eq!(rate(3 << 20, Duration::from_millis(1500)), 2 << 20);
        assert_eq!(rate(0, Duration::ZERO), 0);
    }

    #[test]
    fn what_was_left_out_moves_no_terminal() {
        let first = vec!["dev/null".into(), "a\u{1b}[2J\nb".into()];
        let words = left_out_words(&LeftOut { count: 3, first });
        assert_eq!(
            words,
            "left out, as no copy carries it: dev/null, a\u{fffd}[2J\u{fffd}b, \u{2026} (3 in all)"
        );
    }
}
