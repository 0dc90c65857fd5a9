//! Who may do what. It does no I/O.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::secret::Secret;

/// The most users of a file.
const MAX_USERS: usize = 1000;

/// The longest name of a user, in bytes.
const MAX_NAME: usize = 64;

/// The number of bytes of a digest.
const DIGEST: usize = 32;

/// What a user may do. Each role may do what those before it may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look at jobs: their list, logs, statistics, connections and artifacts.
    Watch,
    /// Also enter and change jobs: terminals, files, run, kill, signal, retry.
    Operate,
    /// Also end machines by force, and remove jobs.
    Admin,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 3] = [Self::Watch, Self::Operate, Self::Admin];

    /// The word of the role, as a file of users has it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Watch => "watch",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.word())
    }
}

/// The text is no role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a role is watch, operate, admin or proxy")]
pub struct InvalidRole;

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// A user signs in with it, and has this role.
    User(Role),
    /// A proxy says with it who its users are. No one signs in with it.
    Proxy,
}

impl Grant {
    /// The word of it, as a file of users has it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::User(role) => role.word(),
            Self::Proxy => "proxy",
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.word())
    }
}

impl FromStr for Grant {
    type Err = InvalidRole;

    fn from_str(text: &str) -> Result<Self, InvalidRole> {
        let mut all = Role::ALL.into_iter().map(Self::User).chain([Self::Proxy]);
        all.find(|grant| grant.word() == text).ok_or(InvalidRole)
    }
}

/// The user of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Who {
    /// The name. `None`: the user of this host, who has opened the link.
    pub(crate) name: Option<Arc<str>>,
    pub(crate) role: Role,
    /// Whether a proxy says so with each request, so that there is no session to end.
    pub(crate) by_proxy: bool,
}

impl Who {
    /// The user of this host.
    pub(crate) const OWNER: Self = Self { name: None, role: Role::Admin, by_proxy: false };
}

/// The users of a server, from a file with a line for each: `NAME ROLE DIGEST`. The digest is
/// SHA-256 of the user's token, as hexadecimal digits. Empty lines, and lines that begin with `#`,
/// are left out.
#[derive(Debug, Clone, Default)]
pub struct Users(Vec<User>);

#[derive(Debug, Clone)]
struct User {
    name: Arc<str>,
    grant: Grant,
    digest: [u8; DIGEST],
}

/// Why a text is no list of users. Lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidUsers {
    /// A line does not have three words.
    #[error("line {0} is not NAME ROLE DIGEST")]
    Words(usize),
    /// The name is not valid.
    #[error("in line {0}, a name has 1 to 64 letters, digits and the characters . _ -")]
    Name(usize),
    /// The role is not valid.
    #[error("in line {0}, {1}")]
    Role(usize, #[source] InvalidRole),
    /// The digest is not valid.
    #[error("in line {0}, the digest is not 64 hexadecimal digits")]
    Digest(usize),
    /// Two lines have the same name.
    #[error("in line {0}, the name is that of another line")]
    Twice(usize),
    /// There are no users.
    #[error("there are no users")]
    Empty,
    /// There are too many users.
    #[error("there are more than {MAX_USERS} users")]
    TooMany,
}

impl Users {
    /// The users of the text of a file.
    ///
    /// # Errors
    /// [`InvalidUsers`].
    pub fn parse(text: &str) -> Result<Self, InvalidUsers> {
        let (mut users, mut names) = (Vec::new(), BTreeSet::new());
        for (at, line) in text.lines().enumerate() {
            let (number, line) = (at + 1, line.trim());
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let user = User::parse(line, number)?;
            if !names.insert(Arc::clone(&user.name)) {
                return Err(InvalidUsers::Twice(number));
            }
            users.push(user);
        }
        match users.len() {
            0 => Err(InvalidUsers::Empty),
            1..=MAX_USERS => Ok(Self(users)),
            _ => Err(InvalidUsers::TooMany),
        }
    }

    /// Whether there is a user of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|user| &*user.name == name)
    }

    /// The user who signs in with this token.
    pub(crate) fn find(&self, token: &str) -> Option<Who> {
        self.of_token(token)?.who()
    }

    /// The user of this name, if the token is that of a proxy.
    pub(crate) fn by_proxy(&self, token: &str, name: &str) -> Option<Who> {
        if self.of_token(token)?.grant != Grant::Proxy {
            return None;
        }
        let who = self.0.iter().find(|user| &*user.name == name)?.who()?;
        Some(Who { by_proxy: true, ..who })
    }

    fn of_token(&self, token: &str) -> Option<&User> {
        let digest = digest(token);
        // All of them are compared: the time does not say which one it is.
        let mut found = None;
        for user in &self.0 {
            if bool::from(user.digest.ct_eq(&digest)) {
                found = Some(user);
            }
        }
        found
    }
}

impl User {
    fn parse(line: &str, number: usize) -> Result<Self, InvalidUsers> {
        let mut words = line.split_whitespace();
        let (Some(name), Some(role), Some(text), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(InvalidUsers::Words(number));
        };
        if !is_name(name) {
            return Err(InvalidUsers::Name(number));
        }
        let grant = role.parse().map_err(|error| InvalidUsers::Role(number, error))?;
        let digest = bytes(text).ok_or(InvalidUsers::Digest(number))?;
        Ok(Self { name: name.into(), grant, digest })
    }

    /// The user. A proxy is none.
    fn who(&self) -> Option<Who> {
        let Grant::User(role) = self.grant else { return None };
        Some(Who { name: Some(Arc::clone(&self.name)), role, by_proxy: false })
    }
}

