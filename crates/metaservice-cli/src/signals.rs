//! The names and numbers of Linux signals.
//!
//! This module refuses real-time signals, which a guest does not accept.

use anyhow::{Result, bail};

/// The names by number, from 1.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// Aliases, with their numbers.
const ALIASES: [(&str, u8); 3] = [("IOT", 6), ("CLD", 17), ("POLL", 29)];

/// The names, without SIG.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    NAMES.into_iter()
}

/// Parses a signal: a name with or without SIG, or a number.
pub(crate) fn parse(text: &str) -> Result<u8> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(number) = (1u8..).zip(NAMES).find(|(_, known)| *known == name).map(|(n, _)| n) {
        return Ok(number);
    }
    if let Some((_, number)) = ALIASES.into_iter().find(|(known, _)| *known == name) {
        return Ok(number);
    }
    match text.parse().ok() {
        Some(number @ 1..=31) => Ok(number),
        Some(32..=64) => bail!("{text} is a real-time signal: a guest takes the signals 1 to 31"),
        _ if name.starts_with("RTMIN") || name.starts_with("RTMAX") => {
            bail!("{text:?} is a real-time signal: a guest takes the signals 1 to 31")
        }
        _ => bail!("{text:?} is no signal; write TERM, SIGTERM or 15"),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_signal_has_a_name_with_and_without_sig_and_a_number() {
        for (text, number) in
            [("TERM", 15), ("SIGTERM", 15), ("sigkill", 9), ("2", 2), ("SYS", 31), ("USR1", 10)]
        {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for real_time in ["RTMIN", "SIGRTMIN+3", "rtmax-1", "34", "64"] {
            assert!(parse(real_time).unwrap_err().to_string().contains("real-time signal"));
        }
        for wrong in ["65", "", "SIG", "0", "32", "RTMIN", "TERMINATE", "-1", "1x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
