//! The browsers that may use the server: tokens become sessions. It does no I/O and has no clock.
//!
//! A token is in the link that the server prints. It makes one session, and then the next token
//! replaces it: a link in the history of a browser opens nothing. A server with users has no link:
//! each user has a token.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::secret::Secret;
use super::users::{Users, Who};

/// The most sessions of a user. A further one ends the one that was used longest ago.
pub(crate) const MAX_SESSIONS: usize = 16;

/// How long a session lives without a request.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(12 * 60 * 60);

/// How many wrong tokens are accepted in a row.
pub(crate) const MAX_TRIES: u32 = 10;

/// After this time, one more try is allowed.
pub(crate) const TRY_INTERVAL: Duration = Duration::from_secs(6);

/// Why a token makes no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// It is wrong, or it was used.
    Wrong,
    /// There were too many wrong ones. This much later there is one more try.
    TooMany(Duration),
}

/// What opens the page.
#[derive(Debug)]
pub(crate) enum Key {
    /// A link with this token, once.
    Link(Secret),
    /// The token of a user.
    Users(Users),
}

/// The sessions.
#[derive(Debug)]
pub(crate) struct Sessions {
    key: Key,
    /// The one that was used last is the last.
    sessions: VecDeque<Session>,
    tries: u32,
    refilled: Instant,
}

#[derive(Debug)]
struct Session {
    secret: Secret,
    who: Who,
    used: Instant,
    /// Ends its websockets.
    end: CancellationToken,
}

impl Sessions {
    /// No session. `key` makes them.
    pub(crate) fn new(key: Key, now: Instant) -> Self {
        Self { key, sessions: VecDeque::new(), tries: MAX_TRIES, refilled: now }
    }

    /// The token of the link that makes the next session. `None`: users have tokens of their own.
    pub(crate) const fn token(&self) -> Option<&Secret> {
        match &self.key {
            Key::Link(token) => Some(token),
            Key::Users(_) => None,
        }
    }

    /// Makes the session `fresh` if `offered` is a token. If it was that of the link, `next` is
    /// then the token of the link. `end` is cancelled when the user signs out.
    ///
    /// # Errors
    /// [`Denied`].
    pub(crate) fn exchange(
        &mut self,
        offered: &str,
        fresh: Secret,
        next: Secret,
        end: CancellationToken,
        now: Instant,
    ) -> Result<(), Denied> {
        self.refill(now);
        let who = match &self.key {
            Key::Link(token) => token.is(offered).then_some(Who::OWNER),
            Key::Users(users) => users.find(offered),
        };
        // A right one is always accepted, so that others cannot keep its owner out.
        let Some(who) = who else {
            if self.tries == 0 {
                let waited = now.saturating_duration_since(self.refilled);
                return Err(Denied::TooMany(TRY_INTERVAL.saturating_sub(waited)));
            }
            self.tries -= 1;
            return Err(Denied::Wrong);
        };
        if let Key::Link(token) = &mut self.key {
            *token = next;
        }
        let is_of_user = |session: &Session| session.who.name == who.name;
        while self.sessions.iter().filter(|session| is_of_user(session)).count() >= MAX_SESSIONS
            && let Some(oldest) = self.sessions.iter().position(is_of_user)
        {
            self.sessions.remove(oldest).inspect(|session| session.end.cancel());
        }
        self.sessions.push_back(Session { secret: fresh, who, used: now, end });
        Ok(())
    }

    /// The user of the session with this secret, which is then used, and what is cancelled at its
    /// end. A session that is not used for long opens nothing more, and what is open stays open.
    pub(crate) fn accept(
        &mut self,
        offered: &str,
        now: Instant,
    ) -> Option<(Who, CancellationToken)> {
        self.sessions.retain(|session| now.saturating_duration_since(session.used) < IDLE_TIMEOUT);
        let session = self.remove(offered)?;
        let accepted = (session.who.clone(), session.end.clone());
        self.sessions.push_back(Session { used: now, ..session });
        Some(accepted)
    }

    /// The user of this name, if the token is that of a proxy, which says who its users are.
    pub(crate) fn by_proxy(&self, token: &str, name: &str) -> Option<Who> {
        match &self.key {
            Key::Link(_) => None,
            Key::Users(users) => users.by_proxy(token, name),
        }
    }

    /// Ends the session with this secret, and its websockets.
    pub(crate) fn end(&mut self, offered: &str) {
        self.remove(offered).inspect(|session| session.end.cancel());
    }

    fn remove(&mut self, offered: &str) -> Option<Session> {
        let at = self.sessions.iter().position(|session| session.secret.is(offered))?;
        self.sessions.remove(at)
    }

