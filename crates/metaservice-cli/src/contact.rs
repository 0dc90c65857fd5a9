//! What the user is told of a guest that is silent or refused, while its job runs.

use std::convert::Infallible;

use metaservice::{Contact, MetaService, SILENCE};
use serde_json::json;

use crate::printer::Printer;

/// How often that is told of one job: a guest decides when it is silent and when it is back.
const MOST: usize = 20;

/// Tells the user for as long as it is polled. `known` is what is known of the machine by other ways.
pub(crate) async fn tell(
    service: &MetaService,
    printer: Printer,
    known: impl Fn() -> String,
) -> Infallible {
    let mut contact = Contact::Awaited;
    let (mut told, mut hole) = (0, false);
    loop {
        tokio::select! {
            next = service.contact_changed(contact), if told < MOST => {
                let before = std::mem::replace(&mut contact, next);
                let Some(text) = words(before, next) else { continue };
                told += 1;
                let more = if next == Contact::Silent { known() } else { String::new() };
                tracing::info!("{text}");
                printer.note(&format!("{text}{more}"));
                printer.event("contact", json!({ "contact": next }));
            }
            () = service.log_hole(), if !hole => {
                hole = true;
                let text = "the log may have a hole: one of an agent of version 1 was cut";
                tracing::info!("{text}");
                printer.note(text);
                printer.event("logHole", json!({}));
            }
            else => std::future::pending().await,
        }
    }
}

/// What is told when `contact` has become of `before`, if anything.
fn words(before: Contact, contact: Contact) -> Option<String> {
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

/// The word by which `ps` shows a guest that its host does not hear.
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
