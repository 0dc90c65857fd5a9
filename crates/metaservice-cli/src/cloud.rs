//! What a stock cloud image is told: the flags for it, as values that are known to be good.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Error, Result, bail, ensure};
use metaservice::{Cloud, CloudCard, PublicKey, UserData};
use metaservice_qemu::MacAddress;

use crate::args::CloudArgs;
use crate::printer::Hint;

/// How much is read of user data: more than they may have.
const MOST_READ: u64 = 2 << 20;

/// The instance that the flags describe.
pub(crate) fn describe(args: &CloudArgs, hostname: &str) -> Result<Cloud> {
    let mut cloud = Cloud::new(hostname);
    for key in &args.ssh_key {
        for key in public_keys(key).with_context(|| format!("in --ssh-key {key}"))? {
            cloud = cloud.public_key(key);
        }
    }
    if let Some(path) = &args.user_data {
        let about = || format!("in --user-data {}", path.display());
        let mut bytes = Vec::new();
        let file = File::open(path).with_context(about)?;
        file.take(MOST_READ).read_to_end(&mut bytes).with_context(about)?;
        cloud = cloud.user_data(UserData::parse(bytes).with_context(about)?);
    }
    Ok(cloud)
}

/// Whether there is anything that only a cloud image would understand.
pub(crate) const fn is_given(args: &CloudArgs) -> bool {
    let CloudArgs { ssh_key, user_data } = args;
    !ssh_key.is_empty() || user_data.is_some()
}

/// Refuses flags that only a cloud image would understand; `hint` says how one is had.
pub(crate) fn refuse(args: &CloudArgs, hint: &str) -> Result<()> {
    if !is_given(args) {
        return Ok(());
    }
    Err(Error::new(Hint(hint.to_owned()))
        .context("--ssh-key and --user-data are for an image that boots by itself"))
}

/// Cards that somebody else has given the machine.
pub(crate) fn cards(words: &[String]) -> Result<Vec<CloudCard>> {
    let card = |word: &String| {
        let mac: MacAddress = word.parse().with_context(|| format!("in --mac {word}"))?;
        Ok(CloudCard { mac: mac.bytes(), address: None })
    };
    words.iter().map(card).collect()
}

/// A key, or the keys in a file.
fn public_keys(word: &str) -> Result<Vec<PublicKey>> {
    if let Ok(key) = word.parse() {
        return Ok(vec![key]);
    }
    let text = std::fs::read_to_string(Path::new(word))?;
    if text.contains("PRIVATE KEY-----") {
        bail!("this is a private key; the public one is in a file of its own that ends in .pub");
    }
    let lines = text.lines().map(str::trim);
    let keys = lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::parse);
    let keys: Vec<PublicKey> = keys.collect::<Result<_, _>>()?;
    ensure!(!keys.is_empty(), "there is no key in it");
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_written_or_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys");
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            public_keys(file.to_str().unwrap()).map(|keys| keys.len())
        };
        assert_eq!(public_keys("ssh-ed25519 AAAA me").unwrap().len(), 1);
        assert_eq!(read("# mine\nssh-ed25519 AAAA me\n\n ssh-rsa BBBB\n").unwrap(), 2);
        for wrong in ["", "# none\n", "nonsense here\n", "-----BEGIN OPENSSH PRIVATE KEY-----\n"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(public_keys("/no/where").is_err());
    }

    #[test]
    fn cards_have_addresses() {
        let card = cards(&["52:54:00:12:34:56".to_owned()]).unwrap()[0];
        assert_eq!(card.mac, [0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        let error = format!("{:#}", cards(&["52".to_owned()]).unwrap_err());
        assert!(error.starts_with("in --mac 52: "), "{error}");
    }
}
