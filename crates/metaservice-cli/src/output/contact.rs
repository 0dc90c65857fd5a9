//! Texts about a guest that is silent or refused while its job runs.

use metaservice::{Contact, SILENCE};

use super::printer::printable;

/// Describes the machine of a silent guest: it runs, and these are the last lines of its console.
pub(super) fn machine(console: &[String]) -> String {
    if console.is_empty() {
        return "; the machine runs".to_owned();
    }
    let lines = printable(&console.join("\n  "));
    format!("; the machine runs; last console lines:\n  {lines}")
}

/// Returns a message for the change from `before` to `contact`, if one is needed.
pub(super) fn words(before: Contact, contact: Contact) -> Option<String> {
    let refused = "the guest's agent is refused:";
    match contact {
        Contact::Silent => {
            let silence = humantime::format_duration(SILENCE);
            Some(format!("the guest has been silent for {silence}: its agent may have ended"))
        }
        Contact::NoSession => Some(format!(
            "{refused} it is of version 1, and this job needs a session \
             (--secret, --session required)"
        )),
        Contact::Claimed => Some(format!("{refused} another agent has claimed this job")),
        Contact::Present if before != Contact::Awaited => Some("the guest is back".to_owned()),
        _ => None,
    }
}

/// Returns a word for `ps` if the guest is silent or refused.
pub(crate) fn word(contact: Contact) -> Option<&'static str> {
    match contact {
        Contact::Silent => Some("silent"),
        Contact::NoSession | Contact::Claimed => Some("refused"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_as_it_should_be_is_not_told() {
        assert_eq!(words(Contact::Awaited, Contact::Present), None);
        for wrong in [Contact::Silent, Contact::NoSession, Contact::Claimed] {
            assert!(words(Contact::Awaited, wrong).is_some() && word(wrong).is_some());
            assert_eq!(words(wrong, Contact::Present).as_deref(), Some("the guest is back"));
        }
        assert_eq!((word(Contact::Awaited), word(Contact::Present)), (None, None));
    }
}