/// A new user: what is given to the user, and the line for the file.
#[derive(Debug)]
pub struct NewUser {
    token: Secret,
    line: String,
}

/// Why there is no new user.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NewUserError {
    /// The name is not valid.
    #[error("a name has 1 to 64 letters, digits and the characters . _ -")]
    Name,
    /// The system has no random numbers for the token.
    #[error("the system has no random numbers")]
    Random(#[source] getrandom::Error),
}

impl NewUser {
    /// Makes a token for a user, or for a proxy.
    ///
    /// # Errors
    /// [`NewUserError`].
    pub fn make(name: &str, grant: Grant) -> Result<Self, NewUserError> {
        if !is_name(name) {
            return Err(NewUserError::Name);
        }
        let token = Secret::random().map_err(NewUserError::Random)?;
        let mut line = format!("{name} {grant} ");
        for byte in digest(token.reveal()) {
            let _ = write!(line, "{byte:02x}");
        }
        Ok(Self { token, line })
    }

    /// The token. It is for the user alone.
    #[must_use]
    pub fn token(&self) -> &str {
        self.token.reveal()
    }

    /// The line for the file of users, without its end.
    #[must_use]
    pub fn line(&self) -> &str {
        &self.line
    }
}

fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(is_plain)
}

fn digest(token: &str) -> [u8; DIGEST] {
    Sha256::digest(token.as_bytes()).into()
}

/// The bytes of hexadecimal digits.
fn bytes(text: &str) -> Option<[u8; DIGEST]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * DIGEST {
        return None;
    }
    let mut bytes = [0; DIGEST];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let value = |digit: u8| char::from(digit).to_digit(16);
        let (high, low) = (value(pair[0])?, value(pair[1])?);
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_user_is_found_by_the_token() {
        let (anna, otto) = (
            NewUser::make("anna", Grant::User(Role::Admin)).unwrap(),
            NewUser::make("otto", Grant::User(Role::Watch)).unwrap(),
        );
        let text = format!("# users\n\n{}\n  {}\r\n", anna.line(), otto.line());
        let users = Users::parse(&text).unwrap();
        let who = users.find(otto.token()).unwrap();
        assert_eq!((who.name.as_deref(), who.role), (Some("otto"), Role::Watch));
        assert_eq!(users.find(anna.token()).unwrap().role, Role::Admin);
        for wrong in ["", "anna", &anna.line()[11..], &anna.token()[1..]] {
            assert_eq!(users.find(wrong), None, "{wrong}");
        }
        assert!(!anna.line().contains(anna.token()), "the file has no token");
    }

    #[test]
    fn a_file_that_is_wrong_is_refused_with_the_line() {
        let digest = "0".repeat(64);
        let wrong = |text: String| Users::parse(&text).unwrap_err();
        assert_eq!(wrong(String::new()), InvalidUsers::Empty);
        assert_eq!(wrong("\nanna admin".to_owned()), InvalidUsers::Words(2));
        assert_eq!(wrong(format!("a admin {digest} x")), InvalidUsers::Words(1));
        assert_eq!(wrong(format!("a/b admin {digest}")), InvalidUsers::Name(1));
        let role = InvalidUsers::Role(1, InvalidRole);
        assert_eq!(wrong(format!("a root {digest}")), role);
        assert_eq!(wrong(format!("a admin {digest}0")), InvalidUsers::Digest(1));
        assert_eq!(wrong(format!("a admin {}g", "0".repeat(63))), InvalidUsers::Digest(1));
        let twice = format!("a admin {digest}\na watch {digest}");
        assert_eq!(wrong(twice), InvalidUsers::Twice(2));
        let many: String = (0..=MAX_USERS).map(|n| format!("u{n} watch {digest}\n")).collect();
        assert_eq!(wrong(many), InvalidUsers::TooMany);
        assert!(matches!(NewUser::make("a b", Grant::Proxy), Err(NewUserError::Name)));
    }

    #[test]
    fn roles_are_in_order() {
        assert!(Role::Watch < Role::Operate && Role::Operate < Role::Admin);
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(Grant::User(role)));
        }
        assert_eq!("proxy".parse(), Ok(Grant::Proxy));
        assert_eq!("Admin".parse::<Grant>(), Err(InvalidRole));
    }

    #[test]
    fn only_a_proxy_says_who_a_user_is() {
        let [anna, otto] =
            ["anna", "otto"].map(|name| NewUser::make(name, Grant::User(Role::Watch)).unwrap());
        let proxy = NewUser::make("nginx", Grant::Proxy).unwrap();
        let text = format!("{}\n{}\n{}\n", anna.line(), otto.line(), proxy.line());
        let users = Users::parse(&text).unwrap();
        let name = |who: Option<Who>| who.and_then(|who| who.name).map(|name| name.to_string());
        assert_eq!(name(users.by_proxy(proxy.token(), "otto")), Some("otto".to_owned()));
        for (token, user) in [
            (anna.token(), "otto"),
            (anna.token(), "anna"),
            (proxy.token(), "nginx"),
            (proxy.token(), "olaf"),
            (proxy.token(), ""),
            ("", "anna"),
        ] {
            assert_eq!(users.by_proxy(token, user), None, "{user}");
        }
        assert_eq!(users.find(proxy.token()), None, "no one signs in with it");
    }

    proptest! {
        /// Any text is refused or read, and what was refused never lets anybody in.
        #[test]
        fn any_text_is_read_or_refused(text in "([a-z ]{0,9}(watch|admin)? ?[0-9a-f]{62,66}\n?){0,3}") {
            if let Ok(users) = Users::parse(&text) {
                prop_assert!(users.find("").is_none());
            }
        }
    }
}
