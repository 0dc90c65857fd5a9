//! Where the artifacts of a job of a queue go, by the rules of `run`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use metaservice_sandbox::copy::{extract, place};
use metaservice_sandbox::spec::ArtifactSpec;

/// Where an artifact goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// A file, which gets this path.
    File(PathBuf),
    /// An archive, whose members go into this directory.
    Into(PathBuf),
    /// An archive of one directory, which gets another name.
    As {
        /// Its path here.
        path: PathBuf,
        /// Its name in the archive.
        name: String,
    },
}

impl Target {
    /// The place of what the job has left, as `run` has it.
    pub(super) fn of(wanted: &ArtifactSpec, is_archive: bool) -> Self {
        let here = || PathBuf::from(".");
        let name = place::name(&wanted.path).filter(|_| !wanted.is_pattern());
        match (is_archive, name, &wanted.to) {
            (false, Some(name), None) => Self::File(here().join(name)),
            (false, Some(name), Some(to)) if is_directory(to) => Self::File(to.join(name)),
            (false, _, to) => Self::File(to.clone().unwrap_or_else(|| here().join("artifact"))),
            (true, _, None) => Self::Into(here()),
            (true, Some(name), Some(to)) if !is_directory(to) => {
                Self::As { path: to.clone(), name: name.to_owned() }
            }
            (true, _, Some(to)) => Self::Into(to.clone()),
        }
    }

    /// The directory that has what is temporary: on the file system of the place.
    pub(super) fn directory(&self) -> PathBuf {
        match self {
            Self::File(path) | Self::As { path, .. } => parent(path).to_owned(),
            Self::Into(directory) => directory.clone(),
        }
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Whether a destination is a directory, or is written as one.
fn is_directory(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"/") || path.is_dir()
}

/// Extracts an archive of one directory under another name. Blocks.
pub(super) fn extract_as(archive: &File, path: &Path, name: &str, max: u64) -> Result<()> {
    let staged = tempfile::tempdir_in(parent(path))?;
    extract(archive, staged.path(), max)?;
    fs::rename(staged.path().join(name), path)
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};

    use super::*;

    fn target(artifact: &str, is_archive: bool) -> Target {
        Target::of(&artifact.parse().unwrap(), is_archive)
    }

    #[test]
    fn the_places_are_those_of_run() {
        let directory = tempfile::tempdir().unwrap();
        let there = directory.path().display();
        let (file, into) = (
            |path: String| Target::File(path.into()),
            |path: String| Target::Into(PathBuf::from(path)),
        );
        assert_eq!(target("/out/report.xml", false), file("./report.xml".to_owned()));
        assert_eq!(target("/r.xml:new", false), file("new".to_owned()));
        assert_eq!(target("/r.xml:new/", false), file("new/r.xml".to_owned()));
        assert_eq!(target(&format!("/r.xml:{there}"), false), file(format!("{there}/r.xml")));
        assert_eq!(target("/out", true), into(".".to_owned()));
        let renamed = Target::As { path: "new".into(), name: "out".to_owned() };
        assert_eq!(target("/out/:new", true), renamed);
        assert_eq!(target(&format!("/out:{there}"), true), into(there.to_string()));
        assert_eq!(target("/*.txt:new", true), into("new".to_owned()));
        assert_eq!(target("/*.txt", true), into(".".to_owned()));
        assert_eq!(target("/:new", true), into("new".to_owned()));
    }

    #[test]
    fn a_directory_gets_its_other_name_and_a_larger_one_leaves_nothing() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(from.path().join("out")).unwrap();
        fs::write(from.path().join("out/a"), "four").unwrap();
        let mut packer = metaservice_archive::Packer::open(from.path()).unwrap();
        let mut archive = tempfile::tempfile().unwrap();
        while let Some(block) = packer.next_block().unwrap() {
            archive.write_all(&block.bytes).unwrap();
        }
        let archive = |max: u64, name: &str| {
            (&archive).rewind().unwrap();
            extract_as(&archive, &to.path().join(name), "out", max)
        };
        archive(4, "results").unwrap();
        assert_eq!(fs::read_to_string(to.path().join("results/a")).unwrap(), "four");
        archive(3, "other").unwrap_err();
        assert_eq!(fs::read_dir(to.path()).unwrap().count(), 1);
    }
}
