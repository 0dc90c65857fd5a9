//! Tests of the step from a description to a job, and of its errors.

use std::path::Path;

use super::*;
use crate::spec::{ArtifactSpec, VolumeModeSpec, VolumeSpec};

fn spec() -> JobSpec {
    JobSpec::new(["true"])
}

fn resolve(spec: JobSpec) -> Result<Job, InvalidJob> {
    Job::resolve(spec, |name| (name == "TOKEN").then(|| "x".to_owned()))
}

fn artifact(text: &str) -> ArtifactSpec {
    match text.parse() {
        Ok(artifact) => artifact,
        Err(never) => match never {},
    }
}

fn artifacts(texts: &[&str]) -> Result<Vec<Artifact>, InvalidJob> {
    let artifacts = texts.iter().map(|text| artifact(text)).collect();
    Ok(resolve(JobSpec { artifacts, ..spec() })?.artifacts)
}

#[test]
fn a_job_has_a_version_a_command_and_a_name() {
    assert!(matches!(resolve(JobSpec { version: 2, ..spec() }), Err(InvalidJob::Version(2))));
    let empty = JobSpec::new(Vec::<String>::new());
    assert!(matches!(resolve(empty), Err(InvalidJob::NoCommand)));
    assert!(resolve(spec()).unwrap().name().starts_with("job-"));
    let wrong = resolve(JobSpec { name: Some("a b".to_owned()), ..spec() }).unwrap_err();
    assert!(matches!(wrong, InvalidJob::Field { field: Field::Name, .. }));
}

#[test]
fn a_secret_is_named_and_its_value_comes_from_elsewhere() {
    let named = |name: &str, session| {
        let secrets = [name.to_owned()].into();
        resolve(JobSpec { secrets, session, ..spec() }).map(|job| job.secrets)
    };
    let session = SessionSpec::Claimed;
    assert_eq!(named("TOKEN", session).unwrap(), [("TOKEN".to_owned(), "x".to_owned())].into());
    assert!(matches!(named("TOKEN=x", session), Err(InvalidJob::SecretWithValue)));
    assert!(matches!(named("OTHER", session), Err(InvalidJob::SecretNotSet(_))));
    let off = named("TOKEN", SessionSpec::Off);
    assert!(matches!(off, Err(InvalidJob::SecretsWithoutSession)));
}

#[test]
fn an_artifact_goes_where_the_description_says() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path().display();
    let destination = |text: &str| artifacts(&[text]).unwrap().remove(0).destination;
    assert_eq!(destination("/var/log/out.txt"), Path::new("out.txt"));
    assert_eq!(destination(&format!("/o.txt:{here}")), directory.path().join("o.txt"));
    assert_eq!(destination(&format!("/o.txt:{here}/n")), directory.path().join("n"));
    assert_eq!(destination("/var/log/"), Path::new("log"));
    assert_eq!(destination(&format!("/var/log/.:{here}/all")), directory.path().join("all"));
    assert_eq!(destination(&format!("/var/log/.:{here}")), directory.path());
    for wrong in ["", ":x", "/", "/..", "/dir/.", "/o:", "/o:-", "/o:/nowhere/at/all/"] {
        assert!(artifacts(&[wrong]).is_err(), "{wrong}");
    }
}

#[test]
fn a_pattern_goes_into_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path().display();
    std::fs::write(directory.path().join("file"), "").unwrap();
    let destination = |text: &str| artifacts(&[text]).map(|mut all| all.remove(0).destination);
    assert_eq!(destination("/tmp/*.xml").unwrap(), Path::new("."));
    assert_eq!(
        destination(&format!("/tmp/*.xml:{here}/new/")).unwrap(),
        directory.path().join("new")
    );
    for wrong in [format!("/*:{here}/file"), format!("/*:{here}/a/b"), "/a[".to_owned()] {
        assert!(artifacts(&[&wrong]).is_err(), "{wrong}");
    }
    let both = [format!("/a/*:{here}"), format!("/b/*:{here}")];
    assert!(artifacts(&[&both[0], &both[1]]).is_ok(), "their names may differ");
    let same = [format!("/a/*:{here}/new"), format!("/b:{here}/new")];
    assert!(artifacts(&[&same[0], &same[1]]).is_err(), "one would replace the other");
}

