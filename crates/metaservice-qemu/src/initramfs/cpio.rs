//! Writes the archive of an initramfs (cpio, format "newc").
//!
//! Owns the bytes and their order. The same entries always give the same bytes: the archive
//! contains no time, owner or inode number of the host.

use std::collections::BTreeSet;
use std::io::{self, Write};

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive that is being written. Paths are absolute in the guest. Parent directories of an
/// entry are written before it, with mode 0755.
pub(crate) struct Archive<W> {
    output: W,
    written: BTreeSet<String>,
    inode: u32,
    /// The number of bytes written, for the padding.
    position: u64,
}

impl<W: Write> Archive<W> {
    pub(crate) fn new(output: W) -> Self {
        Self { output, written: BTreeSet::new(), inode: 0, position: 0 }
    }

    pub(crate) fn directory(&mut self, path: &str, mode: u32) -> io::Result<()> {
        self.entry(path, DIRECTORY | mode, &[], (0, 0))
    }

    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.entry(path, FILE | mode, content, (0, 0))
    }

    pub(crate) fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.entry(path, LINK | 0o777, target.as_bytes(), (0, 0))
    }

    pub(crate) fn character_device(
        &mut self,
        path: &str,
        mode: u32,
        number: (u32, u32),
    ) -> io::Result<()> {
        self.entry(path, CHARACTER_DEVICE | mode, &[], number)
    }

    /// Writes the end of the archive, and returns the output.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.header("TRAILER!!!", 0, 0, 0, (0, 0))?;
        self.output.flush()?;
        Ok(self.output)
    }

    fn entry(
        &mut self,
        path: &str,
        mode: u32,
        content: &[u8],
        device: (u32, u32),
    ) -> io::Result<()> {
        let path = path.trim_start_matches('/');
        if path.is_empty()
            || path.split('/').any(|part| part.is_empty() || part == "." || part == "..")
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{path:?} is no path for an archive"),
            ));
        }
        if self.written.contains(path) {
            return Ok(());
        }
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.directory(parent, 0o755)?;
        }
        let size = u32::try_from(content.len()).map_err(|_| {
            io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("{path} does not fit into an archive"),
            )
        })?;
        self.inode += 1;
        self.header(path, self.inode, mode, size, device)?;
        self.output.write_all(content)?;
        self.position += u64::from(size);
        self.pad()?;
        self.written.insert(path.to_owned());
        Ok(())
    }

    fn header(
        &mut self,
        name: &str,
        inode: u32,
        mode: u32,
        size: u32,
        device: (u32, u32),
    ) -> io::Result<()> {
        let links: u32 = if mode & 0o170_000 == DIRECTORY { 2 } else { 1 };
        let name_size = name.len() + 1;
        let (uid, gid, time, check) = (0, 0, 0, 0);
        let header = format!(
            "070701{inode:08x}{mode:08x}{uid:08x}{gid:08x}{links:08x}{time:08x}{size:08x}\
             {:08x}{:08x}{:08x}{:08x}{name_size:08x}{check:08x}{name}\0",
            0, 0, device.0, device.1
        );
        self.output.write_all(header.as_bytes())?;
        self.position += header.len() as u64;
        self.pad()
    }

    /// Names and contents start at multiples of four.
    fn pad(&mut self) -> io::Result<()> {
        let padding = self.position.next_multiple_of(4) - self.position;
        self.position += padding;
        self.output.write_all(&[0; 3][..usize::try_from(padding).unwrap_or(0)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_byte_by_byte() {
        let mut archive = Archive::new(Vec::new());
        archive.file("/init", 0o755, b"hello").unwrap();
        let bytes = archive.finish().unwrap();
        let expected = [
            // 110 bytes of header, the name, and padding to a multiple of four.
            b"07070100000001000081ed0000000000000000000000010000000000000005\
              000000000000000000000000000000000000000500000000init\0\0"
                .as_slice(),
            b"hello\0\0\0",
            b"0707010000000000000000000000000000000000000001000000000000000000000000000000000000000000000000\
              0000000b00000000TRAILER!!!\0\0\0\0",
        ]
        .concat();
        assert_eq!(String::from_utf8_lossy(&bytes), String::from_utf8_lossy(&expected));
    }

    #[test]
    fn directories_come_before_what_is_in_them_and_once() {
        let mut archive = Archive::new(Vec::new());
        archive.file("/a/b/c", 0o644, b"1").unwrap();
        archive.link("/a/b/d", "/a/b/c").unwrap();
        archive.directory("/a", 0o700).unwrap();
        archive.character_device("/dev/console", 0o600, (5, 1)).unwrap();
        let bytes = archive.finish().unwrap();
        let names: Vec<_> = names(&bytes);
        assert_eq!(names, ["a", "a/b", "a/b/c", "a/b/d", "dev", "dev/console", "TRAILER!!!"]);
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for path in ["", "/", "../x", "/a/../b", "/a//b", "./a"] {
            let mut archive = Archive::new(Vec::new());
            assert!(archive.file(path, 0o644, b"").is_err(), "{path:?}");
        }
    }

    /// Reads the names, independently of the writer's counters.
    fn names(mut bytes: &[u8]) -> Vec<String> {
        let mut names = Vec::new();
        while bytes.len() >= 110 {
            let field = |index: usize| {
                let text = std::str::from_utf8(&bytes[6 + index * 8..14 + index * 8]).unwrap();
                usize::from_str_radix(text, 16).unwrap()
            };
            assert_eq!(&bytes[..6], b"070701");
            let (size, name_size) = (field(6), field(11));
            names.push(String::from_utf8(bytes[110..110 + name_size - 1].to_vec()).unwrap());
            let content = (110 + name_size).next_multiple_of(4);
            bytes = &bytes[(content + size).next_multiple_of(4)..];
        }
        names
    }
}
