//! What the words of the command line mean: every value checked before anything starts.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};

use metaservice::{Cloud, SessionMode, TerminalSize};

use crate::args::{JobArgs, Session};
use crate::bounds::Bounds;
use crate::destination::{self, Named};
use crate::env_file;

/// The longest name of a job: what a host name can be.
pub(crate) const MAX_NAME: usize = 63;

/// One job, as `run` and `serve` share it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct JobSettings {
    pub(crate) name: String,
    /// Whether the user chose the name.
    pub(crate) named: bool,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) artifacts: Vec<ArtifactSettings>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) log: Option<PathBuf>,
    pub(crate) command: Vec<String>,
    /// What `ps` shows in place of the command, which is internal.
    pub(crate) shown: Option<Vec<String>>,
    /// Variables that only the guest's agent gets.
    pub(crate) secrets: BTreeMap<String, String>,
    pub(crate) session: SessionMode,
    /// What the guest may take of the host.
    pub(crate) bounds: Bounds,
    /// Domain names by which guests may know the service.
    pub(crate) host_names: Vec<String>,
    /// Where the job's state is kept, if it outlives its service.
    pub(crate) state: Option<PathBuf>,
    /// The terminal that the command gets.
    pub(crate) terminal: Option<TerminalSize>,
    /// What a cloud image is told, for one.
    pub(crate) cloud: Option<Cloud>,
    /// Whether the guest ends with this process, and nobody misses an orderly end of it.
    pub(crate) ends_with_us: bool,
}

/// A file to fetch and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ArtifactSettings {
    /// The path in the guest, as the user wrote it.
    pub(crate) source: String,
    /// The file on the host.
    pub(crate) destination: PathBuf,
    /// Whose its last name is.
    pub(crate) named: Named,
}

/// Where `serve` listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
    Vsock(u32),
}

impl JobSettings {
    /// A job of ours: nothing but a name, a command and its environment.
    pub(crate) fn plain(name: String, command: Vec<String>, env: BTreeMap<String, String>) -> Self {
        Self {
            name,
            named: false,
            env,
            artifacts: Vec::new(),
            timeout: None,
            log: None,
            command,
            shown: None,
            secrets: BTreeMap::new(),
            session: SessionMode::Claimed,
            bounds: Bounds::default(),
            host_names: Vec::new(),
            state: None,
            terminal: None,
            cloud: None,
            ends_with_us: false,
        }
    }

    pub(crate) fn resolve(args: JobArgs) -> Result<Self> {
        let bounds = Bounds::parse(&args.limit, &args.max_log, &args.max_artifact)?;
        let mut env = BTreeMap::new();
        for file in &args.env_file {
            let text = std::fs::read(file)
                .with_context(|| format!("cannot read --env-file {}", file.display()))?;
            env_file::parse(&text, &mut env)
                .with_context(|| format!("in --env-file {}", file.display()))?;
        }
        for variable in &args.env {
            set_variable(variable, &mut env).context("in --env")?;
        }
        let artifacts = args.artifact.iter().map(|text| parse_artifact(text));
        let artifacts = artifacts.collect::<Result<Vec<_>>>()?;
        distinct(outputs(&artifacts, args.log.as_deref()))?;
        Ok(Self {
            named: args.name.is_some(),
            artifacts,
            timeout: args
                .timeout
                .as_deref()
                .map(parse_duration)
                .transpose()
                .context("in --timeout")?,
            log: args.log,
            secrets: secrets(&args.secret, args.withdrawn, args.session)?,
            session: match args.session {
                Session::Required => SessionMode::Required,
                Session::Claimed => SessionMode::Claimed,
                Session::Off => SessionMode::Off,
            },
            bounds,
            ..Self::plain(parse_name(args.name)?, args.command, env)
        })
    }
}

