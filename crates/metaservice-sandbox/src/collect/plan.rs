//! Which artifacts are written where: two never go to one path.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::CollectError;
use super::expand::Expanded;
use crate::copy::place;
use crate::job::{Artifact, ArtifactSource};
use crate::output;

/// An artifact of the description with its parts. A part with an error is not fetched.
pub(super) struct Planned<'a> {
    pub(super) artifact: &'a Artifact,
    pub(super) parts: Vec<(Artifact, Option<CollectError>)>,
}

/// Finds the parts that would be written to one path.
pub(super) fn plan(expanded: Vec<(&Artifact, Expanded)>) -> Vec<Planned<'_>> {
    let mut taken: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    for part in expanded.iter().filter_map(|(_, parts)| parts.as_ref().ok()).flatten() {
        if let Some(key) = key(part) {
            taken.entry(key).or_default().push(part.source.clone());
        }
    }
    let planned = |(artifact, parts): (_, Expanded)| {
        let artifact: &Artifact = artifact;
        let parts = match parts {
            Ok(parts) => parts.into_iter().map(|part| check(part, &taken)).collect(),
            Err(error) => vec![(artifact.clone(), Some(error))],
        };
        Planned { artifact, parts }
    };
    expanded.into_iter().map(planned).collect()
}

fn check(
    part: Artifact,
    taken: &BTreeMap<PathBuf, Vec<String>>,
) -> (Artifact, Option<CollectError>) {
    let sources = key(&part).and_then(|key| taken.get(&key)).filter(|sources| sources.len() > 1);
    let other = sources.and_then(|sources| {
        // One path in the guest that two patterns match has another one as well.
        sources.iter().find(|source| **source != part.source).or(sources.first())
    });
    let error = other.map(|other| CollectError::SameDestination {
        other: other.clone(),
        path: part.destination.clone(),
    });
    (part, error)
}

/// What identifies a destination. `None`: several artifacts may go to it, such as a device.
fn key(part: &Artifact) -> Option<PathBuf> {
    debug_assert!(matches!(part.kind, ArtifactSource::Path));
    if output::is_stream(&part.destination, part.named) {
        return None;
    }
    let name = part.destination.file_name()?;
    Some(absolute(place::parent(&part.destination)).join(name))
}

/// A directory without links. One that does not exist yet is in its parent.
fn absolute(directory: &Path) -> PathBuf {
    if let Ok(found) = directory.canonicalize() {
        return found;
    }
    match (place::parent(directory).canonicalize(), directory.file_name()) {
        (Ok(parent), Some(name)) => parent.join(name),
        _ => directory.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Named;

    fn artifact(source: &str, destination: PathBuf) -> Artifact {
        let source = source.to_owned();
        Artifact { kind: ArtifactSource::Path, source, destination, named: Named::ByGuest }
    }

    #[test]
    fn two_parts_with_one_destination_are_both_refused() {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        std::os::unix::fs::symlink(here, here.join("again")).unwrap();
        let one = [artifact("/a/x", here.join("out/x")), artifact("/a/y", here.join("out/y"))];
        let other = [artifact("/b/x", here.join("again/out/x"))];
        let whole = artifact("whole", here.to_owned());
        let planned = plan(vec![
            (&whole, Ok(one.to_vec())),
            (&whole, Ok(other.to_vec())),
            (&whole, Err(CollectError::NoMatch)),
        ]);
        let errors: Vec<Vec<Option<String>>> = planned
            .iter()
            .map(|planned| {
                planned.parts.iter().map(|(_, error)| error.as_ref().map(ToString::to_string))
            })
            .map(Iterator::collect)
            .collect();
        assert!(errors[0][0].as_ref().unwrap().starts_with("/b/x has the same destination"));
        assert_eq!(errors[0][1], None);
        assert!(errors[1][0].as_ref().unwrap().starts_with("/a/x has the same destination"));
        assert_eq!(errors[2], [Some("nothing in the guest matches".to_owned())]);
    }
}
