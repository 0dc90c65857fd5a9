//! From flags to the description of a job. Flags are one way to write it; a file is another.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result};
use metaservice_sandbox::job::{Job, parse_env_file, parse_limit, set_variable};
use metaservice_sandbox::spec::{
    self, AccelSpec, ArtifactSpec, CloudSpec, CopyInSpec, HardwareSpec, JobSpec, NetworkMode,
    NetworkSpec, Period, SessionSpec, Size, StderrSpec,
};

use crate::flags::{
    Accel, ArtifactsOn, CloudArgs, HardwareArgs, JobArgs, Net, NetworkArgs, PolicyArgs, Session,
    Stderr, VmArgs,
};
use crate::hints;

/// A description, and the values of its secrets.
#[derive(Debug)]
pub(crate) struct Description {
    pub(crate) spec: JobSpec,
    pub(crate) secrets: BTreeMap<String, String>,
    /// The file that has it. `None`: flags describe it, and errors name them.
    file: Option<PathBuf>,
}

impl Description {
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
        spec.workdir = args.workdir;
        spec.user = args.user;
        spec.hostname = args.hostname;
        // As with docker, an empty word means none.
        let words = |word: String| Vec::from_iter(Some(word).filter(|word| !word.is_empty()));
        spec.entrypoint = args.entrypoint.map(words);
        spec.secrets = args.secret.into_iter().collect();
        spec.timeout = period(args.timeout.as_deref(), "--timeout")?;
        spec.copy_in = args.copy_in.iter().map(|text| copy_in(text)).collect();
        spec.artifacts_on = match args.artifacts_on {
            ArtifactsOn::Always => spec::ArtifactsOn::Always,
            ArtifactsOn::Failure => spec::ArtifactsOn::Failure,
            ArtifactsOn::Success => spec::ArtifactsOn::Success,
        };
        spec.artifacts = args.artifact.iter().map(|text| artifact(text)).collect();
        spec.stderr = args.stderr.map(|stderr| match stderr {
            Stderr::Separate => StderrSpec::Separate,
            Stderr::Merged => StderrSpec::Merged,
        });
        spec.log = args.log;
        spec.max_log = size(&args.max_log, "--max-log")?;
        spec.max_artifact = size(&args.max_artifact, "--max-artifact")?;
        spec.session = match args.session {
            Session::Required => SessionSpec::Required,
            Session::Claimed => SessionSpec::Claimed,
            Session::Off => SessionSpec::Off,
        };
        Ok(Self { spec, secrets: args.withdrawn, file: None })
    }

    /// The description in a file, with the values of secrets. `text`: the file, if it has been read.
    pub(crate) fn of_file(
        file: &Path,
        text: Option<Vec<u8>>,
        secrets: BTreeMap<String, String>,
    ) -> Result<Self> {
        let text = text.map_or_else(|| text_of(file), Ok);
        let text = text.with_context(|| format!("cannot read --spec {}", file.display()))?;
        let spec = parse(&text).with_context(|| format!("in --spec {}", file.display()))?;
        Ok(Self { spec, secrets, file: Some(file.to_owned()) })
    }

    /// A description that another process of this tool has made of flags.
    pub(crate) fn new(spec: JobSpec, secrets: BTreeMap<String, String>) -> Self {
        Self { spec, secrets, file: None }
    }

    /// The description, and the values of its secrets as far as they were taken out of the
    /// environment.
    pub(crate) fn into_parts(self) -> (JobSpec, BTreeMap<String, String>) {
        (self.spec, self.secrets)
    }

    /// Adds keys and user data.
    pub(crate) fn with_cloud(mut self, args: CloudArgs) -> Self {
        self.spec.cloud = cloud_data(args);
        self
    }

    /// Checks it.
    pub(crate) fn check(self) -> Result<Job> {
        let Self { spec, secrets, file } = self;
        // Those that were taken out of the environment are not there any more.
        let secret = |name: &str| secrets.get(name).cloned().or_else(|| std::env::var(name).ok());
        let job = Job::resolve(spec, secret);
        match file {
            None => job.map_err(hints::job),
            Some(file) => job.with_context(|| format!("in --spec {}", file.display())),
        }
    }
}

/// The largest file of a description. The kernel takes no larger command and environment.
const MAX_FILE: u64 = 8 << 20;

fn parse(text: &[u8]) -> Result<JobSpec> {
    match text.len() as u64 > MAX_FILE {
        true => Err(Error::msg(format!("the file is larger than {} MiB", MAX_FILE >> 20))),
        false => serde_json::from_slice(text).map_err(Error::new),
    }
}

/// Reads the file of a description, and not more than one byte above the limit. "-" is stdin.
pub(crate) fn text_of(file: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    match file.as_os_str() == "-" {
        true => io::stdin().take(MAX_FILE + 1).read_to_end(&mut text)?,
        false => File::open(file)?.take(MAX_FILE + 1).read_to_end(&mut text)?,
    };
    Ok(text)
}

/// The names of the secrets of a description, as far as it can be parsed.
pub(crate) fn secrets_of(text: &[u8]) -> Vec<String> {
    parse(text).map(|spec| spec.secrets.into_iter().collect()).unwrap_or_default()
}

/// The machine that the flags describe.
pub(crate) fn machine(args: VmArgs) -> Result<HardwareSpec> {
    let mut spec = hardware(&args.hardware)?;
    spec.snapshot = args.snapshots();
    spec.image = args.image;
    spec.rootfs = args.rootfs;
    spec.show = args.show;
    spec.hide = args.hide;
    let volume = |text: &String| text.parse().with_context(|| format!("in --volume {text}"));
    spec.volumes = args.volume.iter().map(volume).collect::<Result<_>>()?;
    spec.kernel = args.kernel;
    spec.initrd = args.initrd;
    spec.network = network(args.network);
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

/// The network that the flags describe.
fn network(args: NetworkArgs) -> NetworkSpec {
    let mut spec = policy(args.policy);
    spec.log = args.net_log;
    spec.publish = args.publish;
    spec
}

/// What a guest may connect to, as the flags describe it.
pub(crate) fn policy(args: PolicyArgs) -> NetworkSpec {
    let mut spec = NetworkSpec::default();
    spec.mode = args.net.map(|net| match net {
        Net::None => NetworkMode::None,
        Net::Open => NetworkMode::Open,
    });
    spec.allow = args.allow_net;
    spec.deny = args.deny_net;
    spec.policy = args.net_policy;
    spec
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

fn copy_in(text: &str) -> CopyInSpec {
    match text.parse() {
        Ok(copy) => copy,
        Err(never) => match never {},
    }
}

fn artifact(text: &str) -> ArtifactSpec {
    match text.parse() {
        Ok(artifact) => artifact,
        Err(never) => match never {},
    }
}
