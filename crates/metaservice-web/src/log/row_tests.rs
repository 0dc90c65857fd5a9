use proptest::prelude::*;

use super::*;

fn row(bytes: &[u8]) -> Row {
    let mut row = Row::new(Style::default());
    row.push(LogOutput::Stdout, bytes);
    row
}

#[test]
fn a_line_is_what_a_terminal_shows() {
    for (bytes, text) in [
        ("plain", "plain"),
        (" 10%\r100%", "100%"),
        ("downloading\rdone\x1b[K", "done"),
        ("abc\x08\x08X", "aXc"),
        ("a\tb", "a       b"),
        ("abcdefghij\r\tX", "abcdefghXj"),
        ("\x1b[5Gx", "    x"),
        ("ab\x1b[2Cc\x1b[3Dd", "abd c"),
        ("abc\x1b[2K\rx", "x"),
        ("abc\x1b[1Kd", "   d"),
        ("text\r", "text"),
        ("\x1b]0;title\x07a\x1b]8;;http://x\x1b\\b", "ab"),
        ("\x1b]52;c;aGk=\x07\x1bPq#0\x1b\\\x1b_G\x1b\\\x1b[2J\x1b[6n\x1b[?1049hs", "s"),
        ("\u{202e}cod\u{2066}", "\u{fffd}cod\u{fffd}"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("\u{e9}\u{65e5}\u{1f600}", "\u{e9}\u{65e5}\u{1f600}"),
    ] {
        assert_eq!(row(bytes.as_bytes()).text(), text, "{bytes:?}");
    }
    assert_eq!(row(b"a\xffb\xc3").text(), "a\u{fffd}b");
}

#[test]
fn spans_have_styles_and_outputs() {
    let mut row = row(b"a\x1b[1;31mb\x1b[38;2;1;2;3;42mc");
    row.push(LogOutput::Stderr, b"\x1b[md");
    let spans = row.spans();
    let texts: Vec<_> = spans.iter().map(|span| span.text.as_str()).collect();
    assert_eq!(texts, ["a", "b", "c", "d"]);
    let styles: Vec<_> = spans.iter().map(|span| span.style.as_str()).collect();
    assert_eq!(styles, ["", "bold f1", "bold b2", ""]);
    assert_eq!(spans[2].text_color.as_deref(), Some("#010203"));
    assert_eq!(
        spans.iter().map(|span| span.stderr).collect::<Vec<_>>(),
        [false, false, false, true]
    );
    assert_eq!(serde_json::to_string(&spans[0]).unwrap(), r#"{"t":"a"}"#);
}

#[test]
fn a_line_without_end_uses_limited_memory() {
    let mut row = Row::new(Style::default());
    for _ in 0..40 {
        row.push(LogOutput::Stdout, &[b'x'; 64 * 1024]);
    }
    assert_eq!(row.text().len(), MAX_CELLS);
    assert!(row.is_cut());
    // The last state of a long progress bar is shown.
    let mut bar = Row::new(Style::default());
    for n in 0..20_000 {
        bar.push(LogOutput::Stdout, format!("\r{n} of 20000").as_bytes());
    }
    assert_eq!(bar.text(), "19999 of 20000");
    assert!(!bar.is_cut());
    // Moves do not make cells.
    let far = self::row(b"\x1b[65535G\x1b[65535Gx");
    assert!(far.text().is_empty() && far.is_cut());
}

/// Bytes that a terminal obeys more often than random ones.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        any::<Vec<u8>>(),
        "[a-z\r\t\x08]{0,8}".prop_map(String::into_bytes),
        "\x1b[\\[\\]PX^_][0-9;:?]{0,6}[a-zA-Z\x07]".prop_map(String::into_bytes),
        any::<char>().prop_map(|char| char.to_string().into_bytes()),
    ];
    prop::collection::vec(piece, 0..12)
        .prop_map(|pieces| pieces.concat().into_iter().filter(|byte| *byte != b'\n').collect())
}

proptest! {
    /// No byte of a guest becomes a control character of the page.
    #[test]
    fn any_bytes_become_harmless_text(bytes in hostile()) {
        let row = row(&bytes);
        let text = row.text();
        let is_harmless = |char: char| !char.is_control() && harmless(char) == char;
        prop_assert!(text.chars().all(is_harmless), "{text:?}");
        prop_assert!(text.chars().count() <= MAX_CELLS);
        let spans: String = row.spans().into_iter().map(|span| span.text).collect();
        prop_assert_eq!(spans, text);
    }

    /// However a line is cut into pieces, it looks the same.
    #[test]
    fn cuts_do_not_show(bytes in hostile(), cut in 0usize..60) {
        let cut = cut.min(bytes.len());
        let mut pieces = Row::new(Style::default());
        pieces.push(LogOutput::Stdout, &bytes[..cut]);
        pieces.push(LogOutput::Stdout, &bytes[cut..]);
        prop_assert_eq!(pieces.spans(), row(&bytes).spans());
    }
}
