//! Who may use the server. All of it is decided without I/O and without a clock.
//!
//! [`gate`] looks at the head of a request, [`sessions`] knows the browsers, by [`secret`]s, and
//! [`users`] says what each may do.

pub(crate) mod gate;
pub(crate) mod secret;
pub(crate) mod sessions;
pub(crate) mod users;
