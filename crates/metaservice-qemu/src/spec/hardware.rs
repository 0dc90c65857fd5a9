//! Hardware values of a machine: memory, processors, network addresses.
//!
//! Owns their limits: QEMU accepts each value of these types.

use std::fmt;
use std::str::FromStr;

/// A value that no machine can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidHardware {
    /// Not a number with an optional unit.
    #[error("{0:?} is no size: write it like 512M, 1.5G or 2G")]
    NotASize(String),
    /// The memory is too small or too large.
    #[error("{} of memory is not between {} and {}", Memory(*mebibytes), Memory::MIN, Memory::MAX)]
    MemoryOutOfRange {
        /// The size that was given, in MiB.
        mebibytes: u64,
    },
    /// The number of processors is 0 or too large.
    #[error("{0} processors is not between 1 and {max}", max = Cpus::MAX.0)]
    CpusOutOfRange(u32),
    /// The text is not six hexadecimal bytes with colons, or not the address of a single card.
    #[error("{0:?} is not the hardware address of a network card")]
    NotAnAddress(String),
}

/// The memory of a machine, in whole MiB.
///
/// ```
/// use metaservice_qemu::Memory;
///
/// assert_eq!(Memory::parse("2G").unwrap().mebibytes(), 2048);
/// assert_eq!(Memory::parse("768").unwrap(), Memory::parse("768M").unwrap());
/// assert!(Memory::parse("1M").is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Memory(u64);

impl Memory {
    /// The smallest memory in which the built-in guest boots, also with a shared root directory: 96
    /// MiB. It was measured with Debian's kernel 6.1: the guest boots with 92 MiB and does not with
    /// 88; with a shared root directory it boots with 96 MiB and does not with 92. Other kernels
    /// and images may need more.
    pub const MIN: Self = Self(96);
    /// The largest memory: 4 TiB.
    pub const MAX: Self = Self(4 * 1024 * 1024);
    /// The default: 1 GiB.
    pub const DEFAULT: Self = Self(1024);

    /// A size in MiB.
    ///
    /// # Errors
    /// If it is not between [`MIN`](Self::MIN) and [`MAX`](Self::MAX).
    pub fn from_mebibytes(mebibytes: u64) -> Result<Self, InvalidHardware> {
        if (Self::MIN.0..=Self::MAX.0).contains(&mebibytes) {
            Ok(Self(mebibytes))
        } else {
            Err(InvalidHardware::MemoryOutOfRange { mebibytes })
        }
    }

    /// Parses `512`, `512M`, `512MiB`, `1.5G` or `1T`. A number without a unit is in MiB.
    ///
    /// # Errors
    /// If the text is not such a size, or the size is out of range.
    pub fn parse(text: &str) -> Result<Self, InvalidHardware> {
        let not_a_size = || InvalidHardware::NotASize(text.to_owned());
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let factor: u64 = match unit.to_ascii_lowercase().as_str() {
            "" | "m" | "mb" | "mib" => 1,
            "g" | "gb" | "gib" => 1024,
            "t" | "tb" | "tib" => 1024 * 1024,
            _ => return Err(not_a_size()),
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let whole: u64 = whole.parse().map_err(|_| not_a_size())?;
        // Nine digits are enough for a KiB of a TiB, and no product overflows.
        let scale = u32::try_from(part.len()).ok().filter(|digits| *digits <= 9);
        let scale = 10_u64.pow(scale.ok_or_else(not_a_size)?);
        let part: u64 = part.parse().map_err(|_| not_a_size())?;
        let mebibytes = whole.checked_mul(factor).ok_or_else(not_a_size)?;
        let mebibytes = mebibytes.checked_add(part * factor / scale).ok_or_else(not_a_size)?;
        Self::from_mebibytes(mebibytes)
    }

    /// The size in MiB.
    #[must_use]
    pub const fn mebibytes(self) -> u64 {
        self.0
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl FromStr for Memory {
    type Err = InvalidHardware;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => write!(f, "0 MiB"),
            tib if tib % (1024 * 1024) == 0 => write!(f, "{} TiB", tib / (1024 * 1024)),
            gib if gib % 1024 == 0 => write!(f, "{} GiB", gib / 1024),
            mib => write!(f, "{mib} MiB"),
        }
    }
}

/// The number of processors of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cpus(u32);

impl Cpus {
    /// One processor. Under emulation it also boots fastest.
    pub const ONE: Self = Self(1);
    /// The largest number.
    pub const MAX: Self = Self(255);

