//! The names in the guest that an artifact stands for.
//!
//! The guest lists its directories, name by name of the pattern, and the host compares. What the
//! guest lists is hostile: it is limited in number, and a name becomes part of a path of the host
//! only if it is one plain name.

use futures_util::TryStreamExt;
use metaservice::{ActionError, DirectoryEntry, EntryKind, ListError, MetaService};

use super::error::{CollectError, MAX_MATCHES};
use crate::job::glob::{Part, Pattern};
use crate::job::{Artifact, ArtifactSource};
use crate::output::Named;

/// How many bytes the paths may have together that match one pattern.
const MAX_BYTES: usize = 16 << 20;

/// The parts of an artifact, or why there are none.
pub(super) type Expanded = Result<Vec<Artifact>, CollectError>;

/// Lists what an artifact stands for: itself, or everything that matches. `most` is the number of
/// names that the guest may list.
pub(super) async fn expand(service: &MetaService, artifact: &Artifact, most: usize) -> Expanded {
    let ArtifactSource::Glob(pattern) = &artifact.kind else { return Ok(vec![artifact.clone()]) };
    let mut search = Search { most, seen: 0, found: Vec::new(), bytes: 0 };
    search.run(service, pattern).await?;
    let mut paths = search.found;
    if paths.is_empty() {
        return Err(CollectError::NoMatch);
    }
    paths.sort();
    paths.into_iter().map(|path| part(artifact, path)).collect()
}

/// One match, as an artifact in the directory of the whole.
fn part(artifact: &Artifact, path: String) -> Result<Artifact, CollectError> {
    let name = path.rsplit('/').next().unwrap_or_default();
    if !is_name(name) {
        return Err(CollectError::NoName(path));
    }
    let destination = artifact.destination.join(name);
    let named = match artifact.named {
        Named::ByUser | Named::ByGuest => Named::ByGuest,
        Named::InVolume => Named::InVolume,
    };
    Ok(Artifact { kind: ArtifactSource::Path, source: path, destination, named })
}

/// Whether this is one plain name of a file.
fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0'])
}

struct Search {
    most: usize,
    seen: usize,
    found: Vec<String>,
    bytes: usize,
}

impl Search {
    async fn run(&mut self, service: &MetaService, pattern: &Pattern) -> Result<(), CollectError> {
        let mut directories = vec![pattern.base.clone()];
        let last = pattern.parts.len().saturating_sub(1);
        for (index, part) in pattern.parts.iter().enumerate() {
            let mut next = Vec::new();
            for directory in &directories {
                let visited = self.visit(service, directory, part, index == last, &mut next).await;
                match visited {
                    Err(CollectError::List(ListError::Action(ActionError::Unsupported(_)))) => {
                        return self.version_1(service, pattern).await;
                    }
                    // It is not a directory, or was removed meanwhile.
                    Err(CollectError::List(ListError::NotFound(_))) => {}
                    visited => visited?,
                }
            }
            directories = next;
        }
        Ok(())
    }

    /// Compares the entries of one directory with a part of the pattern.
    async fn visit(
        &mut self,
        service: &MetaService,
        directory: &str,
        part: &Part,
        last: bool,
        next: &mut Vec<String>,
    ) -> Result<(), CollectError> {
        let recursive = matches!(part, Part::Any(_));
        let mut entries = service.list(directory).recursive(recursive).entries().await?;
        while let Some(entry) = entries.try_next().await? {
            self.count()?;
            let DirectoryEntry { path, kind, .. } = entry;
            let path = match part {
                Part::Name(name) if name.matches(&path) => is_name(&path).then_some(path),
                Part::Any(rest) if Part::matches_below(rest, &path) => {
                    path.split('/').all(is_name).then_some(path)
                }
                Part::Name(_) | Part::Any(_) => continue,
            };
            // A hostile name matches nothing.
            let Some(path) = path.map(|path| join(directory, &path)) else { continue };
            if last {
                self.take(path, kind)?;
            } else if kind == EntryKind::Directory {
                self.weigh(&path)?;
                next.push(path);
            }
        }
        Ok(())
    }

    /// An agent of version 1 lists only files, at any depth.
    async fn version_1(
        &mut self,
        service: &MetaService,
        pattern: &Pattern,
    ) -> Result<(), CollectError> {
        let files = match service.list(&*pattern.base).files().await {
            Err(ListError::NotFound(_)) => Vec::new(),
            files => files?,
        };
        let base = format!("{}/", pattern.base.trim_end_matches('/'));
        for file in files {
            self.count()?;
            let below = file.strip_prefix(&base).filter(|below| below.split('/').all(is_name));
            if below.is_some_and(|below| pattern.matches(below)) {
                self.take(file, EntryKind::File)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, path: String, kind: EntryKind) -> Result<(), CollectError> {
        // As in a copy of their directory, sockets, FIFOs and devices are left out.
        if !matches!(kind, EntryKind::File | EntryKind::Directory | EntryKind::Link) {
            return Ok(());
        }
        self.weigh(&path)?;
        self.found.push(path);
        if self.found.len() > MAX_MATCHES { Err(CollectError::TooManyMatches) } else { Ok(()) }
    }

    fn count(&mut self) -> Result<(), CollectError> {
        self.seen += 1;
        if self.seen > self.most { Err(CollectError::TooManyNames(self.most)) } else { Ok(()) }
    }

    fn weigh(&mut self, path: &str) -> Result<(), CollectError> {
        self.bytes = self.bytes.saturating_add(path.len());
        if self.bytes > MAX_BYTES { Err(CollectError::TooManyMatches) } else { Ok(()) }
    }
}

fn join(directory: &str, path: &str) -> String {
    match directory {
        "." => path.to_owned(),
        directory if directory.ends_with('/') => format!("{directory}{path}"),
        directory => format!("{directory}/{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_name_becomes_part_of_a_path_of_the_host() {
        for name in ["a", "a b", "...", "-x", "\u{1b}[2J"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", ".", "..", "/", "/etc", "a/b", "../a", "a\0"] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn a_path_is_below_its_directory() {
        assert_eq!(join("/", "a"), "/a");
        assert_eq!(join("/tmp", "a/b"), "/tmp/a/b");
        assert_eq!(join(".", "a"), "a");
    }
}
