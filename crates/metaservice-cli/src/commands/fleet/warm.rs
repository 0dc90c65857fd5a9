//! The machines of a worker that wait for jobs, as a flag describes them.

use std::str::FromStr;

use metaservice_fleet::worker::Warm;
use metaservice_sandbox::spec::{InvalidSize, Size};

/// The name of the built-in guest.
pub(super) const BUILTIN: &str = "builtin";

/// The most machines of one kind.
const MAX: u32 = 1024;

/// `IMAGE[@MEMORY[/CPUS]]=COUNT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WarmArg(pub(super) Warm);

/// Why a text describes no such machines.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidWarm {
    #[error("write IMAGE=COUNT, IMAGE@MEMORY=COUNT or IMAGE@MEMORY/CPUS=COUNT")]
    Form,
    #[error("the count is 1 to {MAX}, not {0:?}")]
    Count(String),
    #[error("the number of processors is 1 or more, not {0:?}")]
    Cpus(String),
    #[error(transparent)]
    Memory(#[from] InvalidSize),
}

impl FromStr for WarmArg {
    type Err = InvalidWarm;

    fn from_str(text: &str) -> Result<Self, InvalidWarm> {
        let (machine, count) = text.rsplit_once('=').ok_or(InvalidWarm::Form)?;
        let (image, size) = match machine.rsplit_once('@') {
            Some((image, size)) => (image, Some(size)),
            None => (machine, None),
        };
        if image.is_empty() {
            return Err(InvalidWarm::Form);
        }
        let (memory, cpus) = match size.map(|size| size.split_once('/').ok_or(size)) {
            None => (None, None),
            Some(Err(memory)) => (Some(memory), None),
            Some(Ok((memory, cpus))) => (Some(memory), Some(cpus)),
        };
        let number = |text: &str| text.parse().ok().filter(|number| (1..=MAX).contains(number));
        let invalid = |cpus: &str| InvalidWarm::Cpus(cpus.to_owned());
        Ok(Self(Warm {
            image: (image != BUILTIN).then(|| image.to_owned()),
            memory: memory.map(str::parse::<Size>).transpose()?.map(|size| size.0),
            cpus: cpus.map(|cpus| number(cpus).ok_or_else(|| invalid(cpus))).transpose()?,
            count: number(count).ok_or_else(|| InvalidWarm::Count(count.to_owned()))?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warm(image: Option<&str>, memory: Option<u64>, cpus: Option<u32>, count: u32) -> WarmArg {
        WarmArg(Warm { image: image.map(str::to_owned), memory, cpus, count })
    }

    #[test]
    fn machines_have_an_image_and_perhaps_a_size() {
        assert_eq!("builtin=4".parse::<WarmArg>().unwrap(), warm(None, None, None, 4));
        let sized: WarmArg = "debian-12@2G=1".parse().unwrap();
        assert_eq!(sized, warm(Some("debian-12"), Some(2 << 30), None, 1));
        let full: WarmArg = "a@512M/2=3".parse().unwrap();
        assert_eq!(full, warm(Some("a"), Some(512 << 20), Some(2), 3));
        for wrong in ["", "a", "=1", "a=", "a=0", "a=x", "a=1025", "a@=1", "a@1G/0=1", "a@x=1"] {
            assert!(wrong.parse::<WarmArg>().is_err(), "{wrong}");
        }
    }
}
