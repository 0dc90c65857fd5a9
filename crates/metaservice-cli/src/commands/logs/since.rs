//! The points in time that `logs --since` accepts.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

/// Parses a point in time: an age such as 10m, a date, an RFC 3339 time, or seconds since 1970.
/// Without a time zone, it is in UTC.
pub(super) fn parse(text: &str, now: SystemTime) -> Result<SystemTime> {
    let since = if let Ok(seconds) = text.parse::<u64>() {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
    } else if let Ok(ago) = humantime::parse_duration(text) {
        // An age before 1970 means 1970.
        now.checked_sub(ago).map(|since| since.max(SystemTime::UNIX_EPOCH))
    } else {
        parse_date(text)
    };
    since.with_context(|| {
        format!("{text:?} is no time; write 10m, 2024-05-01, 2024-05-01T12:00:00Z or a Unix time")
    })
}

/// Parses a date with an optional time. The seconds and the time zone are optional too.
fn parse_date(text: &str) -> Option<SystemTime> {
    let time = text.find(['T', 't', ' ']).unwrap_or(text.len());
    let zone = text[time..].find(['+', '-']).map_or(text.len(), |zone| time + zone);
    let (local, zone) = text.split_at(zone);
    let plain = ["", ":00", "T00:00:00"]
        .iter()
        .find_map(|rest| humantime::parse_rfc3339_weak(&format!("{local}{rest}")).ok())?;
    if zone.is_empty() {
        return Some(plain);
    }
    let digits = zone[1..].replace(':', "");
    let number = |range: std::ops::Range<usize>| digits.get(range)?.parse::<u64>().ok();
    let (hours, minutes) = (number(0..2)?, number(2..4).filter(|_| digits.len() == 4)?);
    let offset = Duration::from_secs((hours * 60 + minutes) * 60);
    if zone.starts_with('+') { plain.checked_sub(offset) } else { plain.checked_add(offset) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_an_age_or_a_time() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let seconds = |text: &str| {
            let since = parse(text, now).unwrap();
            since.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
        };
        assert_eq!((seconds("10m"), seconds("1000h"), seconds("77")), (400, 0, 77));
        assert_eq!(seconds("1970-01-01T00:01:00Z"), 60);
        assert_eq!((seconds("1970-01-02"), seconds("1970-01-01T00:01")), (86400, 60));
        assert_eq!(seconds("1970-01-01 02:00:00+01:00"), 3600);
        assert_eq!(seconds("1970-01-01T00:00:00-0130"), 5400);
        for wrong in
            ["", "soon", "-1", "99999999999999999999", "2026-13-01", "1970-01-01T00:00:00+1"]
        {
            assert!(parse(wrong, now).is_err(), "{wrong}");
        }
    }
}
