//! Takes the compressed kernel out of its self-extracting image, once, on the host.
//!
//! An x86 kernel image extracts itself at boot. Under emulation that is the longest part of the
//! boot: 2.4 s of 4.2 s for a kernel that is compressed with xz. So QEMU gets the plain ELF kernel
//! if possible. This module owns the format of the image. It never fails: an image of an unknown
//! form is booted as it is.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use metaservice_private::Location;

use crate::cache;
use crate::cache::boot_file::BootFile;
use crate::cache::key::Key;
use crate::decompress::decompress;
use crate::elf::{has_pvh_entry, u16_at, u32_at};

/// The largest kernel that is extracted: 256 MiB.
const MAX_KERNEL: u32 = 256 * 1024 * 1024;

/// The size of an image's header.
const HEADER: u64 = 0x268;

/// The plain ELF kernel of an image, or else the image.
pub(crate) fn unpacked(image: &Path) -> BootFile {
    let made = || {
        let mut key = Key::default();
        key.file(image)?;
        cache::get_or_make(&Location::Cache("vmlinux"), key, "elf", |output| {
            output.write_all(&unpack(&std::fs::read(image)?)?)
        })
    };
    made().unwrap_or_else(|error: io::Error| {
        tracing::debug!(image = %image.display(), %error, "booting the kernel image as it is");
        image.into()
    })
}

/// Whether a kernel image is complete, according to its header. An image of another form counts as
/// complete.
pub(crate) fn is_whole(image: &Path) -> bool {
    let read = || {
        let file = std::fs::File::open(image)?;
        let length = file.metadata()?.len();
        let mut head = Vec::new();
        file.take(HEADER).read_to_end(&mut head)?;
        io::Result::Ok((head, length))
    };
    match read() {
        Ok((head, length)) if head.get(0x202..0x206) == Some(b"HdrS") => {
            payload_place(&head).is_none_or(|(start, size)| start.saturating_add(size) <= length)
                && u64::try_from(head.len()).is_ok_and(|read| read >= HEADER)
        }
        Ok((_, length)) => length > HEADER,
        Err(_) => false,
    }
}

fn unpack(image: &[u8]) -> io::Result<Vec<u8>> {
    let (tool, payload, size) =
        payload(image).ok_or_else(|| invalid("not a kernel image of a known form"))?;
    let mut input = tempfile::tempfile()?;
    input.write_all(payload)?;
    input.seek(SeekFrom::Start(0))?;
    let kernel = decompress(tool, input.into(), size.into())?;
    if kernel.len() != usize::try_from(size).unwrap_or(0) {
        return Err(invalid("the payload does not have the size that it states"));
    }
    if !has_pvh_entry(&kernel) {
        return Err(invalid("the kernel cannot be entered directly"));
    }
    Ok(kernel)
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// The compressed kernel in an image (Linux x86 boot protocol 2.08), the program that decompresses
/// it, and the decompressed size.
fn payload(image: &[u8]) -> Option<(&'static str, &[u8], u32)> {
    let (start, size) = payload_place(image)?;
    let payload = image.get(usize::try_from(start).ok()?..)?.get(..usize::try_from(size).ok()?)?;
    let tool = match payload {
        [0xfd, b'7', b'z', b'X', b'Z', ..] => "xz",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        [0x1f, 0x8b, ..] => "gzip",
        [0x02, 0x21, 0x4c, 0x18, ..] => "lz4",
        _ => return None,
    };
    let size = u32_at(payload, payload.len().checked_sub(4)?)?;
    (size <= MAX_KERNEL).then_some((tool, payload, size))
}

/// The offset and the size of the compressed kernel, from the header.
fn payload_place(image: &[u8]) -> Option<(u64, u64)> {
    if image.get(0x202..0x206)? != b"HdrS" || u16_at(image, 0x206)? < 0x208 {
        return None;
    }
    let setup_sectors = match *image.get(0x1f1)? {
        0 => 4,
        sectors => u64::from(sectors),
    };
    let start = (setup_sectors + 1) * 512 + u64::from(u32_at(image, 0x248)?);
    Some((start, u64::from(u32_at(image, 0x24c)?)))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;
    use crate::elf;

    fn image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024 + 16];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
        image[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
        image.extend_from_slice(payload);
        image
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut child = Command::new("gzip")
            .arg("-c")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(content).unwrap();
        child.wait_with_output().unwrap().stdout
    }

    #[test]
    fn an_image_gives_its_kernel_back() {
        let kernel = elf::kernel(18);
        assert_eq!(unpack(&image(&gzip(&kernel))).unwrap(), kernel);
    }

    #[test]
    fn an_image_is_whole_with_all_of_its_payload() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let image = image(&gzip(&elf::kernel(18)));
        for (length, whole) in
            [(image.len(), true), (image.len() - 1, false), (0x210, false), (0, false)]
        {
            std::fs::write(file.path(), &image[..length]).unwrap();
            assert_eq!(is_whole(file.path()), whole, "{length}");
        }
        assert!(!is_whole(Path::new("/no/such/kernel")));
    }

    #[test]
    fn a_kernel_without_direct_entry_is_refused() {
        let error = unpack(&image(&gzip(&elf::kernel(17)))).unwrap_err();
        assert_eq!(error.to_string(), "the kernel cannot be entered directly");
    }

    #[test]
    fn a_payload_of_another_size_is_refused() {
        let mut payload = gzip(&elf::kernel(18));
        let end = payload.len() - 4;
        payload[end] += 1;
        assert!(unpack(&image(&payload)).is_err());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600), at in 0usize..700) {
            let _ = payload(&bytes);
            let mut damaged = image(&elf::kernel(18));
            for (place, byte) in damaged.iter_mut().skip(at).zip(&bytes) { *place = *byte; }
            let _ = payload(&damaged);
        }
    }
}
