use super::*;
use metaservice::control::JobState;
use serde_json::json;

fn jobs(place: &tempfile::TempDir) -> Jobs {
    Jobs::at(place.path().join("jobs"))
}

fn name(text: &str) -> JobName {
    text.parse().unwrap()
}

fn began() -> Began {
    Began {
        started_ms: 5,
        pid: 7,
        command: vec!["make".to_owned()],
        env: vec!["CI".to_owned()],
        spec: json!({ "version": 1 }),
    }
}

fn claim(place: &tempfile::TempDir, job: &str, keep: Option<&Keep>) -> Result<Claimed, ClaimError> {
    Claim::make(jobs(place), &name(job), &began(), keep)
}

#[test]
fn a_name_belongs_to_one_process_and_is_free_after_it() {
    let place = tempfile::tempdir().unwrap();
    let build = name("build");
    let claimed = claim(&place, "build", None).unwrap();
    assert!(jobs(&place).is_running(&build));
    assert_eq!(jobs(&place).names().unwrap(), std::slice::from_ref(&build));
    let refused = claim(&place, "build", None).unwrap_err();
    assert!(matches!(refused, ClaimError::Running(_)), "{refused:?}");
    assert!(!jobs(&place).remove(&build).unwrap());
    claimed.claim.release();
    assert!(jobs(&place).names().unwrap().is_empty());
}

#[test]
fn many_processes_claim_one_name_and_one_gets_it() {
    let place = tempfile::tempdir().unwrap();
    let claim = || claim(&place, "build", None).ok();
    let claims: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(claim)).collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(claims.len(), 1);
}

#[test]
fn a_process_that_is_killed_leaves_a_lost_job() {
    let place = tempfile::tempdir().unwrap();
    let keep = Keep::default();
    // Dropped without a result and without a release, as a process that is killed.
    drop(claim(&place, "build", Some(&keep)).unwrap());
    let past = jobs(&place).past(&name("build")).unwrap();
    assert_eq!((past.job.state, past.job.status, past.job.pid), (JobState::Lost, None, 7));
    assert_eq!(past.job.command, ["make"]);
    // Without a description, as on a full disk, the job is listed too.
    std::fs::remove_file(past.directory.join(SPEC)).unwrap();
    let past = jobs(&place).past(&name("build")).unwrap();
    assert_eq!((past.job.state, past.job.name.as_str()), (JobState::Lost, "build"));
    assert!(claim(&place, "build", Some(&keep)).is_ok());
}

#[test]
fn a_result_is_read_as_it_was_written() {
    let place = tempfile::tempdir().unwrap();
    let claimed = claim(&place, "build", Some(&Keep::default())).unwrap();
    let mut past = PastJob::of(metaservice::control::Job::lost("build"));
    past.job.state = JobState::Failed;
    past.job.status = Some(3);
    past.ended_ms = Some(9);
    claimed.claim.write_result(&past).unwrap();
    assert!(jobs(&place).past(&name("build")).is_none(), "it still runs");
    claimed.claim.release();
    drop(claimed);
    past.spec = json!({ "version": 1 });
    past.directory = jobs(&place).path_of(&name("build"));
    assert_eq!(jobs(&place).past(&name("build")).unwrap(), past);
    let text = std::fs::read_to_string(past.directory.join(SPEC)).unwrap();
    assert!(text.contains("CI"), "{text}");
}

#[test]
fn a_start_removes_old_jobs_and_never_one_that_runs() {
    let place = tempfile::tempdir().unwrap();
    let all = Keep::default();
    let running = claim(&place, "running", Some(&all)).unwrap();
    for job in ["a", "b", "c"] {
        let claimed = claim(&place, job, Some(&all)).unwrap();
        claimed.claim.write_result(&PastJob::of(metaservice::control::Job::lost(job))).unwrap();
        claimed.claim.release();
    }
    let none = Keep { jobs: 0, ..all };
    let new = claim(&place, "new", Some(&none)).unwrap();
    assert_eq!(jobs(&place).names().unwrap(), [name("new"), name("running")]);
    drop((running, new));
}

#[test]
fn clients_find_a_socket_below_a_long_home() {
    let place = tempfile::tempdir().unwrap();
    let home = place.path().join("h".repeat(120));
    std::fs::create_dir(&home).unwrap();
    let jobs = Jobs::at(home.join("jobs"));
    let name = name(&"n".repeat(JobName::MAX));
    let path = jobs.socket(&name);
    let claimed = Claim::make(jobs, &name, &began(), None).unwrap();
    let socket = SocketPath::of(&path).unwrap();
    std::os::unix::net::UnixStream::connect(socket.as_path()).unwrap();
    claimed.listener.accept().unwrap();
}
