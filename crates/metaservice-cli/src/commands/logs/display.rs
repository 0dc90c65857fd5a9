//! Where the segments of a log are shown, and what is put before their lines. It does no I/O.

use std::io::Write;
use std::time::SystemTime;

use metaservice::{LogOutput, LogSegment};

/// How a log is shown.
#[derive(Debug)]
pub(super) struct Display {
    merged: bool,
    /// Whether each output is within a line, if times are shown.
    within: Option<[bool; 2]>,
}

impl Display {
    pub(super) fn new(merged: bool, timestamps: bool) -> Self {
        Self { merged, within: timestamps.then_some([false; 2]) }
    }

    /// Adds the text of a segment to `text`, and returns the output that it goes to.
    pub(super) fn render(&mut self, segment: &LogSegment, text: &mut Vec<u8>) -> LogOutput {
        let LogSegment { output, time, bytes, .. } = segment;
        match &mut self.within {
            None => text.extend_from_slice(bytes),
            Some(within) => {
                let within = &mut within[usize::from(*output == LogOutput::Stderr)];
                for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                    if !*within {
                        stamp(*time, text);
                    }
                    text.extend_from_slice(line);
                    *within = line.last() != Some(&b'\n');
                }
            }
        }
        if self.merged { LogOutput::Stdout } else { *output }
    }
}

/// Adds a time in the form of RFC 3339.
fn stamp(time: Option<SystemTime>, text: &mut Vec<u8>) {
    // A write to memory does not fail.
    let _ = match time {
        Some(time) => write!(text, "{} ", humantime::format_rfc3339_millis(time)),
        None => write!(text, "- "),
    };
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use bytes::Bytes;
    use metaservice::control::log_frame;
    use proptest::prelude::*;

    use super::*;

    fn segment(output: LogOutput, ms: u64, bytes: &[u8]) -> LogSegment {
        let time = UNIX_EPOCH + Duration::from_millis(ms);
        log_frame::segment(output, Some(time), Bytes::copy_from_slice(bytes))
    }

    fn show(display: &mut Display, segments: &[LogSegment]) -> [String; 2] {
        let mut shown = [Vec::new(), Vec::new()];
        for segment in segments {
            let mut text = Vec::new();
            let output = display.render(segment, &mut text);
            shown[usize::from(output == LogOutput::Stderr)].extend(text);
        }
        shown.map(|text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn outputs_are_separate_or_in_order_of_arrival() {
        let [out, err] = LogOutput::ALL;
        let all = [segment(out, 1, b"a\nb"), segment(err, 2, b"x\n"), segment(out, 3, b"c\n")];
        assert_eq!(show(&mut Display::new(false, false), &all), ["a\nbc\n", "x\n"]);
        assert_eq!(show(&mut Display::new(true, false), &all), ["a\nbx\nc\n", ""]);
    }

    #[test]
    fn a_line_has_the_time_of_its_first_byte() {
        let [out, err] = LogOutput::ALL;
        let all = [segment(out, 1, b"a\nb"), segment(err, 20, b"x\n"), segment(out, 300, b"c\n\n")];
        let at = |ms: &str| format!("1970-01-01T00:00:00.{ms}Z ");
        let stdout = format!("{}a\n{}bc\n{}\n", at("001"), at("001"), at("300"));
        let stderr = format!("{}x\n", at("020"));
        assert_eq!(show(&mut Display::new(false, true), &all), [stdout, stderr]);
        let unknown = log_frame::segment(out, None, Bytes::from_static(b"a\n"));
        assert_eq!(show(&mut Display::new(true, true), &[unknown]), ["- a\n", ""]);
    }

    proptest! {
        /// However a log is cut into segments, each line has one time.
        #[test]
        fn cuts_do_not_show(text in "[ab\n]{0,40}", cuts in prop::collection::vec(0usize..40, 0..6)) {
            let whole = [segment(LogOutput::Stdout, 5, text.as_bytes())];
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<LogSegment> = cuts
                .windows(2)
                .map(|cut| segment(LogOutput::Stdout, 5, &text.as_bytes()[cut[0]..cut[1]]))
                .collect();
            let show = |segments: &[LogSegment]| show(&mut Display::new(false, true), segments);
            prop_assert_eq!(show(&whole), show(&pieces));
        }
    }
}
