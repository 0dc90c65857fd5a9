//! A copy of all frames in the classic pcap format, for Wireshark and tcpdump.
//!
//! Owns the two headers of the format (draft-ietf-opsawg-pcap) and a buffered writer. It does not
//! disturb the card: an error is logged once and ends the copy, not the card.

use std::{
    fmt,
    io::{self, BufWriter, Write},
    time::Duration,
};

/// The magic number of a file with timestamps in nanoseconds.
const MAGIC: u32 = 0xa1b2_3c4d;
const LINKTYPE_ETHERNET: u32 = 1;
/// The longest record in the header. Each frame is written as a whole.
const SNAPLEN: u32 = 262_144;

/// A copy of each frame, in both directions.
///
/// Records are buffered, and written when the link is silent. The card's task waits for the write,
/// so use a file, not a pipe that no process reads.
///
/// ```
/// use metaservice_nic::{Config, Pcap};
///
/// let config = Config::default().pcap(Pcap::new(std::io::sink()));
/// ```
pub struct Pcap {
    writer: Option<BufWriter<Box<dyn Write + Send>>>,
    /// The number of bytes that may still be written, and what to call at the limit.
    left: u64,
    ended: Option<Box<dyn FnOnce() + Send>>,
    begun: bool,
    unflushed: bool,
}

impl Pcap {
    /// The number of bytes that are buffered before a write.
    const BUFFER: usize = 256 * 1024;

    /// A copy to `writer`. Nothing is written before the card runs.
    #[must_use]
    pub fn new(writer: impl Write + Send + 'static) -> Self {
        let writer: Box<dyn Write + Send> = Box::new(writer);
        Self {
            writer: Some(BufWriter::with_capacity(Self::BUFFER, writer)),
            left: u64::MAX,
            ended: None,
            begun: false,
            unflushed: false,
        }
    }

    /// Limits the size. The copy ends before the frame that would exceed it, and `ended` is called.
    #[must_use]
    pub fn limit(mut self, bytes: u64, ended: impl FnOnce() + Send + 'static) -> Self {
        self.left = bytes;
        self.ended = Some(Box::new(ended));
        self
    }

    /// Appends a frame with its time since 1970.
    pub(crate) fn record(&mut self, time: Duration, frame: &[u8]) {
        let header = if self.begun { 0 } else { file_header().len() };
        let length = (header + record_header(time, frame.len()).len() + frame.len()) as u64;
        let Some(left) = self.left.checked_sub(length) else { return self.end() };
        self.left = left;
        self.unflushed = true;
        let begun = std::mem::replace(&mut self.begun, true);
        self.attempt(|writer| {
            if !begun {
                writer.write_all(&file_header())?;
            }
            writer.write_all(&record_header(time, frame.len()))?;
            writer.write_all(frame)
        });
    }

    /// Writes everything that is buffered.
    pub(crate) fn flush(&mut self) {
        if std::mem::take(&mut self.unflushed) {
            self.attempt(BufWriter::flush);
        }
    }

    /// Ends the copy. A later frame that fits would leave a gap before it.
    fn end(&mut self) {
        self.left = 0;
        self.flush();
        if self.writer.take().is_some()
            && let Some(ended) = self.ended.take()
        {
            ended();
        }
    }

    fn attempt(
        &mut self,
        action: impl FnOnce(&mut BufWriter<Box<dyn Write + Send>>) -> io::Result<()>,
    ) {
        if let Some(writer) = &mut self.writer
            && let Err(error) = action(writer)
        {
            tracing::warn!(%error, "the copy of the wire ends here");
            // Otherwise dropping the writer would try to write once more, and wait.
            if let Some(writer) = self.writer.take() {
                drop(writer.into_parts());
            }
        }
    }
}

impl fmt::Debug for Pcap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Pcap").field("failed", &self.writer.is_none()).finish()
    }
}

/// Magic number, version 2.4, no time zone, no accuracy, the longest record, Ethernet.
fn file_header() -> [u8; 24] {
    let mut header = [0; 24];
    header[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    header[4..6].copy_from_slice(&2u16.to_le_bytes());
    header[6..8].copy_from_slice(&4u16.to_le_bytes());
    header[16..20].copy_from_slice(&SNAPLEN.to_le_bytes());
    header[20..24].copy_from_slice(&LINKTYPE_ETHERNET.to_le_bytes());
    header
}

/// Seconds, nanoseconds, and the length twice: as captured and as sent.
fn record_header(time: Duration, length: usize) -> [u8; 16] {
    // The seconds of the format end in 2106.
    let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    let mut header = [0; 16];
    for (field, value) in
        header.chunks_exact_mut(4).zip([seconds, time.subsec_nanos(), length, length])
    {
        field.copy_from_slice(&value.to_le_bytes());
    }
    header
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>, Arc<Mutex<usize>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            *self.1.lock().unwrap() += 1;
            if bytes.len() > 1000 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn byte_by_byte() {
        let file = Shared::default();
        let mut pcap = Pcap::new(file.clone());
        pcap.flush();
        assert!(file.0.lock().unwrap().is_empty());
        pcap.record(Duration::new(0x0102_0304, 5), b"abc");
        pcap.flush();
        let expected = [
            0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0,
            0, //
            4, 3, 2, 1, 5, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, b'a', b'b', b'c',
        ];
        assert_eq!(*file.0.lock().unwrap(), expected);
    }

    #[test]
    fn a_copy_ends_before_the_frame_that_exceeds_its_limit() {
        const THREE: u64 = 24 + 3 * (16 + 100);
        for (limit, frames, ended) in
            [(THREE, 3, false), (THREE + 115, 3, true), (THREE - 1, 2, true)]
        {
            let (file, told) = (Shared::default(), Arc::new(Mutex::new(0)));
            let count = Arc::clone(&told);
            let pcap = Pcap::new(file.clone()).limit(limit, move || *count.lock().unwrap() += 1);
            let mut pcap = pcap;
            for _ in 0..3 {
                pcap.record(Duration::ZERO, &[0; 100]);
            }
            if ended {
                // The small one would fit.
                pcap.record(Duration::ZERO, &[0; 100]);
                pcap.record(Duration::ZERO, &[]);
            }
            pcap.flush();
            assert_eq!(file.0.lock().unwrap().len(), 24 + frames * (16 + 100), "{limit}");
            assert_eq!(*told.lock().unwrap(), u32::from(ended), "{limit}");
        }
    }

    #[test]
    fn a_full_disk_ends_the_copy_quietly() {
        let file = Shared::default();
        let mut pcap = Pcap::new(file.clone());
        pcap.record(Duration::ZERO, &[0; 2000]);
        pcap.flush();
        let attempts = *file.1.lock().unwrap();
        assert!(attempts > 0);
        pcap.record(Duration::ZERO, b"abc");
        pcap.flush();
        drop(pcap);
        assert_eq!(*file.1.lock().unwrap(), attempts, "nothing is tried after the failure");
        assert!(file.0.lock().unwrap().is_empty());
    }
}
