//! The description of a machine as a cloud instance.

use std::net::Ipv4Addr;

use super::user_data::UserData;
use crate::job::id::new_id;

/// The longest line of a public key.
const MAX_KEY: usize = 16 * 1024;

/// The most public keys.
const MAX_KEYS: usize = 64;

/// The description of a machine as a cloud instance.
///
/// ```
/// use metaservice::{Cloud, MetaService, UserData};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cloud = Cloud::new("builder")
///     .public_key("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ me@here".parse()?)
///     .user_data(UserData::parse(b"#cloud-config\npackages: [git]\n".to_vec())?);
/// let agent = std::fs::read("/proc/self/exe")?; // stands for a static agent
/// let service = MetaService::builder(["make"])
///     .agent("linux-x86_64", agent)
///     .cloud(cloud)
///     .start()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cloud {
    instance_id: String,
    system_uuid: [u8; 16],
    pub(super) hostname: String,
    pub(super) keys: Vec<PublicKey>,
    pub(super) user_data: Option<UserData>,
    pub(super) cards: Vec<CloudCard>,
}

/// A network card that the image sets up by DHCP. The first card is the one to the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloudCard {
    /// Its hardware address.
    pub mac: [u8; 6],
    /// The address that DHCP gives it, if known.
    pub address: Option<Ipv4Addr>,
}

/// A line as in `authorized_keys`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(pub(super) String);

/// A text is not a public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("a public key is one line that begins with its type, as in 'ssh-ed25519 AAAA... comment'")]
pub struct InvalidPublicKey {}

impl std::str::FromStr for PublicKey {
    type Err = InvalidPublicKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let mut words = text.split_ascii_whitespace();
        let kind = words.next().ok_or(InvalidPublicKey {})?;
        let known = ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"];
        let blob = words.next().ok_or(InvalidPublicKey {})?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
        if !known.iter().any(|prefix| kind.starts_with(prefix))
            || !blob.chars().all(plain)
            || text.len() > MAX_KEY
            || text.chars().any(char::is_control)
        {
            return Err(InvalidPublicKey {});
        }
        Ok(Self(text.to_owned()))
    }
}

impl Cloud {
    /// An instance with a new id.
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

    /// Adds a key for the image's default user. After 64 keys, others are ignored.
    #[must_use]
    pub fn public_key(mut self, key: PublicKey) -> Self {
        if self.keys.len() < MAX_KEYS {
            self.keys.push(key);
        }
        self
    }

    /// What the image does on its first boot, before the agent starts. Each process of the guest
    /// can read it: do not put secrets into it.
    #[must_use]
    pub fn user_data(mut self, user_data: UserData) -> Self {
        self.user_data = Some(user_data);
        self
    }

    /// Adds a network card. Without any, the image sets up its first card by its own rules.
    #[must_use]
    pub fn card(mut self, card: CloudCard) -> Self {
        self.cards.push(card);
        self
    }

    pub(crate) fn set_instance_id(&mut self, id: String) {
        self.instance_id = id;
    }

    /// The id of the instance.
    #[must_use]
    pub fn instance_id(&self) -> &str {
        &self.instance_id
    }

    /// The UUID for the machine's SMBIOS tables. Set its text as the serial number too. By these an
    /// image recognizes that this service is its metadata source.
    #[must_use]
    pub fn system_uuid(&self) -> [u8; 16] {
        self.system_uuid
    }
}
