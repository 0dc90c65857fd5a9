//! The statically linked agent that this crate embeds and gives to guests.

use metaservice_qemu::Arch;

/// The agent's ELF file, for the processor that this tool was built for.
pub const AGENT: &[u8] = include_bytes!(env!("METASERVICE_AGENT"));

/// The platform that it is for.
pub const PLATFORM: &str =
    if matches!(Arch::HOST, Arch::Aarch64) { "linux-aarch64" } else { "linux-x86_64" };

#[cfg(test)]
mod tests {
    use super::AGENT;

    /// A dynamic agent would not start in an initramfs without libraries.
    #[test]
    fn the_agent_is_a_static_program() {
        assert_eq!(&AGENT[..4], b"\x7fELF");
        let word = |at: usize, size: usize| {
            let bytes = &AGENT[at..at + size];
            bytes.iter().rev().fold(0usize, |value, byte| value << 8 | usize::from(*byte))
        };
        let (table, size, count) = (word(0x20, 8), word(0x36, 2), word(0x38, 2));
        let interpreter = (0..count).any(|n| word(table + n * size, 4) == 3);
        assert!(!interpreter, "the agent asks for a dynamic loader");
    }
}