/// Where artifacts and the log go, each with the flag that says so.
pub(crate) fn outputs<'a>(
    artifacts: &'a [ArtifactSettings],
    log: Option<&'a Path>,
) -> impl Iterator<Item = (String, &'a Path, Named)> {
    let artifacts = artifacts.iter().map(|artifact| {
        let ArtifactSettings { source, destination, named } = artifact;
        (format!("--artifact {source}"), destination.as_path(), *named)
    });
    artifacts.chain(log.map(|path| ("--log".to_owned(), path, Named::ByUser)))
}

pub(crate) fn parse_name(name: Option<String>) -> Result<String> {
    let Some(name) = name else { return Ok(format!("job-{}", std::process::id())) };
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    ensure!(
        !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(plain),
        "--name is 1 to {MAX_NAME} letters, digits and dashes, not {name:?}"
    );
    ensure!(!name.starts_with('-'), "--name cannot begin with a dash");
    Ok(name)
}

pub(crate) fn set_variable(text: &str, env: &mut BTreeMap<String, String>) -> Result<()> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => match std::env::var(text) {
            Ok(value) => (text, Some(value)),
            Err(std::env::VarError::NotPresent) => (text, None),
            Err(error) => return Err(error).context(format!("cannot hand on {text}")),
        },
    };
    ensure!(!name.is_empty(), "a variable needs a name: {text:?}");
    ensure!(!name.contains(char::is_whitespace), "a variable's name has no blanks: {name:?}");
    ensure!(!text.contains('\0'), "a variable cannot contain a zero byte: {name}");
    if let Some(value) = value {
        env.insert(name.to_owned(), value);
    }
    Ok(())
}

/// Variables of ours, by their names. Those that were withdrawn are not in the environment any more.
fn secrets(
    names: &[String],
    withdrawn: BTreeMap<String, String>,
    session: Session,
) -> Result<BTreeMap<String, String>> {
    ensure!(
        names.is_empty() || session != Session::Off,
        "--secret needs a session: without --session off"
    );
    let mut secrets = withdrawn;
    for name in names {
        if secrets.contains_key(name) {
            continue;
        }
        ensure!(
            !name.contains('='),
            "--secret takes the name of a variable of ours: a value here could be seen by others"
        );
        let before = secrets.len();
        set_variable(name, &mut secrets).context("in --secret")?;
        ensure!(secrets.len() > before || secrets.contains_key(name), "--secret {name} is not set");
    }
    Ok(secrets)
}

/// Bytes: 512, 10K, 64M, 1.5G, 1T.
pub(crate) fn parse_size(text: &str) -> Result<u64> {
    let unit = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => Some(0),
        "k" | "kb" | "kib" => Some(10),
        "m" | "mb" | "mib" => Some(20),
        "g" | "gb" | "gib" => Some(30),
        "t" | "tb" | "tib" => Some(40),
        _ => None,
    };
    let size = shift.and_then(|shift| Some((decimal(number)?, shift)));
    let ((number, scale), shift) =
        size.with_context(|| format!("{text:?} is no size; write 512, 64M, 1.5G or 1T"))?;
    let size = (u128::from(number) << shift) / u128::from(scale);
    u64::try_from(size).ok().with_context(|| format!("{text:?} is too large"))
}

/// A number with up to nine digits behind its point: its digits, and what to divide them by.
fn decimal(text: &str) -> Option<(u64, u64)> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let plain = !whole.is_empty() && !text.ends_with('.');
    let scale =
        10_u64.checked_pow(u32::try_from(part.len()).ok().filter(|digits| *digits < 10)?)?;
    Some((format!("{whole}{part}").parse().ok().filter(|_| plain)?, scale))
}

