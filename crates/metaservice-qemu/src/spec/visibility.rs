//! Which files of the host a shared directory hides.
//!
//! Owns the default set, and the user's changes of it. A hidden file or directory looks empty to
//! the guest.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::error::InvalidSpec;

/// For the host's kernel and services only: always hidden.
const KERNELS_OWN: [&str; 3] = ["/proc", "/sys", "/dev"];

/// Where the guest mounts its own file systems over the root directory.
const COVERED: [&str; 2] = ["run", "tmp"];

/// Sockets, temporary files and secrets of the host.
const OF_HOST: [&str; 17] = [
    "/run",
    "/tmp",
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/security/opasswd",
    "/var/backups/shadow.bak",
    "/var/backups/gshadow.bak",
    "/etc/krb5.keytab",
    "/etc/ssl/private",
    "/etc/ssh/ssh_host_dsa_key",
    "/etc/ssh/ssh_host_ecdsa_key",
    "/etc/ssh/ssh_host_ed25519_key",
    "/etc/ssh/ssh_host_rsa_key",
    "/var/lib/sss/secrets",
    "/var/run",
];

/// Secrets of a user, and the files of this tool, in the user's home directory.
const OF_USER: [&str; 24] = [
    ".ssh",
    ".gnupg",
    ".aws",
    ".azure",
    ".config/gcloud",
    ".config/gh",
    ".config/git/credentials",
    ".config/containers/auth.json",
    ".kube",
    ".docker",
    ".netrc",
    ".git-credentials",
    ".pgpass",
    ".pypirc",
    ".npmrc",
    ".cargo/credentials",
    ".cargo/credentials.toml",
    ".vault-token",
    ".password-store",
    ".local/share/keyrings",
    ".cache/metaservice",
    ".local/share/metaservice",
    ".local/state/metaservice",
    ".config/metaservice",
];

/// Variables with paths of credentials in other places than the usual ones. Each is a list of
/// paths.
const NAMED: [&str; 13] = [
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AZURE_CONFIG_DIR",
    "CLOUDSDK_CONFIG",
    "DOCKER_CONFIG",
    "GH_CONFIG_DIR",
    "GNUPGHOME",
    "KUBECONFIG",
    "NETRC",
    "NPM_CONFIG_USERCONFIG",
    "PASSWORD_STORE_DIR",
    "PGPASSFILE",
    "REGISTRY_AUTH_FILE",
];

/// What a shared directory shows. By default it hides the host's kernel file systems, its temporary
/// files and sockets, and the places where credentials usually are.
///
/// ```
/// use metaservice_qemu::Visibility;
///
/// let visibility = Visibility::new().show("/home/me/.docker").hide("/srv/private");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Visibility {
    show: Vec<PathBuf>,
    hide: Vec<PathBuf>,
}

impl Visibility {
    /// The default.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Shows a path of the host that is hidden by default, or another file system below the
    /// directory.
    #[must_use]
    pub fn show(mut self, path: impl Into<PathBuf>) -> Self {
        self.show.push(path.into());
        self
    }

    /// Hides a path of the host, with everything below it.
    #[must_use]
    pub fn hide(mut self, path: impl Into<PathBuf>) -> Self {
        self.hide.push(path.into());
        self
    }

    /// The paths to show, without symbolic links.
    pub(crate) fn shown(&self) -> Result<BTreeSet<PathBuf>, InvalidSpec> {
        let shown = resolved("a path to show", &self.show)?;
        match shown.iter().find(|path| is_kernels_own(path)) {
            Some(path) => Err(InvalidSpec::NotToBeShown(path.clone())),
            None => Ok(shown),
        }
    }

    /// The paths to hide below a directory, given the host's defaults. None is within another.
    /// `is_root`: the guest makes the directory its root.
    pub(crate) fn hidden(
        &self,
        directory: &Path,
        is_root: bool,
        defaults: BTreeSet<PathBuf>,
    ) -> Result<Vec<PathBuf>, InvalidSpec> {
        if is_kernels_own(directory) {
            return Err(InvalidSpec::NotToBeShown(directory.to_owned()));
        }
        let shown = self.shown()?;
        let covered = COVERED.map(|name| directory.join(name));
        let is_covered = |path: &&PathBuf| covered.iter().any(|by| path.starts_with(by));
        if let Some(path) = shown.iter().find(is_covered).filter(|_| is_root) {
            return Err(InvalidSpec::Covered(path.clone()));
        }
        let mut hidden: BTreeSet<PathBuf> = defaults;
        hidden.retain(|path| !shown.iter().any(|shown| path.starts_with(shown)));
        hidden.extend(resolved("a path to hide", &self.hide)?);
        hidden.retain(|path| path != directory && path.starts_with(directory));
        let inside = |path: &Path, all: &BTreeSet<PathBuf>| {
            path.ancestors().skip(1).find(|above| all.contains(*above)).map(Path::to_owned)
        };
        if let Some((path, above)) = shown.iter().find_map(|path| {
            let above = inside(path, &hidden)?;
            Some((path.clone(), above))
        }) {
            return Err(InvalidSpec::WithinHidden { path, above });
        }
        let outermost = hidden.iter().filter(|path| inside(path, &hidden).is_none());
        Ok(outermost.cloned().collect())
    }
}

fn is_kernels_own(path: &Path) -> bool {
    KERNELS_OWN.iter().any(|own| path.starts_with(own))
}

