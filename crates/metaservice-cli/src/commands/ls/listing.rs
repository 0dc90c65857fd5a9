//! Formats the entries of a directory in the guest like `ls -l`.
//!
//! Names come from the guest, so they are sanitized for a terminal.

use std::time::{Duration, SystemTime};

use metaservice::{DirectoryEntry, EntryKind};

use crate::output::printer::printable;

/// The maximum width of a column with text from the guest.
const MAX_WIDTH: usize = 32;

/// The format of sizes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Sizes {
    #[default]
    Bytes,
    /// Like `ls -h`: 1.5K, 234M.
    Human,
}

impl Sizes {
    fn write(self, bytes: u64) -> String {
        const UNITS: [char; 6] = ['K', 'M', 'G', 'T', 'P', 'E'];
        if self == Self::Bytes || bytes < 1024 {
            return bytes.to_string();
        }
        let (mut unit, mut one) = (0, 1024_u128);
        // Round up, as `ls` does. A number of four digits uses the next unit.
        while u128::from(bytes).div_ceil(one) > 1023 && unit + 1 < UNITS.len() {
            unit += 1;
            one *= 1024;
        }
        let tenths = (u128::from(bytes) * 10).div_ceil(one);
        if tenths < 100 {
            format!("{}.{}{}", tenths / 10, tenths % 10, UNITS[unit])
        } else {
            format!("{}{}", u128::from(bytes).div_ceil(one), UNITS[unit])
        }
    }
}

/// The widths of the columns of a listing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Columns {
    sizes: Sizes,
    links: usize,
    user: usize,
    group: usize,
    size: usize,
}

impl Columns {
    /// Returns the widths for these entries.
    pub(crate) fn of(entries: &[DirectoryEntry], sizes: Sizes) -> Self {
        let widest = |text: &dyn Fn(&DirectoryEntry) -> String| {
            entries
                .iter()
                .map(|entry| text(entry).chars().count())
                .max()
                .unwrap_or(0)
                .min(MAX_WIDTH)
        };
        Self {
            sizes,
            links: widest(&|entry| entry.links.to_string()),
            user: widest(&user),
            group: widest(&group),
            size: widest(&|entry| sizes.write(entry.size)),
        }
    }

    /// Formats one line of `ls -l`.
    pub(crate) fn line(&self, entry: &DirectoryEntry, now: SystemTime) -> String {
        let Self { sizes, links: l, user: u, group: g, size: s } = *self;
        let mut line = format!(
            "{} {:>l$} {:<u$} {:<g$} {:>s$} {} {}",
            mode(entry),
            entry.links,
            user(entry),
            group(entry),
            sizes.write(entry.size),
            time(entry.mtime_ns, now),
            name(&entry.path, true),
        );
        if let Some(target) = &entry.target {
            line += " -> ";
            line += &name(target, true);
        }
        line
    }
}

/// Formats a name. For a terminal, it is sanitized and on one line.
pub(crate) fn name(path: &str, sanitize: bool) -> String {
    if sanitize { printable(path).replace('\n', "\u{fffd}") } else { path.to_owned() }
}

fn user(entry: &DirectoryEntry) -> String {
    entry.user.as_deref().map_or_else(|| entry.uid.to_string(), |user| name(user, true))
}

fn group(entry: &DirectoryEntry) -> String {
    entry.group.as_deref().map_or_else(|| entry.gid.to_string(), |group| name(group, true))
}

/// Formats a mode like `-rwsr-xr-x`.
fn mode(entry: &DirectoryEntry) -> String {
    let mut text = String::with_capacity(10);
    text.push(match entry.kind {
        EntryKind::File => '-',
        EntryKind::Directory => 'd',
        EntryKind::Link => 'l',
        EntryKind::Fifo => 'p',
        EntryKind::Socket => 's',
        EntryKind::BlockDevice => 'b',
        EntryKind::CharacterDevice => 'c',
        _ => '?',
    });
    for (shift, special, set) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = entry.mode >> shift;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push(match (bits & 1 != 0, entry.mode & special != 0) {
            (false, false) => '-',
            (true, false) => 'x',
            (false, true) => set.to_ascii_uppercase(),
            (true, true) => set,
        });
    }
    text
}

/// Formats a time in UTC, to the minute. The guest can send any value.
fn time(mtime_ns: i64, now: SystemTime) -> String {
    let distance = Duration::from_nanos(mtime_ns.unsigned_abs());
    let time = if mtime_ns < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    let shown = time.filter(|time| *time >= SystemTime::UNIX_EPOCH).map_or(now, |time| time);
    let text = humantime::format_rfc3339_seconds(shown).to_string();
    let text = text.replace('T', " ");
    match mtime_ns {
        ..0 => format!("{:<16}", "before 1970"),
        _ => text.chars().take(16).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: EntryKind, mode: u32) -> DirectoryEntry {
        DirectoryEntry {
            path: "a\u{1b}\nb".into(),
            kind,
            size: 7,
            mode,
            mtime_ns: 1_714_564_800_000_000_000,
            uid: 0,
            gid: 100,
            links: 1,
            user: Some("root".into()),
            group: None,
            target: (kind == EntryKind::Link).then(|| "\u{9b}x".into()),
        }
    }

    #[test]
    fn a_line_is_that_of_ls_and_cannot_write_to_a_terminal() {
        let entries = [entry(EntryKind::Link, 0o777)];
        let line = Columns::of(&entries, Sizes::Bytes).line(&entries[0], SystemTime::now());
        let expected = "lrwxrwxrwx 1 root 100 7 2024-05-01 12:00 a\u{fffd}\u{fffd}b -> \u{fffd}x";
        assert_eq!(line, expected);
    }

    #[test]
    fn sizes_are_those_of_ls() {
        let human = |bytes| Sizes::Human.write(bytes);
        for (bytes, shown) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1.0K"),
            (1025, "1.1K"),
            (10 << 10, "10K"),
            ((10 << 10) + 1, "11K"),
            (1023 << 10, "1023K"),
            ((1023 << 10) + 1, "1.0M"),
            (3 << 29, "1.5G"),
            (u64::MAX, "16E"),
        ] {
            assert_eq!(human(bytes), shown, "{bytes}");
        }
    }

    #[test]
    fn modes_are_those_of_ls() {
        let text = |bits| mode(&entry(EntryKind::File, bits));
        assert_eq!(text(0o4755), "-rwsr-xr-x");
        assert_eq!(text(0o4644), "-rwSr--r--");
        assert_eq!(text(0o2711), "-rwx--s--x");
        assert_eq!(text(0o1777), "-rwxrwxrwt");
        assert_eq!(text(0o1000), "---------T");
        assert_eq!(mode(&entry(EntryKind::Directory, 0o700)), "drwx------");
    }

    #[test]
    fn any_time_is_shown() {
        let now = SystemTime::now();
        for wild in [i64::MIN, -1, 0, i64::MAX] {
            assert_eq!(time(wild, now).chars().count(), 16, "{wild}");
        }
        assert_eq!(time(0, now), "1970-01-01 00:00");
    }
}