/// Reads `SRC[:DEST]`. In SRC, a colon that belongs to the path has a backslash before it.
fn parse_artifact(text: &str) -> Result<ArtifactSettings> {
    let (source, destination) = split_source(text);
    ensure!(!source.is_empty(), "--artifact needs a path in the guest: {text:?}");
    ensure!(!source.contains('\0'), "--artifact cannot contain a zero byte");
    let name = Path::new(&source).file_name();
    let Some(name) = name.filter(|_| !source.ends_with('/')) else {
        bail!("--artifact {source} names no file");
    };
    let (destination, named) = match destination {
        None => (PathBuf::from(name), Named::ByGuest),
        Some("") => bail!("--artifact {text} has nothing after its colon"),
        Some("-") => bail!("--artifact cannot go to standard output: the log does"),
        Some(folder) if folder.ends_with('/') || Path::new(folder).is_dir() => {
            (Path::new(folder).join(name), Named::ByGuest)
        }
        Some(file) => (PathBuf::from(file), Named::ByUser),
    };
    let parent = destination.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        ensure!(parent.is_dir(), "--artifact {text}: there is no folder {}", parent.display());
    }
    Ok(ArtifactSettings { source, destination, named })
}

/// Splits at the first colon that has an even number of backslashes before it, zero included. Of
/// those before a colon, two mean one and the odd one goes; elsewhere a backslash means itself.
fn split_source(text: &str) -> (String, Option<&str>) {
    let mut source = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once(':') {
        let path = before.trim_end_matches('\\');
        let escapes = before.len() - path.len();
        source += path;
        source.extend(std::iter::repeat_n('\\', escapes / 2));
        if escapes % 2 == 0 {
            return (source, Some(behind));
        }
        source.push(':');
        rest = behind;
    }
    (source + rest, None)
}

/// Refuses two outputs in one file; several may go into one device or pipe.
pub(crate) fn distinct<'a>(
    outputs: impl IntoIterator<Item = (String, &'a Path, Named)>,
) -> Result<()> {
    let mut taken = BTreeMap::new();
    for (flag, path, named) in outputs {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = std::fs::canonicalize(parent.unwrap_or(Path::new(".")));
        // What is wrong with a path is said by those who open it.
        let (Ok(parent), Some(name)) = (parent, path.file_name()) else { continue };
        if destination::is_stream(path, named) {
            continue;
        }
        if let Some(other) = taken.insert(parent.join(name), flag.clone()) {
            bail!("{other} and {flag} would both write {}", path.display());
        }
    }
    Ok(())
}

/// Seconds, or numbers with units.
pub(crate) fn parse_duration(text: &str) -> Result<Duration> {
    let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == '.');
    let words = if plain { format!("{text}s") } else { text.to_owned() };
    let duration = humantime::parse_duration(&words)
        .with_context(|| format!("{text:?} is no duration; write 90, 0.5s, 5m or 1h30m"))?;
    ensure!(!duration.is_zero(), "a duration of zero leaves no time to run");
    Ok(duration)
}

/// How long ago, or when: 10m, a date, an RFC 3339 time, or seconds since 1970. What names no time
/// zone is in UTC.
pub(crate) fn parse_since(text: &str, now: SystemTime) -> Result<SystemTime> {
    let since = if let Ok(seconds) = text.parse::<u64>() {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
    } else if let Ok(ago) = humantime::parse_duration(text) {
        // Older than anything is as good as any time before.
        now.checked_sub(ago).map(|since| since.max(SystemTime::UNIX_EPOCH))
    } else {
        parse_date(text)
    };
    since.with_context(|| {
        format!("{text:?} is no time; write 10m, 2024-05-01, 2024-05-01T12:00:00Z or a Unix time")
    })
}

/// A date with or without a time, whose seconds and zone may be left out.
fn parse_date(text: &str) -> Option<SystemTime> {
    let time = text.find(['T', 't', ' ']).unwrap_or(text.len());
    let zone = text[time..].find(['+', '-']).map_or(text.len(), |zone| time + zone);
    let (local, zone) = text.split_at(zone);
    let plain = ["", ":00", "T00:00:00"]
        .iter()
        .find_map(|rest| humantime::parse_rfc3339_weak(&format!("{local}{rest}")).ok())?;
    if zone.is_empty() {
        return Some(plain);
    }
    let digits = zone[1..].replace(':', "");
    let number = |range: std::ops::Range<usize>| digits.get(range)?.parse::<u64>().ok();
    let (hours, minutes) = (number(0..2)?, number(2..4).filter(|_| digits.len() == 4)?);
    let offset = Duration::from_secs((hours * 60 + minutes) * 60);
    if zone.starts_with('+') { plain.checked_sub(offset) } else { plain.checked_add(offset) }
}

