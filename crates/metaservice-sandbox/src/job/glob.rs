//! Patterns for names in the guest, as a shell has them.
//!
//! | pattern | matches |
//! | --- | --- |
//! | `*` | any characters of one name |
//! | `?` | one character |
//! | `[abc]`, `[a-z]`, `[!a]` | one character of a class, or not of it |
//! | `{a,b}` | one of the alternatives |
//! | `**` as a whole name | any number of directories |
//!
//! A name that begins with a dot matches only a pattern that begins with one. A backslash is a
//! character like any other: `[*]` stands for a star.

use globset::{GlobBuilder, GlobMatcher};

/// The longest pattern in bytes.
const MAX_PATTERN: usize = 4096;

/// A path in the guest with a pattern.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    /// As it was written.
    text: String,
    /// The directory before the first name that is a pattern.
    pub(crate) base: String,
    pub(crate) parts: Vec<Part>,
    /// All parts together, for paths below the base.
    whole: GlobMatcher,
}

/// A name of the path behind the base.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    /// A pattern for one name.
    Name(Name),
    /// Any number of directories, then the rest of the pattern.
    Any(GlobMatcher),
}

/// A pattern for one name.
#[derive(Debug, Clone)]
pub(crate) struct Name {
    matcher: GlobMatcher,
    hidden: bool,
}

/// Why a pattern is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidGlob {
    /// It cannot be read as a pattern.
    #[error("the pattern is wrong: {0}")]
    Syntax(String),
    /// It is too long.
    #[error("a pattern has at most {MAX_PATTERN} bytes")]
    TooLong,
}

/// Whether a path has a pattern.
pub(crate) fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '[', '{'])
}

impl Pattern {
    pub(crate) fn parse(path: &str) -> Result<Self, InvalidGlob> {
        if path.len() > MAX_PATTERN {
            return Err(InvalidGlob::TooLong);
        }
        let names: Vec<&str> = path.split('/').collect();
        let first = names.iter().position(|name| is_pattern(name)).unwrap_or(names.len());
        let (before, behind) = names.split_at(first);
        let behind: Vec<&str> = behind.iter().copied().filter(|name| !name.is_empty()).collect();
        let base = match before {
            [] => ".".to_owned(),
            [""] => "/".to_owned(),
            before => before.join("/"),
        };
        let mut parts = Vec::new();
        for (index, name) in behind.iter().enumerate() {
            if *name == "**" {
                // It matches the rest, at any depth.
                parts.push(Part::Any(matcher(&behind[index..].join("/"))?));
                break;
            }
            let hidden = name.starts_with('.');
            parts.push(Part::Name(Name { matcher: matcher(name)?, hidden }));
        }
        let whole = matcher(&behind.join("/"))?;
        Ok(Self { text: path.to_owned(), base, parts, whole })
    }

    /// Whether a path below the base matches.
    pub(crate) fn matches(&self, path: &str) -> bool {
        is_shown(path) && self.whole.is_match(path)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl Name {
    pub(crate) fn matches(&self, name: &str) -> bool {
        (self.hidden || is_shown(name)) && self.matcher.is_match(name)
    }
}

impl Part {
    /// Whether a path below the directory of `**` matches the rest.
    pub(crate) fn matches_below(rest: &GlobMatcher, path: &str) -> bool {
        is_shown(path) && rest.is_match(path)
    }
}

/// Whether no name of the path begins with a dot.
fn is_shown(path: &str) -> bool {
    !path.split('/').any(|name| name.starts_with('.'))
}

fn matcher(pattern: &str) -> Result<GlobMatcher, InvalidGlob> {
    let glob = GlobBuilder::new(pattern).literal_separator(true).backslash_escape(false).build();
    let glob = glob.map_err(|error| InvalidGlob::Syntax(error.kind().to_string()))?;
    Ok(glob.compile_matcher())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(pattern: &str, names: &[&str]) -> Vec<String> {
        let pattern = Pattern::parse(pattern).unwrap();
        let [Part::Name(part)] = &pattern.parts[..] else { panic!("{pattern:?}") };
        let matching = names.iter().filter(|name| part.matches(name));
        matching.map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_pattern_begins_where_its_first_special_character_is() {
        let base = |path: &str| {
            let pattern = Pattern::parse(path).unwrap();
            (pattern.base, pattern.parts.len())
        };
        assert_eq!(base("/tmp/*.xml"), ("/tmp".to_owned(), 1));
        assert_eq!(base("/*"), ("/".to_owned(), 1));
        assert_eq!(base("*.log"), (".".to_owned(), 1));
        assert_eq!(base("build/[ab]/out"), ("build".to_owned(), 2));
        assert_eq!(base("/a/**/x/*.o"), ("/a".to_owned(), 1));
        assert_eq!(base("/a//*/"), ("/a/".to_owned(), 1));
    }

    #[test]
    fn names_match_as_in_a_shell() {
        assert_eq!(names("/*.xml", &["a.xml", ".xml", ".a.xml", "b.txt", "c.xml/"]), ["a.xml"]);
        assert_eq!(names("/.*", &["a", ".a"]), [".a"]);
        assert_eq!(names("/a?[0-9]", &["ab1", "abc", "a/1", "ab12"]), ["ab1"]);
        assert_eq!(names("/{a,b}.o", &["a.o", "b.o", "c.o"]), ["a.o", "b.o"]);
        assert_eq!(names("/[*]", &["*", "a"]), ["*"]);
        assert_eq!(names(r"/a\*", &["a*", r"a\b"]), [r"a\b"]);
        assert_eq!(names("/\u{e9}*", &["\u{e9}t\u{e9}", "e"]), ["\u{e9}t\u{e9}"]);
    }

    #[test]
    fn two_stars_match_any_depth() {
        let pattern = Pattern::parse("/a/**/*.o").unwrap();
        for path in ["x.o", "b/x.o", "b/c/x.o"] {
            assert!(pattern.matches(path), "{path}");
        }
        for path in ["x.c", "b/x.c", ".b/x.o", "b/.x.o"] {
            assert!(!pattern.matches(path), "{path}");
        }
    }

    #[test]
    fn a_wrong_pattern_is_an_error() {
        for wrong in ["/a[", "/{a", "/{a,{b}", "/[z-a]"] {
            assert!(matches!(Pattern::parse(wrong), Err(InvalidGlob::Syntax(_))), "{wrong}");
        }
        assert_eq!(Pattern::parse(&"*".repeat(5000)).unwrap_err(), InvalidGlob::TooLong);
    }

    proptest! {
        #[test]
        fn no_pattern_and_no_name_panics(pattern in "[a/*?\\[\\]{},!.-]{1,30}", name in "\\PC{0,20}") {
            if let Ok(pattern) = Pattern::parse(&pattern) {
                let _ = pattern.matches(&name);
            }
        }
    }
}