#[test]
fn a_colon_of_the_path_has_a_backslash_before_it() {
    let parsed = |text: &str| {
        let artifact = artifacts(&[text]).unwrap().remove(0);
        (artifact.source, artifact.destination.to_str().unwrap().to_owned())
    };
    let is = |source: &str, destination: &str| (source.to_owned(), destination.to_owned());
    assert_eq!(parsed(r"/log/12\:30.txt"), is("/log/12:30.txt", "12:30.txt"));
    assert_eq!(parsed(r"/a\:b:out:1"), is("/a:b", "out:1"));
    assert_eq!(parsed(r"/a\\:out"), is(r"/a\", "out"));
    assert_eq!(parsed(r"/a\\\:b:out"), is(r"/a\:b", "out"));
    assert_eq!(parsed(r"C\:\x\y.txt:out"), is(r"C:\x\y.txt", "out"));
    assert_eq!(parsed(r"/a\b:out"), is(r"/a\b", "out"));
}

#[test]
fn two_outputs_do_not_go_into_one_file() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    std::os::unix::fs::symlink("/dev/null", here.join("null")).unwrap();
    let check = |artifacts: &[&str], log: Option<&str>| {
        let mut spec = JobSpec { log: log.map(|log| here.join(log)), ..spec() };
        spec.artifacts = artifacts.iter().map(|text| artifact(text)).collect();
        resolve(spec).map(|_| ()).map_err(|error| error.to_string())
    };
    let to = |name: &str| format!("{}/{name}", here.display());
    let same = [format!("/x/a:{}", to("")), format!("/y/b:{}", to("./a"))];
    let refused = check(&[&same[0], &same[1]], None).unwrap_err();
    assert!(refused.contains("artifact /x/a and artifact /y/b would both write"), "{refused}");
    assert!(check(&[&same[0]], Some("a")).is_err());
    assert_eq!(check(&[&same[0]], Some("b")), Ok(()));
    assert!(check(&["/x/a", "/y/a"], None).is_err());
    let null = [format!("/x:{}", to("null")), format!("/y:{}", to("null"))];
    assert_eq!(check(&[&null[0], &null[1]], Some("null")), Ok(()));
}

#[test]
fn an_artifact_in_a_writable_volume_has_the_path_that_it_had_before_the_guest() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path().canonicalize().unwrap();
    for name in ["volume/out", "other"] {
        std::fs::create_dir_all(here.join(name)).unwrap();
    }
    std::os::unix::fs::symlink(here.join("volume"), here.join("link")).unwrap();
    std::os::unix::fs::symlink(here.join("other"), here.join("volume/leaves")).unwrap();
    let resolved = |text: &str, mode| {
        let mut spec = JobSpec { artifacts: vec![artifact(text)], ..spec() };
        let host = here.join("volume");
        spec.machine.volumes = vec![VolumeSpec { host, guest: "/src".to_owned(), mode }];
        let artifact = resolve(spec).unwrap().artifacts.remove(0);
        (artifact.destination, artifact.named)
    };
    let writable = |text: &str| resolved(text, VolumeModeSpec::Rw);
    let to = |path: &str| format!("/x:{}/{path}", here.display());
    let pattern = |path: &str| format!("/x*:{}/{path}", here.display());
    let guarded = |path: &str| (here.join(path), Named::InVolume);
    assert_eq!(writable(&to("link/name")), guarded("volume/name"));
    assert_eq!(writable(&to("link/out")), guarded("volume/out/x"));
    assert_eq!(writable(&pattern("link/out")), guarded("volume/out"));
    assert_eq!(writable(&pattern("link/new")), guarded("volume/new"));
    // The guest cannot write there, and does not choose the way.
    assert_eq!(writable(&to("volume/leaves/name")), (here.join("other/name"), Named::ByUser));
    let read_only = resolved(&to("link/name"), VolumeModeSpec::Ro);
    assert_eq!(read_only, (here.join("link/name"), Named::ByUser));
}

#[test]
fn the_limits_of_a_description_are_checked_without_the_rest() {
    let check = Job::check_limits;
    let mut wrong = spec();
    wrong.log = Some("/none/such/log".into());
    wrong.secrets.insert("OTHER".to_owned());
    assert!(check(&wrong).is_ok());
    wrong.limits.insert("headers".to_owned(), "1T".to_owned());
    let limit = Field::Limit("headers=1T".to_owned());
    assert!(matches!(check(&wrong), Err(InvalidJob::Field { field, .. }) if field == limit));
    let too_long = Some(Period::unchecked(Duration::MAX));
    let wrong = JobSpec { timeout: too_long, ..spec() };
    let refused = check(&wrong);
    assert!(matches!(refused, Err(InvalidJob::Field { field: Field::Timeout, .. })));
}
