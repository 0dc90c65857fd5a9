//! What processes take of the host's memory, and what is left, as the kernel measures it.

use std::io;

/// The memory that only this process takes, with its part of what it shares, in bytes.
pub(super) fn of(process: u32) -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    field(&text, "Pss:").ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The memory that new programs can take without swapping, in bytes.
pub(super) fn available() -> Option<u64> {
    field(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")
}

/// A line `NAME: NUMBER kB`, in bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = line.strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_kilobytes() {
        let text = "Rss:  10 kB\nPss:      7 kB\nPss_Dirty: 3 kB\n";
        assert_eq!(field(text, "Pss:"), Some(7168));
        assert_eq!(field(text, "Swap:"), None);
    }

    #[test]
    fn this_process_and_this_host_have_memory() {
        assert!(of(std::process::id()).unwrap() > 100_000);
        assert!(available().unwrap() > 1 << 20);
    }
}