fn resolved(what: &'static str, paths: &[PathBuf]) -> Result<BTreeSet<PathBuf>, InvalidSpec> {
    let resolve = |path: &PathBuf| {
        path.canonicalize().map_err(|source| InvalidSpec::Path { what, path: path.clone(), source })
    };
    paths.iter().map(resolve).collect()
}

/// The paths of the default set that this host has, without symbolic links. It contains the files
/// of all users, because a guest of root can read them all.
pub(crate) fn defaults() -> BTreeSet<PathBuf> {
    let host = KERNELS_OWN.into_iter().chain(OF_HOST).map(PathBuf::from);
    let users = homes().into_iter().flat_map(|home| OF_USER.map(|name| home.join(name)));
    let own = ["XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"]
        .into_iter()
        .filter_map(std::env::var_os)
        .map(|base| Path::new(&base).join("metaservice"))
        .filter(|path| path.is_absolute());
    let named = named(|name| std::env::var_os(name));
    let all = host.chain(users).chain(own).chain(named);
    all.filter_map(|path| path.canonicalize().ok()).collect()
}

/// The paths in variables.
fn named(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = NAMED
        .into_iter()
        .filter_map(&variable)
        .flat_map(|paths| std::env::split_paths(&paths).collect::<Vec<_>>())
        .collect();
    let below = |variable_name: &str, name: &str| {
        variable(variable_name).map(|base| Path::new(&base).join(name))
    };
    let settings = OF_USER.iter().filter_map(|name| name.strip_prefix(".config/"));
    places.extend(settings.filter_map(|name| below("XDG_CONFIG_HOME", name)));
    let cargo = ["credentials", "credentials.toml"].into_iter();
    places.extend(cargo.filter_map(|name| below("CARGO_HOME", name)));
    places.retain(|path| path.is_absolute());
    places
}

/// The home directories that can be found without a directory service.
fn homes() -> BTreeSet<PathBuf> {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut homes: BTreeSet<PathBuf> = of_passwd(&passwd).collect();
    homes.extend(std::env::var_os("HOME").map(PathBuf::from));
    let below = std::fs::read_dir("/home").into_iter().flatten().flatten();
    homes.extend(below.map(|entry| entry.path()));
    homes.retain(|home| home.is_absolute());
    homes
}

fn of_passwd(text: &str) -> impl Iterator<Item = PathBuf> {
    text.lines().filter_map(|line| line.split(':').nth(5)).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(paths: &[&Path]) -> BTreeSet<PathBuf> {
        paths.iter().map(|path| path.to_path_buf()).collect()
    }

    #[test]
    fn what_is_below_the_directory_is_hidden_unless_it_is_shown() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().canonicalize().unwrap();
        let [keys, cloud, inner] =
            ["keys", "cloud", "cloud/inner"].map(|name| directory.join(name));
        for path in [&keys, &cloud, &inner] {
            std::fs::create_dir(path).unwrap();
        }
        let defaults = || set(&[&keys, &cloud, &inner, Path::new("/proc"), &directory]);
        let hidden = |visibility: Visibility| visibility.hidden(&directory, true, defaults());
        assert_eq!(hidden(Visibility::new()).unwrap(), [cloud.clone(), keys.clone()]);
        assert_eq!(hidden(Visibility::new().show(&cloud)).unwrap(), [keys.as_path()]);
        let more = Visibility::new().show(&keys).hide(&inner).show(&cloud);
        assert!(matches!(hidden(more).as_deref(), Ok([path]) if *path == inner));
        let within = hidden(Visibility::new().show(&inner));
        assert!(matches!(within, Err(InvalidSpec::WithinHidden { above, .. }) if above == cloud));
        assert!(matches!(
            hidden(Visibility::new().hide(directory.join("none"))),
            Err(InvalidSpec::Path { .. })
        ));
        let kernels = hidden(Visibility::new().show("/proc"));
        assert!(matches!(kernels, Err(InvalidSpec::NotToBeShown(_))), "{kernels:?}");
        let kernels = Visibility::new().hidden(Path::new("/proc/sys"), false, BTreeSet::new());
        assert!(matches!(kernels, Err(InvalidSpec::NotToBeShown(_))), "{kernels:?}");
        let tmp = directory.join("tmp");
        std::fs::create_dir(&tmp).unwrap();
        let tmp = Visibility::new().show(tmp);
        let covered = tmp.hidden(&directory, true, BTreeSet::new());
        assert!(matches!(covered, Err(InvalidSpec::Covered(_))), "{covered:?}");
        assert!(tmp.hidden(&directory, false, BTreeSet::new()).unwrap().is_empty());
    }

    #[test]
    fn credentials_are_hidden_where_variables_put_them() {
        let found = named(|name| {
            let value = match name {
                "KUBECONFIG" => "/srv/one:/srv/two",
                "GNUPGHOME" => "relative",
                "XDG_CONFIG_HOME" => "/srv/config",
                "CARGO_HOME" => "/srv/cargo",
                _ => return None,
            };
            Some(value.into())
        });
        for path in ["one", "two", "config/gcloud", "config/gh", "cargo/credentials.toml"] {
            assert!(found.contains(&Path::new("/srv").join(path)), "{path}: {found:?}");
        }
        assert!(!found.contains(&"relative".into()));
    }

    #[test]
    fn homes_are_the_sixth_field() {
        let homes: Vec<_> = of_passwd("a:x:1:1::/home/a:/bin/sh\nbroken\n").collect();
        assert_eq!(homes, [Path::new("/home/a")]);
    }
}
