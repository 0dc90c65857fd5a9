//! From flags to the description of a job. Flags are one way to write it; a file is another.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use metaservice_sandbox::job::{Job, parse_env_file, parse_limit, set_variable};
use metaservice_sandbox::spec::{
    AccelSpec, ArtifactSpec, CloudSpec, HardwareSpec, JobSpec, NetSpec, Period, SessionSpec, Size,
    TerminalSpec,
};

use crate::args::{Accel, CloudArgs, HardwareArgs, JobArgs, Net, RunArgs, Session, VmArgs};
use crate::hints;
use crate::terminal;

/// A description, and the values of its secrets.
#[derive(Debug)]
pub(crate) struct Description {
    pub(crate) spec: JobSpec,
    secrets: BTreeMap<String, String>,
    /// Whether flags have made it: errors name them.
    by_flags: bool,
}

impl Description {
    /// The description that `run` is given: by a file, or by flags.
    pub(crate) fn of_run(args: RunArgs) -> Result<Self> {
        let RunArgs { tty, spec: file, job, vm, cloud, dry_run: _ } = args;
        let mut description = Self::of_job(job)?;
        if tty {
            let size = terminal::size().unwrap_or(terminal::USUAL_SIZE);
            let (columns, rows) = (size.columns, size.rows);
            description.spec.terminal = Some(TerminalSpec { columns, rows });
            terminal::tell_type(&mut description.spec.env);
        }
        description.spec.machine = machine(vm)?;
        description.spec.cloud = cloud_data(cloud);
        let Some(file) = file else { return Ok(description) };
        let nothing = JobSpec::new(Vec::<String>::new());
        ensure!(
            description.spec == nothing,
            "--spec {} is the whole description of the job: no other option or command goes with it",
            file.display()
        );
        let secrets = description.secrets;
        Ok(Self { spec: read(&file)?, secrets, by_flags: false })
    }

    /// The part that `run` and `serve` share.
    pub(crate) fn of_job(args: JobArgs) -> Result<Self> {
        let mut spec = JobSpec::new(args.command);
        for file in &args.env_file {
            let text = std::fs::read(file)
                .with_context(|| format!("cannot read --env-file {}", file.display()))?;
            parse_env_file(&text, &mut spec.env)
                .with_context(|| format!("in --env-file {}", file.display()))?;
        }
        for variable in &args.env {
            set_variable(variable, &mut spec.env).context("in --env")?;
        }
        for text in &args.limit {
            let (name, value) = parse_limit(text).with_context(|| format!("in --limit {text}"))?;
            spec.limits.insert(name, value);
        }
        spec.name = args.name;
        spec.secrets = args.secret.into_iter().collect();
        spec.timeout = period(args.timeout.as_deref(), "--timeout")?;
        spec.artifacts = args.artifact.iter().map(|text| artifact(text)).collect();
        spec.log = args.log;
        spec.max_log = size(&args.max_log, "--max-log")?;
        spec.max_artifact = size(&args.max_artifact, "--max-artifact")?;
        spec.session = match args.session {
            Session::Required => SessionSpec::Required,
            Session::Claimed => SessionSpec::Claimed,
            Session::Off => SessionSpec::Off,
        };
        Ok(Self { spec, secrets: args.withdrawn, by_flags: true })
    }

    /// Adds keys and user data.
    pub(crate) fn with_cloud(mut self, args: CloudArgs) -> Self {
        self.spec.cloud = cloud_data(args);
        self
    }

    /// Checks it.
    pub(crate) fn check(self) -> Result<Job> {
        let Self { spec, secrets, by_flags } = self;
        // Those that were taken out of the environment are not there any more.
        let secret = |name: &str| secrets.get(name).cloned().or_else(|| std::env::var(name).ok());
        let job = Job::resolve(spec, secret);
        if by_flags { job.map_err(hints::job) } else { Ok(job?) }
    }
}