/// A port of ours that leads to one of the guest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ForwardSettings {
    pub(crate) listen: SocketAddr,
    pub(crate) port: u16,
}

impl ForwardSettings {
    /// Reads `[ADDR:]PORT:PORT`; an address of IPv6 stands in brackets.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let forward = || {
            let (listen, port) = text.rsplit_once(':')?;
            let listen = match listen.parse::<u16>() {
                Ok(own) => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), own),
                Err(_) => listen.parse().ok()?,
            };
            let port = port.parse().ok().filter(|port| *port > 0)?;
            Some(Self { listen, port })
        };
        forward().with_context(|| format!("{text:?} is not [ADDR:]PORT:GUEST_PORT"))
    }
}

impl Address {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            ensure!(!path.is_empty(), "--listen unix: needs a path");
            return Ok(Self::Unix(path.into()));
        }
        if let Some(port) = text.strip_prefix("vsock:") {
            let port = port.parse().with_context(|| format!("{port:?} is no vsock port"))?;
            return Ok(Self::Vsock(port));
        }
        let address = text.parse().with_context(|| {
            format!("--listen {text:?} is neither IP:PORT nor unix:PATH nor vsock:PORT")
        })?;
        Ok(Self::Tcp(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let sizes = ["0", "512", "10K", "64M", "2G", "1T"].map(|text| parse_size(text).unwrap());
        assert_eq!(sizes, [0, 512, 10 << 10, 64 << 20, 2 << 30, 1 << 40]);
        let sizes = ["1.5G", "0.5k", "10MiB", "3mb", "7B"].map(|text| parse_size(text).unwrap());
        assert_eq!(sizes, [3 << 29, 512, 10 << 20, 3 << 20, 7]);
        for wrong in ["", "G", "1X", "-1", ".5G", "1.G", "1.2.3G", "1.0000000000G", "99999999T"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_secret_is_named_and_not_written() {
        let named = |names: &[&str], session| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            secrets(&names, BTreeMap::new(), session)
        };
        assert!(named(&["PATH"], Session::Claimed).unwrap().contains_key("PATH"));
        assert!(named(&["PATH=x"], Session::Claimed).is_err());
        assert!(named(&["PATH"], Session::Off).is_err());
        let unset = named(&["METASERVICE_NO_SUCH_VARIABLE"], Session::Claimed).unwrap_err();
        assert!(unset.to_string().contains("is not set"), "{unset}");
        let names = ["METASERVICE_NO_SUCH_VARIABLE".to_owned()];
        let withdrawn = BTreeMap::from([(names[0].clone(), "x".to_owned())]);
        assert_eq!(secrets(&names, withdrawn.clone(), Session::Claimed).unwrap(), withdrawn);
    }

    #[test]
    fn an_artifact_goes_where_it_says() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().display();
        let destination = |text: &str| parse_artifact(text).map(|a| a.destination);
        assert_eq!(destination("/var/log/out.txt").unwrap(), Path::new("out.txt"));
        assert_eq!(destination(&format!("/o.txt:{here}")).unwrap(), folder.path().join("o.txt"));
        assert_eq!(destination(&format!("/o.txt:{here}/n")).unwrap(), folder.path().join("n"));
        for wrong in ["", ":x", "/dir/", "/", "/..", "/o:", "/o:-", "/o:/nowhere/at/all/"] {
            assert!(destination(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_colon_of_the_path_has_a_backslash_before_it() {
        let parsed = |text: &str| {
            let artifact = parse_artifact(text).unwrap();
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
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path();
        std::os::unix::fs::symlink("/dev/null", here.join("null")).unwrap();
        let check = |artifacts: &[&str], log: Option<&str>| {
            let artifacts = artifacts.iter().map(|text| parse_artifact(text).unwrap());
            let artifacts: Vec<_> = artifacts.collect();
            let log = log.map(|log| here.join(log));
            distinct(outputs(&artifacts, log.as_deref()))
        };
        let to = |name: &str| format!("{}/{name}", here.display());
        let same = [format!("/x/a:{}", to("")), format!("/y/b:{}", to("./a"))];
        let refused = check(&[&same[0], &same[1]], None).unwrap_err().to_string();
        assert!(refused.contains("/x/a and --artifact /y/b would both write"), "{refused}");
        assert!(check(&[&same[0]], Some("a")).is_err());
        assert!(check(&[&same[0]], Some("b")).is_ok());
        assert!(check(&["/x/a", "/y/a"], None).is_err());
        let null = [format!("/x:{}", to("null")), format!("/y:{}", to("null"))];
        assert!(check(&[&null[0], &null[1]], Some("null")).is_ok());
    }

    #[test]
    fn durations_are_seconds_or_have_units() {
        assert_eq!(parse_duration("90").unwrap(), Duration::from_secs(90));
        assert_eq!(parse_duration("1h30m").unwrap(), Duration::from_secs(5400));
        assert_eq!(parse_duration("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(parse_duration("0.5").unwrap(), Duration::from_millis(500));
        assert_eq!(parse_duration("1.5h").unwrap(), Duration::from_secs(5400));
        for wrong in [
            ".5s",
            "1.s",
            "99999999999999999999",
            "-1.5s",
            "0.0s",
            "5 %",
            "0",
            "0s",
            "soon",
            "-1",
            "5 parsecs",
        ] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_forward_has_an_address_or_not() {
        let parsed = |text: &str| {
            ForwardSettings::parse(text).map(|f| (f.listen.to_string(), f.port)).unwrap()
        };
        assert_eq!(parsed("8080:80"), ("127.0.0.1:8080".into(), 80));
        assert_eq!(parsed("0.0.0.0:0:443"), ("0.0.0.0:0".into(), 443));
        assert_eq!(parsed("[::1]:1:2"), ("[::1]:1".into(), 2));
        for wrong in ["", "80", "80:", ":80", "80:0", "a:1:2", "::1:1:2", "1:2:3", "1:65536"] {
            assert!(ForwardSettings::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn since_is_an_age_or_a_time() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let seconds = |text: &str| {
            let since = parse_since(text, now).unwrap();
            since.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
        };
        assert_eq!((seconds("10m"), seconds("1000h"), seconds("77")), (400, 0, 77));
        assert_eq!(seconds("1970-01-01T00:01:00Z"), 60);
        assert_eq!((seconds("1970-01-02"), seconds("1970-01-01T00:01")), (86400, 60));
        assert_eq!(seconds("1970-01-01 02:00:00+01:00"), 3600);
        assert_eq!(seconds("1970-01-01T00:00:00-0130"), 5400);
        for wrong in
            ["", "soon", "-1", "99999999999999999999", "2026-13-01", "1970-01-01T00:00:00+1"]
        {
            assert!(parse_since(wrong, now).is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses_have_three_forms() {
        let tcp = "127.0.0.1:80".parse().unwrap();
        assert_eq!(Address::parse("127.0.0.1:80").unwrap(), Address::Tcp(tcp));
        assert!(matches!(Address::parse("[::1]:80").unwrap(), Address::Tcp(_)));
        assert_eq!(Address::parse("unix:/s").unwrap(), Address::Unix("/s".into()));
        assert_eq!(Address::parse("vsock:80").unwrap(), Address::Vsock(80));
        for wrong in ["", "80", "localhost:80", "unix:", "vsock:x", "127.0.0.1"] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_host_names() {
        assert_eq!(parse_name(Some("a-1".into())).unwrap(), "a-1");
        for wrong in ["", "-a", "a b", "a/b", "ä", &"a".repeat(64)] {
            assert!(parse_name(Some(wrong.into())).is_err(), "{wrong}");
        }
    }
}
