//! The SSH keys and user data that a stock cloud image gets in addition to the agent.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use metaservice::{Cloud, CloudCard, InvalidPublicKey, InvalidUserData, PublicKey, UserData};
use metaservice_qemu::{InvalidHardware, MacAddress};

/// How much of a file of user data is read: more than user data may have.
const READ_LIMIT: u64 = 2 << 20;

/// Keys and user data that were checked.
#[derive(Debug, Clone, Default)]
pub struct CloudSettings {
    keys: Vec<PublicKey>,
    user_data: Option<UserData>,
}

/// Why a key or user data is wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidCloud {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// It is no public key.
    #[error(transparent)]
    Key(#[from] InvalidPublicKey),
    /// It is a private key.
    #[error("this is a private key; the public key is in a file whose name ends in .pub")]
    PrivateKey,
    /// The file of keys has none.
    #[error("there is no key in it")]
    NoKey,
    /// It is no user data.
    #[error(transparent)]
    UserData(#[from] InvalidUserData),
}

impl CloudSettings {
    /// Adds a key, or the keys in a file.
    pub(super) fn add_keys(&mut self, text: &str) -> Result<(), InvalidCloud> {
        self.keys.extend(public_keys(text)?);
        Ok(())
    }

    /// Takes the user data in a file.
    pub(super) fn read_user_data(&mut self, path: &Path) -> Result<(), InvalidCloud> {
        self.user_data = Some(user_data(path)?);
        Ok(())
    }

    /// Whether there is neither a key nor user data.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.user_data.is_none()
    }

    /// The instance that cloud-init is served.
    #[must_use]
    pub fn instance(&self, hostname: &str) -> Cloud {
        let keys = self.keys.iter().cloned();
        let cloud = keys.fold(Cloud::new(hostname), Cloud::public_key);
        match &self.user_data {
            Some(data) => cloud.user_data(data.clone()),
            None => cloud,
        }
    }
}

/// Network cards of a machine that another program starts, by their hardware addresses.
///
/// # Errors
/// When one is not six hexadecimal bytes.
pub fn cards(addresses: &[String]) -> Result<Vec<CloudCard>, InvalidHardware> {
    let card = |address: &String| {
        let mac: MacAddress = address.parse()?;
        Ok(CloudCard { mac: mac.bytes(), address: None })
    };
    addresses.iter().map(card).collect()
}

/// A key, or the keys in a file.
fn public_keys(text: &str) -> Result<Vec<PublicKey>, InvalidCloud> {
    if let Ok(key) = text.parse() {
        return Ok(vec![key]);
    }
    let text = std::fs::read_to_string(Path::new(text))?;
    if text.contains("PRIVATE KEY-----") {
        return Err(InvalidCloud::PrivateKey);
    }
    let lines = text.lines().map(str::trim);
    let keys = lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::parse);
    let keys: Vec<PublicKey> = keys.collect::<Result<_, _>>()?;
    if keys.is_empty() { Err(InvalidCloud::NoKey) } else { Ok(keys) }
}

fn user_data(path: &Path) -> Result<UserData, InvalidCloud> {
    let mut bytes = Vec::new();
    File::open(path)?.take(READ_LIMIT).read_to_end(&mut bytes)?;
    Ok(UserData::parse(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_written_or_in_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("keys");
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            public_keys(file.to_str().unwrap()).map(|keys| keys.len())
        };
        assert_eq!(public_keys("ssh-ed25519 AAAA me").unwrap().len(), 1);
        assert_eq!(read("# mine\nssh-ed25519 AAAA me\n\n ssh-rsa BBBB\n").unwrap(), 2);
        assert!(matches!(read(""), Err(InvalidCloud::NoKey)));
        assert!(matches!(read("# none\n"), Err(InvalidCloud::NoKey)));
        assert!(matches!(read("nonsense here\n"), Err(InvalidCloud::Key(_))));
        let private = "-----BEGIN OPENSSH PRIVATE KEY-----\n";
        assert!(matches!(read(private), Err(InvalidCloud::PrivateKey)));
        assert!(matches!(public_keys("/no/where"), Err(InvalidCloud::Read(_))));
    }

    #[test]
    fn cards_have_addresses() {
        let card = cards(&["52:54:00:12:34:56".to_owned()]).unwrap()[0];
        assert_eq!(card.mac, [0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        assert!(cards(&["52".to_owned()]).is_err());
    }
}