/// Reads a description.
fn read(file: &Path) -> Result<JobSpec> {
    let text =
        std::fs::read(file).with_context(|| format!("cannot read --spec {}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("in --spec {}", file.display()))
}

/// The names of the secrets of a description, as far as it can be read.
pub(crate) fn secrets_of(file: &Path) -> Vec<String> {
    read(file).map(|spec| spec.secrets.into_iter().collect()).unwrap_or_default()
}

/// The machine that the flags describe.
pub(crate) fn machine(args: VmArgs) -> Result<HardwareSpec> {
    let mut spec = hardware(&args.hardware)?;
    spec.snapshot = args.snapshots();
    spec.image = args.image;
    spec.rootfs = args.rootfs;
    spec.show = args.show;
    spec.hide = args.hide;
    spec.kernel = args.kernel;
    spec.initrd = args.initrd;
    spec.net = network(args.net);
    spec.publish = args.publish;
    spec.boot_timeout = period(args.boot_timeout.as_deref(), "--boot-timeout")?;
    spec.kaslr = args.kaslr;
    spec.pcap = args.pcap;
    spec.console = args.console;
    Ok(spec)
}

/// The hardware that the flags describe.
pub(crate) fn hardware(args: &HardwareArgs) -> Result<HardwareSpec> {
    let memory = metaservice_qemu::Memory::parse(&args.memory).context("in --memory")?;
    let mut spec = HardwareSpec::default();
    spec.cpus = args.cpus;
    spec.memory = Size(memory.mebibytes() << 20);
    spec.accel = match args.accel {
        Accel::Auto => AccelSpec::Auto,
        Accel::Kvm => AccelSpec::Kvm,
        Accel::Tcg => AccelSpec::Tcg,
    };
    Ok(spec)
}

pub(crate) const fn network(net: Net) -> NetSpec {
    match net {
        Net::None => NetSpec::None,
        Net::User => NetSpec::User,
    }
}

pub(crate) fn cloud_data(args: CloudArgs) -> CloudSpec {
    CloudSpec { ssh_keys: args.ssh_key, user_data: args.user_data }
}

pub(crate) fn period(text: Option<&str>, flag: &'static str) -> Result<Option<Period>> {
    text.map(str::parse).transpose().context(format!("in {flag}"))
}

fn size(text: &str, flag: &'static str) -> Result<Size> {
    text.parse().context(format!("in {flag}"))
}

fn artifact(text: &str) -> ArtifactSpec {
    match text.parse() {
        Ok(artifact) => artifact,
        Err(never) => match never {},
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn description(words: &[&str]) -> Result<Description> {
        let words = ["metaservice", "run"].into_iter().chain(words.iter().copied());
        match Cli::try_parse_from(words)?.command {
            Command::Run(args) => Description::of_run(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_and_a_file_describe_the_same_job() {
        let flags = [
            "--name",
            "a",
            "-e",
            "A=1",
            "--timeout",
            "5m",
            "--artifact",
            "/x:y",
            "--cpus",
            "2",
            "--memory",
            "512M",
            "--limit",
            "list=1M",
            "--no-snapshot",
            "--",
            "make",
            "test",
        ];
        let by_flags = description(&flags).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("job.json");
        std::fs::write(&file, serde_json::to_vec(&by_flags.spec).unwrap()).unwrap();
        let by_file = description(&["--spec", file.to_str().unwrap()]).unwrap();
        assert_eq!(by_file.spec, by_flags.spec);
    }

    #[test]
    fn a_file_is_the_whole_description() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("job.json");
        std::fs::write(&file, r#"{"version":1,"command":["true"]}"#).unwrap();
        let file = file.to_str().unwrap();
        for more in [&["--", "true"][..], &["--cpus", "2"], &["--tty"]] {
            let words: Vec<&str> =
                ["--spec", file].into_iter().chain(more.iter().copied()).collect();
            let refused = description(&words).unwrap_err().to_string();
            assert!(refused.contains("is the whole description"), "{refused}");
        }
        assert!(description(&["--spec", "/no/such/file"]).is_err());
    }

    #[test]
    fn a_wrong_value_is_refused_by_its_flag() {
        let refused = |words: &[&str]| {
            let words: Vec<&str> = words.iter().copied().chain(["--", "true"]).collect();
            let refused = description(&words).and_then(Description::check);
            format!("{:#}", refused.unwrap_err())
        };
        for (flag, value) in [
            ("--name", "a b"),
            ("--timeout", "soon"),
            ("--max-log", "x"),
            ("--memory", "1X"),
            ("--boot-timeout", "0"),
        ] {
            let error = refused(&[flag, value]);
            assert!(error.starts_with(&format!("in {flag}: ")), "{error}");
        }
        for (flag, value) in [("--limit", "list=0"), ("--artifact", "/dir/")] {
            let error = refused(&[flag, value]);
            assert!(error.starts_with(&format!("in {flag} {value}: ")), "{error}");
        }
        assert_eq!(refused(&["--publish", "1:2"]), "--publish needs --net user");
        let same = refused(&["--artifact", "/a/x", "--log", "x"]);
        assert!(same.starts_with("--artifact /a/x and --log would both write"), "{same}");
    }
}