    fn refill(&mut self, now: Instant) {
        while self.tries < MAX_TRIES && now.saturating_duration_since(self.refilled) >= TRY_INTERVAL
        {
            self.tries += 1;
            self.refilled += TRY_INTERVAL;
        }
        if self.tries == MAX_TRIES {
            self.refilled = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::users::{Grant, NewUser, Role};
    use super::*;

    fn open() -> CancellationToken {
        CancellationToken::new()
    }

    fn secret(number: u8) -> Secret {
        Secret::of([number; 32])
    }

    fn text(number: u8) -> String {
        secret(number).reveal().to_owned()
    }

    #[test]
    fn a_token_makes_one_session() {
        let now = Instant::now();
        let mut sessions = Sessions::new(Key::Link(secret(1)), now);
        assert!(sessions.accept(&text(1), now).is_none(), "a token is no session");
        assert_eq!(sessions.exchange(&text(1), secret(2), secret(3), open(), now), Ok(()));
        assert_eq!(sessions.accept(&text(2), now).unwrap().0, Who::OWNER);
        assert_eq!(
            sessions.exchange(&text(1), secret(4), secret(5), open(), now),
            Err(Denied::Wrong)
        );
        assert!(sessions.accept(&text(4), now).is_none());
        assert_eq!(sessions.exchange(&text(3), secret(4), secret(5), open(), now), Ok(()));
        for open in [2, 4] {
            assert!(sessions.accept(&text(open), now).is_some());
        }
        sessions.end(&text(2));
        assert!(sessions.accept(&text(2), now).is_none());
        assert!(sessions.accept(&text(4), now).is_some());
    }

    #[test]
    fn a_session_ends_when_it_is_not_used() {
        let now = Instant::now();
        let mut sessions = Sessions::new(Key::Link(secret(1)), now);
        sessions.exchange(&text(1), secret(2), secret(3), open(), now).unwrap();
        let later = now + IDLE_TIMEOUT - Duration::from_secs(1);
        assert!(sessions.accept(&text(2), later).is_some());
        let later = later + IDLE_TIMEOUT - Duration::from_secs(1);
        assert!(sessions.accept(&text(2), later).is_some());
        assert!(sessions.accept(&text(2), later + 2 * IDLE_TIMEOUT).is_none());
    }

    #[test]
    fn wrong_tokens_are_limited_and_keep_no_owner_out() {
        let now = Instant::now();
        let mut sessions = Sessions::new(Key::Link(secret(1)), now);
        for _ in 0..MAX_TRIES {
            assert_eq!(
                sessions.exchange("x", secret(2), secret(3), open(), now),
                Err(Denied::Wrong)
            );
        }
        let later = now + Duration::from_secs(2);
        let denied = Err(Denied::TooMany(Duration::from_secs(4)));
        assert_eq!(sessions.exchange("x", secret(2), secret(3), open(), later), denied);
        assert_eq!(sessions.exchange(&text(1), secret(2), secret(3), open(), later), Ok(()));
    }

    #[test]
    fn a_user_has_a_token_for_any_number_of_sessions() {
        let now = Instant::now();
        let anna = NewUser::make("anna", Grant::User(Role::Operate)).unwrap();
        let users = Users::parse(anna.line()).unwrap();
        let mut sessions = Sessions::new(Key::Users(users), now);
        assert!(sessions.token().is_none());
        for number in [1, 2] {
            assert_eq!(
                sessions.exchange(anna.token(), secret(number), secret(9), open(), now),
                Ok(())
            );
            let (who, _) = sessions.accept(&text(number), now).unwrap();
            assert_eq!((who.name.as_deref(), who.role), (Some("anna"), Role::Operate));
        }
        assert_eq!(
            sessions.exchange(&text(9), secret(3), secret(4), open(), now),
            Err(Denied::Wrong)
        );
    }

    proptest! {
        /// In any time, no more tokens are tried than the limit allows, and there are no more
        /// sessions than may be.
        #[test]
        fn nothing_exceeds_its_limit(
            steps in prop::collection::vec((0u64..20, any::<bool>()), 1..200),
        ) {
            let start = Instant::now();
            let (mut now, mut tried, mut number) = (start, 0, 0_u8);
            let mut sessions = Sessions::new(Key::Link(secret(0)), start);
            for (seconds, right) in steps {
                now += Duration::from_secs(seconds);
                let token = sessions.token().unwrap().reveal().to_owned();
                let offered = if right { token.as_str() } else { "wrong" };
                number = number.wrapping_add(1);
                let made = sessions.exchange(offered, secret(number), secret(number), open(), now);
                tried += u32::from(made == Err(Denied::Wrong));
                let spent = now - start;
                let refilled = spent.as_secs() / TRY_INTERVAL.as_secs();
                let allowed = MAX_TRIES + u32::try_from(refilled).unwrap();
                prop_assert!(tried <= allowed, "{tried} in {spent:?}");
                prop_assert!(sessions.sessions.len() <= MAX_SESSIONS);
                prop_assert!(right || made.is_err());
            }
        }
    }
}
