//! The init's arguments on the kernel's command line.
//!
//! Owns the words that begin with `metaservice.`. All other words are for the kernel. An unknown
//! `metaservice.` word is an error: a machine that ignores an option of the host must not run a
//! job.

use std::net::Ipv4Addr;

/// The file system that becomes `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Root {
    /// The initramfs that the kernel has unpacked.
    Initramfs,
    /// The root partition of the first disk.
    Disk,
}

/// An IPv4 address with its prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) ip: Ipv4Addr,
    pub(super) prefix: u8,
}

/// The init's arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BootArguments {
    /// The address of the card.
    pub(super) address: Address,
    /// The gateway of the default route.
    pub(super) gateway: Option<Ipv4Addr>,
    /// The resolver of names.
    pub(super) resolver: Option<Ipv4Addr>,
    pub(super) root: Root,
    pub(super) hostname: Option<String>,
}

/// A word that is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the kernel argument '{0}' is not valid")]
pub(super) struct InvalidArgument(String);

impl Default for BootArguments {
    fn default() -> Self {
        let address = Address { ip: Ipv4Addr::new(169, 254, 1, 2), prefix: 16 };
        Self { address, gateway: None, resolver: None, root: Root::Initramfs, hostname: None }
    }
}

impl BootArguments {
    /// Reads the kernel's command line. If a name is there twice, the last word counts.
    pub(super) fn parse(line: &str) -> Result<Self, InvalidArgument> {
        let mut arguments = Self::default();
        for word in line.split_ascii_whitespace() {
            let Some((name, value)) = word
                .strip_prefix("metaservice.")
                .map(|rest| rest.split_once('=').unwrap_or((rest, "")))
            else {
                continue;
            };
            let invalid = || InvalidArgument(word.to_owned());
            match name {
                "address" => arguments.address = address(value).ok_or_else(invalid)?,
                "gateway" => arguments.gateway = Some(value.parse().map_err(|_| invalid())?),
                "resolver" => arguments.resolver = Some(value.parse().map_err(|_| invalid())?),
                "root" => arguments.root = root(value).ok_or_else(invalid)?,
                "hostname" if !value.is_empty() && value.len() <= 64 => {
                    arguments.hostname = Some(value.to_owned());
                }
                _ => return Err(invalid()),
            }
        }
        Ok(arguments)
    }
}

fn address(text: &str) -> Option<Address> {
    let (ip, prefix) = text.split_once('/')?;
    let address = Address { ip: ip.parse().ok()?, prefix: prefix.parse().ok()? };
    (address.prefix <= 32).then_some(address)
}

fn root(text: &str) -> Option<Root> {
    match text {
        "initramfs" => Some(Root::Initramfs),
        "disk" => Some(Root::Disk),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_arguments_are_read() {
        let line = "console=ttyS0 quiet metaservice.address=10.0.2.15/24 metaservice.root=disk \
                    metaservice.gateway=10.0.2.2 metaservice.resolver=10.0.2.3 \
                    metaservice.hostname=ci-7 panic=-1\n";
        let arguments = BootArguments::parse(line).unwrap();
        assert_eq!(arguments.address, Address { ip: [10, 0, 2, 15].into(), prefix: 24 });
        assert_eq!(arguments.gateway, Some([10, 0, 2, 2].into()));
        assert_eq!(arguments.resolver, Some([10, 0, 2, 3].into()));
        assert_eq!(arguments.root, Root::Disk);
        assert_eq!(arguments.hostname.as_deref(), Some("ci-7"));
        let disk = BootArguments::parse("metaservice.root=disk").unwrap();
        assert_eq!(disk, BootArguments { root: Root::Disk, ..BootArguments::default() });
        assert_eq!(BootArguments::parse("quiet"), Ok(BootArguments::default()));
    }

    #[test]
    fn an_error_names_the_word() {
        for word in [
            "root=nfs",
            "root=9p:tag",
            "address=1.2.3.4",
            "address=1.2.3.4/33",
            "address",
            "net=user",
            "gateway=10.0.2",
            "resolver=",
            "hostname=",
            "speed=9",
            "root",
        ] {
            let word = format!("metaservice.{word}");
            assert_eq!(BootArguments::parse(&word), Err(InvalidArgument(word.clone())), "{word}");
        }
    }

    proptest! {
        #[test]
        fn no_line_panics(line in "[metaservice.=:/ 0-9a-z]{0,80}") {
            let _ = BootArguments::parse(&line);
        }
    }
}
