//! How a machine runs: by the processor's virtualization, or by emulation.
//!
//! Owns the choice and its reason. The presence of `/dev/kvm` is not enough: it can exist on a host
//! whose processor, itself virtual, cannot run guests. Then the failure comes in the middle of a
//! boot.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::arch::Arch;

/// The accelerator that the user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Accelerator {
    /// KVM if it works, or else emulation.
    #[default]
    Auto,
    /// KVM only.
    Kvm,
    /// Emulation by QEMU's TCG, which works on every host.
    Tcg,
}

impl FromStr for Accelerator {
    type Err = AcceleratorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "kvm" => Ok(Self::Kvm),
            "tcg" => Ok(Self::Tcg),
            _ => Err(AcceleratorError::Unknown(text.to_owned())),
        }
    }
}

/// An accelerator that is not available.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceleratorError {
    /// The user named KVM, and it does not work here.
    #[error("KVM does not work here: {0}")]
    KvmUnusable(String),
    /// The text is not the name of an accelerator.
    #[error("{0:?} is no accelerator: say auto, kvm or tcg")]
    Unknown(String),
}

/// The accelerator of a machine, and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AcceleratorChoice {
    /// Whether it is KVM. Otherwise it is emulation.
    pub kvm: bool,
    /// The reason, for people.
    pub reason: String,
}

impl fmt::Display for AcceleratorChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", if self.kvm { "kvm" } else { "tcg" }, self.reason)
    }
}

impl Accelerator {
    /// Chooses by the abilities of this host.
    ///
    /// # Errors
    /// If KVM is wanted and does not work.
    pub fn choose(self, guest: Arch) -> Result<AcceleratorChoice, AcceleratorError> {
        match self {
            Self::Tcg => Ok(AcceleratorChoice { kvm: false, reason: "asked for".into() }),
            Self::Kvm => match kvm_obstacle(guest) {
                None => Ok(AcceleratorChoice { kvm: true, reason: "asked for".into() }),
                Some(obstacle) => Err(AcceleratorError::KvmUnusable(obstacle)),
            },
            Self::Auto => Ok(match kvm_obstacle(guest) {
                None => AcceleratorChoice { kvm: true, reason: "/dev/kvm works".into() },
                Some(obstacle) => AcceleratorChoice { kvm: false, reason: obstacle },
            }),
        }
    }
}

fn kvm_obstacle(guest: Arch) -> Option<String> {
    if guest != Arch::HOST {
        return Some(format!("the guest is {guest} and the host is {}", Arch::HOST));
    }
    let device = Path::new("/dev/kvm");
    if let Err(error) = std::fs::File::options().read(true).write(true).open(device) {
        return Some(format!("{} cannot be opened: {error}", device.display()));
    }
    if guest == Arch::X86_64 {
        let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        if !has_virtualisation(&processors) {
            return Some("/dev/kvm exists, but the processor has neither vmx nor svm".into());
        }
    }
    None
}

fn has_virtualisation(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter_map(|line| line.strip_prefix("flags"))
        .any(|flags| flags.split_ascii_whitespace().any(|flag| flag == "vmx" || flag == "svm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_whole_words_of_the_flags_line() {
        assert!(has_virtualisation("model: x\nflags\t\t: fpu vmx sse\n"));
        assert!(has_virtualisation("flags : svm"));
        assert!(!has_virtualisation("flags\t: fpu vmxoff svm_lock\n"));
        assert!(!has_virtualisation("vmx flags\t: ept\nmodel name : svm\n"));
        assert!(!has_virtualisation(""));
    }

    #[test]
    fn emulation_is_always_there() {
        let choice = Accelerator::Tcg.choose(Arch::HOST).unwrap();
        assert!(!choice.kvm);
        assert_eq!(choice.to_string(), "tcg (asked for)");
    }

    #[test]
    fn auto_always_chooses() {
        assert!(!Accelerator::Auto.choose(Arch::HOST).unwrap().reason.is_empty());
    }

    #[test]
    fn another_architecture_is_emulated() {
        let other = if Arch::HOST == Arch::X86_64 { Arch::Aarch64 } else { Arch::X86_64 };
        assert!(!Accelerator::Auto.choose(other).unwrap().kvm);
        assert!(matches!(Accelerator::Kvm.choose(other), Err(AcceleratorError::KvmUnusable(_))));
    }

    #[test]
    fn names() {
        assert_eq!("kvm".parse::<Accelerator>().unwrap(), Accelerator::Kvm);
        assert!("hvf".parse::<Accelerator>().is_err());
    }
}
