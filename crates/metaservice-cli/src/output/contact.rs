//! Texts about a guest that is silent or refused while its job runs.

use metaservice::Contact;
use metaservice_sandbox::job::Limits;

/// Returns a message for the change from `before` to `contact`, if one is needed.
pub(super) fn words(before: Contact, contact: Contact, limits: &Limits) -> Option<String> {
    let refused = "the guest's agent is refused:";
    match contact {
        Contact::Silent => {
            let lost = humantime::format_duration(limits.agent_lost());
            let dead = humantime::format_duration(limits.agent_dead());
            Some(format!(
                "the guest is unresponsive: its agent has sent nothing for {lost}; the job is lost \
                 after {dead} (--limit agent-dead)"
            ))
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
        Contact::Silent | Contact::Dead => Some("unresponsive"),
        Contact::NoSession | Contact::Claimed => Some("refused"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_as_it_should_be_is_not_told() {
        let words = |before, now| words(before, now, &Limits::default());
        assert_eq!(words(Contact::Awaited, Contact::Present), None);
        for wrong in [Contact::Silent, Contact::NoSession, Contact::Claimed] {
            let text = words(Contact::Awaited, wrong).unwrap();
            assert!(text.lines().count() == 1 && word(wrong).is_some(), "{text}");
            assert_eq!(words(wrong, Contact::Present).as_deref(), Some("the guest is back"));
        }
        assert_eq!((word(Contact::Awaited), word(Contact::Present)), (None, None));
    }
}
