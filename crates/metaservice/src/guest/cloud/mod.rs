//! What a stock cloud image asks for at this address, so that it takes the job's machine for a
//! cloud's and lets an agent in.
//!
//! Owns the description of the instance and the answers to cloud-init; [`Server`] maps a request and
//! a time to an answer and does nothing else. It refuses to know anything of the host: everything that is
//! told here was said to [`Cloud`] or was made up for this one machine. `docs/cloud.md` is the
//! table of what is served and why.

mod tokens;
mod tree;
mod user_data;

use std::net::Ipv4Addr;
use std::time::Instant;

use bytes::Bytes;

use self::tokens::Tokens;
use self::tree::Tree;
pub use user_data::{InvalidUserData, UserData};

use crate::handle::service::new_id;

/// The longest line of a public key.
const MAX_KEY: usize = 16 * 1024;

/// The most public keys.
const MAX_KEYS: usize = 64;

/// A machine as its cloud describes it.
///
/// ```
/// use metaservice::{Cloud, MetaService, UserData};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cloud = Cloud::new("builder")
///     .public_key("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ me@here".parse()?)
///     .user_data(UserData::parse(b"#cloud-config\npackages: [git]\n".to_vec())?);
/// let agent = std::fs::read("/proc/self/exe")?; // a static agent, in earnest
/// let service = MetaService::builder(["make"])
///     .agent("linux-x86_64", agent)
///     .cloud(cloud)
///     .start()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cloud {
    pub(crate) instance_id: String,
    system_uuid: [u8; 16],
    hostname: String,
    keys: Vec<PublicKey>,
    user_data: Option<UserData>,
    cards: Vec<CloudCard>,
}

/// A network card that the image is to set up by DHCP; the first one is the one to the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloudCard {
    /// Its hardware address.
    pub mac: [u8; 6],
    /// The address that DHCP will give it, where that is known.
    pub address: Option<Ipv4Addr>,
}

/// A line as in `authorized_keys`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(String);

/// What is no public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a public key is one line that begins with its type, as in 'ssh-ed25519 AAAA... comment'")]
pub struct InvalidPublicKey;

impl std::str::FromStr for PublicKey {
    type Err = InvalidPublicKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let mut words = text.split_ascii_whitespace();
        let kind = words.next().ok_or(InvalidPublicKey)?;
        let known = ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"];
        let blob = words.next().ok_or(InvalidPublicKey)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
        if !known.iter().any(|prefix| kind.starts_with(prefix))
            || !blob.chars().all(plain)
            || text.len() > MAX_KEY
            || text.chars().any(char::is_control)
        {
            return Err(InvalidPublicKey);
        }
        Ok(Self(text.to_owned()))
    }
}

impl Cloud {
    /// An instance with an id that no other has.
    #[must_use]
    pub fn new(hostname: impl Into<String>) -> Self {
        let id = new_id();
        let random = u128::from_str_radix(new_id().as_str(), 16).unwrap_or_default();
        let mut system_uuid = random.to_be_bytes();
        // "ec2" in hexadecimal, a random UUID (version 4, variant 1) otherwise.
        (system_uuid[0], system_uuid[1]) = (0xec, 0x20 | system_uuid[1] & 0xf);
        (system_uuid[6], system_uuid[8]) =
            (0x40 | system_uuid[6] & 0xf, 0x80 | system_uuid[8] & 0x3f);
        Self {
            instance_id: format!("i-{}", &id.as_str()[..17]),
            system_uuid,
            hostname: hostname.into(),
            keys: Vec::new(),
            user_data: None,
            cards: Vec::new(),
        }
    }

    /// Adds a key by which the image's user may log in. More than 64 are not taken.
    #[must_use]
    pub fn public_key(mut self, key: PublicKey) -> Self {
        if self.keys.len() < MAX_KEYS {
            self.keys.push(key);
        }
        self
    }

    /// What the image is to do when it boots first, before the agent comes. Every process of the
    /// guest can read it: it is no place for secrets.
    #[must_use]
    pub fn user_data(mut self, user_data: UserData) -> Self {
        self.user_data = Some(user_data);
        self
    }

    /// Adds a network card. Without any, the image sets up its first card as it likes.
    #[must_use]
    pub fn card(mut self, card: CloudCard) -> Self {
        self.cards.push(card);
        self
    }

    /// The id of the instance.
    #[must_use]
    pub fn instance_id(&self) -> &str {
        &self.instance_id
    }

    /// The UUID that the machine has to have in its DMI tables, and its text as the serial number
    /// too: by these an image recognises that it is to ask here.
    #[must_use]
    pub fn system_uuid(&self) -> [u8; 16] {
        self.system_uuid
    }
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    /// The token that was sent along.
    pub(crate) token: Option<&'a str>,
    /// How long a token is to live.
    pub(crate) ttl: Option<&'a str>,
}

/// The header of a token.
pub(crate) const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
/// The header of its life in seconds.
pub(crate) const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Found(Bytes),
    /// A new token and how many seconds it lives.
    Token(String, u32),
    /// The request for a token does not say how long it is to live.
    BadRequest,
    /// The token is none of ours, or has expired.
    Unauthorized,
    MethodNotAllowed,
    NotFound,
}

/// The instance's side of the conversation.
pub(crate) struct Server {
    tree: Tree,
    tokens: Tokens,
}

const TOKEN_PATH: &str = "/latest/api/token";

impl Server {
    /// With the script that brings the agent, which runs after what the user wants.
    pub(crate) fn new(cloud: &Cloud, script: Option<&str>) -> Self {
        Self { tree: Tree::of(cloud, script), tokens: Tokens::default() }
    }

    /// The answer now; `random` makes the text of a token.
    pub(crate) fn answer(
        &mut self,
        question: Question<'_>,
        now: Instant,
        random: impl FnOnce() -> String,
    ) -> Answer {
        if question.path == TOKEN_PATH {
            return match (question.method, tokens::life(question.ttl)) {
                ("PUT", Some(seconds)) => {
                    Answer::Token(self.tokens.issue(random(), seconds, now), seconds)
                }
                ("PUT", None) => Answer::BadRequest,
                _ => Answer::MethodNotAllowed,
            };
        }
        let Some(found) = self.tree.find(question.path) else { return Answer::NotFound };
        if question.method != "GET" {
            return Answer::MethodNotAllowed;
        }
        // Who sends none speaks the older version, which has none.
        match question.token {
            Some(token) if !self.tokens.admits(token, now) => Answer::Unauthorized,
            _ => Answer::Found(found),
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
