//! Policies in files.
//!
//! ```toml
//! # What the build needs.
//! include = ["git", "./more.toml"]
//! allow = ["mirror.example.org:443", "10.1.0.0/16:5432"]
//! deny = ["*.ads.example.org"]
//! ```
//!
//! A policy has the rules of its file, then those of each included file. The order means nothing
//! for a decision: a rule that denies wins. A file that two others include counts once. A file that
//! includes itself, also through others, is an error.

mod error;
mod source;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

pub use self::error::{InvalidPolicy, MAX_FILES, MAX_RULES, Place, PolicyError};
pub use self::source::Source;
use crate::policy::Policy;
pub use crate::preset::Preset;
use crate::rule::Rule;

/// The largest file of a policy, in bytes.
pub const MAX_SIZE: u64 = 1 << 20;

/// The content of a file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    #[serde(default)]
    include: Vec<Spanned<String>>,
    #[serde(default)]
    allow: Vec<Spanned<String>>,
    #[serde(default)]
    deny: Vec<Spanned<String>>,
}

/// A file as it was found.
#[derive(Debug)]
pub struct Text {
    /// The path, in a form that is the same for each spelling.
    pub canonical: PathBuf,
    /// The content.
    pub text: String,
}

/// Reads a policy with everything that it includes, from this host's files.
///
/// # Errors
/// As in [`PolicyError`].
pub fn load(source: &Source) -> Result<Policy, PolicyError> {
    read(source, |path| {
        let mut text = String::new();
        File::open(path)?.take(MAX_SIZE + 1).read_to_string(&mut text)?;
        // A pipe has no path.
        let canonical = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        Ok(Text { canonical, text })
    })
}

/// Reads a policy with everything that it includes. `open` finds a file.
///
/// # Errors
/// As in [`PolicyError`].
pub fn read(
    source: &Source,
    open: impl FnMut(&Path) -> io::Result<Text>,
) -> Result<Policy, PolicyError> {
    let policy = Policy::default();
    let mut reader = Reader { open, policy, known: BTreeSet::new(), stack: Vec::new() };
    reader.add(source, None)?;
    Ok(reader.policy)
}

struct Reader<F> {
    open: F,
    policy: Policy,
    /// What was read or is being read, in the canonical form.
    known: BTreeSet<Source>,
    /// What is being read: each includes the next.
    stack: Vec<Source>,
}

impl<F: FnMut(&Path) -> io::Result<Text>> Reader<F> {
    /// Adds a source. `at` is where it is included.
    fn add(&mut self, source: &Source, at: Option<Place>) -> Result<(), PolicyError> {
        let (canonical, text) = self.find(source, &at)?;
        if self.stack.contains(&canonical) {
            return Err(PolicyError::Circle { at, file: source.clone() });
        }
        if !self.known.insert(canonical.clone()) {
            return Ok(());
        }
        if self.known.len() > MAX_FILES {
            return Err(PolicyError::TooManyFiles);
        }
        let PolicyFile { include, allow, deny } = parse(&text, source)?;
        let (allow, deny) = (rules(allow, &text, source)?, rules(deny, &text, source)?);
        self.policy.extend(Policy::new(allow, deny));
        if self.policy.allow().len() + self.policy.deny().len() > MAX_RULES {
            return Err(PolicyError::TooManyRules);
        }
        self.stack.push(canonical);
        for included in &include {
            let at = Place::of(source, &text, included.span());
            self.add(&source.included(included.get_ref()), Some(at))?;
        }
        self.stack.pop();
        Ok(())
    }

    fn find(
        &mut self,
        source: &Source,
        at: &Option<Place>,
    ) -> Result<(Source, String), PolicyError> {
        match source {
            Source::Preset(name) => match Preset::find(name) {
                Some(preset) => Ok((source.clone(), preset.text().to_owned())),
                None => Err(PolicyError::NoPreset { at: at.clone(), name: name.clone() }),
            },
            Source::File(path) => {
                let found = (self.open)(path).and_then(|found| match found.text.len() as u64 {
                    size if size > MAX_SIZE => Err(io::ErrorKind::FileTooLarge.into()),
                    _ => Ok((Source::File(found.canonical), found.text)),
                });
                found.map_err(|cause| PolicyError::Read {
                    at: at.clone(),
                    path: path.clone(),
                    cause,
                })
            }
        }
    }
}

fn parse(text: &str, from: &Source) -> Result<PolicyFile, PolicyError> {
    toml::from_str(text).map_err(|error| {
        let at = Place::of(from, text, error.span().unwrap_or(0..0));
        PolicyError::Invalid { at, cause: InvalidPolicy::Form(error.message().to_owned()) }
    })
}

fn rules(rules: Vec<Spanned<String>>, text: &str, from: &Source) -> Result<Vec<Rule>, PolicyError> {
    let rule = |rule: Spanned<String>| {
        rule.get_ref().parse().map_err(|cause| {
            let at = Place::of(from, text, rule.span());
            let cause = InvalidPolicy::Rule { rule: rule.into_inner(), cause };
            PolicyError::Invalid { at, cause }
        })
    };
    rules.into_iter().map(rule).collect()
}