    /// A number of processors.
    ///
    /// # Errors
    /// If it is 0 or more than [`MAX`](Self::MAX).
    pub fn new(count: u32) -> Result<Self, InvalidHardware> {
        if (1..=Self::MAX.0).contains(&count) {
            Ok(Self(count))
        } else {
            Err(InvalidHardware::CpusOutOfRange(count))
        }
    }

    /// The number.
    #[must_use]
    pub const fn count(self) -> u32 {
        self.0
    }
}

impl Default for Cpus {
    fn default() -> Self {
        Self::ONE
    }
}

impl FromStr for Cpus {
    type Err = InvalidHardware;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let count = text.parse().map_err(|_| InvalidHardware::CpusOutOfRange(0))?;
        Self::new(count)
    }
}

/// The hardware address of a network card.
///
/// ```
/// use metaservice_qemu::MacAddress;
///
/// let address: MacAddress = "52:54:00:12:34:56".parse().unwrap();
/// assert_eq!(address.to_string(), "52:54:00:12:34:56");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MacAddress([u8; 6]);

impl MacAddress {
    /// The address of a single card.
    ///
    /// # Errors
    /// If it is a multicast address or all zeros.
    pub fn new(bytes: [u8; 6]) -> Result<Self, InvalidHardware> {
        let address = Self(bytes);
        if bytes[0] & 1 != 0 || bytes == [0; 6] {
            return Err(InvalidHardware::NotAnAddress(address.to_string()));
        }
        Ok(address)
    }

    /// A random, locally administered address.
    #[must_use]
    pub fn random() -> Self {
        use std::hash::{BuildHasher, Hasher};
        // Each `RandomState` has new keys from the system's random source.
        let random = std::hash::RandomState::new().build_hasher().finish().to_be_bytes();
        let [first, b, c, d, e, f, ..] = random;
        Self([first & !1 | 2, b, c, d, e, f])
    }

    /// The six bytes.
    #[must_use]
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for MacAddress {
    type Err = InvalidHardware;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidHardware::NotAnAddress(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(invalid)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
        }
        if parts.next().is_some() {
            return Err(invalid());
        }
        Self::new(bytes)
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The UUID of a machine in the firmware tables (DMI). Its text is also the serial number.
///
/// ```
/// use metaservice_qemu::SystemUuid;
///
/// let uuid = SystemUuid::from([0xec; 16]);
/// assert_eq!(uuid.to_string(), "ecececec-ecec-ecec-ecec-ecececececec");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SystemUuid([u8; 16]);

impl From<[u8; 16]> for SystemUuid {
    fn from(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for SystemUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, byte) in self.0.iter().enumerate() {
            if [4, 6, 8, 10].contains(&n) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_in_each_unit_and_at_its_limits() {
        for (text, mebibytes) in [
            ("96", 96),
            ("512M", 512),
            ("512mib", 512),
            ("2g", 2048),
            ("4T", 4 << 20),
            ("3GB", 3072),
            ("1.5G", 1536),
        ] {
            assert_eq!(Memory::parse(text).unwrap().mebibytes(), mebibytes, "{text}");
        }
        for text in [
            "",
            "M",
            "95M",
            "64M",
            "-1G",
            "512K",
            "5T",
            "99999999999999999999",
            "18446744073709551615T",
            "1 G",
        ] {
            assert!(Memory::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn processors_at_their_limits() {
        assert_eq!(Cpus::new(0), Err(InvalidHardware::CpusOutOfRange(0)));
        assert_eq!(Cpus::new(1), Ok(Cpus::ONE));
        assert_eq!(Cpus::new(255), Ok(Cpus::MAX));
        assert!(Cpus::new(256).is_err());
        assert!("many".parse::<Cpus>().is_err());
    }

    #[test]
    fn random_addresses_differ_and_are_local() {
        let (one, other) = (MacAddress::random(), MacAddress::random());
        assert_ne!(one, other);
        assert_eq!(one.bytes()[0] & 3, 2);
        assert_eq!(one.to_string().parse(), Ok(one));
    }

    #[test]
    fn addresses_that_are_none() {
        for text in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "5:54:00:12:34:566",
        ] {
            assert!(text.parse::<MacAddress>().is_err(), "{text}");
        }
    }
}
