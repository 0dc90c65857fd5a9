//! What the host must know of ELF files: programs, kernels and kernel modules.
//!
//! Owns the reading of 64-bit little-endian headers. Each function returns `None` or `false` for
//! a file that is cut off or has another format; none panics.

/// The note by which a kernel says where it can be entered directly (PVH).
const PVH_NOTE: u32 = 18;

/// The types of program headers.
const INTERPRETER: u32 = 3;
const NOTE: u32 = 4;

/// The size of a program header.
const PROGRAM_HEADER: usize = 56;

/// Whether a file has its whole section table, which is the last part of a file. `None` for a
/// file that is not 64-bit ELF.
pub(crate) fn has_all_sections(elf: &[u8]) -> Option<bool> {
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let sections = usize::try_from(u64_at(elf, 40)?).ok()?;
    let (size, count) = (usize::from(u16_at(elf, 58)?), usize::from(u16_at(elf, 60)?));
    Some(elf.len() >= sections.checked_add(size * count)?)
}

/// Whether a program needs no program loader, and thus no shared libraries. `None` for a file
/// that is not a complete program.
pub(crate) fn is_static(elf: &[u8]) -> Option<bool> {
    if !has_all_sections(elf)? {
        return None;
    }
    for header in program_headers(elf)? {
        if u32_at(header?, 0)? == INTERPRETER {
            return Some(false);
        }
    }
    Some(true)
}

/// Whether a kernel has the PVH note. Without it, QEMU does not load an ELF kernel.
pub(crate) fn has_pvh_entry(kernel: &[u8]) -> bool {
    let search = || {
        if kernel.get(..6)? != b"\x7fELF\x02\x01" {
            return None;
        }
        for header in program_headers(kernel)? {
            let header = header?;
            if u32_at(header, 0)? != NOTE {
                continue;
            }
            let start = usize::try_from(u64_at(header, 8)?).ok()?;
            let length = usize::try_from(u64_at(header, 32)?).ok()?;
            if has_pvh_note(kernel.get(start..)?.get(..length)?)? {
                return Some(true);
            }
        }
        Some(false)
    };
    search().unwrap_or(false)
}

fn has_pvh_note(mut segment: &[u8]) -> Option<bool> {
    while segment.len() >= 12 {
        let (name, content) = (u32_at(segment, 0)?, u32_at(segment, 4)?);
        if u32_at(segment, 8)? == PVH_NOTE && segment.get(12..16)? == b"Xen\0" {
            return Some(true);
        }
        let length =
            12 + u64::from(name).next_multiple_of(4) + u64::from(content).next_multiple_of(4);
        segment = segment.get(usize::try_from(length).ok()?..).unwrap_or_default();
    }
    Some(false)
}

/// The rest of the file from each program header on.
fn program_headers(elf: &[u8]) -> Option<impl Iterator<Item = Option<&[u8]>>> {
    let (table, count) = (usize::try_from(u64_at(elf, 32)?).ok()?, u16_at(elf, 56)?);
    let header = move |index| elf.get(table.checked_add(index * PROGRAM_HEADER)?..);
    Some((0..usize::from(count)).map(header))
}

pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(offset..)?.first_chunk().copied()?))
}

pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(offset..)?.first_chunk().copied()?))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(offset..)?.first_chunk().copied()?))
}

/// A file that passes for a kernel module, for tests.
#[cfg(test)]
pub(crate) fn module(content: &str) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01".to_vec();
    bytes.resize(64, 0);
    bytes.extend_from_slice(content.as_bytes());
    bytes
}

/// A file that passes for a kernel with one note of this type, for tests.
#[cfg(test)]
pub(crate) fn kernel(note_type: u32) -> Vec<u8> {
    let mut elf = vec![0; 160];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    elf[32..40].copy_from_slice(&64u64.to_le_bytes());
    elf[56..58].copy_from_slice(&1u16.to_le_bytes());
    elf[64..68].copy_from_slice(&4u32.to_le_bytes());
    elf[72..80].copy_from_slice(&120u64.to_le_bytes());
    elf[96..104].copy_from_slice(&40u64.to_le_bytes());
    // A note with another name and length comes first.
    elf[120..136]
        .copy_from_slice(&[[2, 0, 0, 0], [0, 0, 0, 0], [9, 0, 0, 0], *b"L\0\0\0"].concat());
    elf[136..148].copy_from_slice(
        &[4u32.to_le_bytes(), 4u32.to_le_bytes(), note_type.to_le_bytes()].concat(),
    );
    elf[148..152].copy_from_slice(b"Xen\0");
    elf
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_note_is_found_behind_another_one() {
        assert!(has_pvh_entry(&kernel(PVH_NOTE)));
        assert!(!has_pvh_entry(&kernel(PVH_NOTE - 1)));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600), at in 0usize..160) {
            let mut damaged = kernel(PVH_NOTE);
            for (place, byte) in damaged.iter_mut().skip(at).zip(&bytes) { *place = *byte; }
            for bytes in [&bytes, &damaged] {
                let _ = (has_pvh_entry(bytes), is_static(bytes), has_all_sections(bytes));
            }
        }
    }
}
