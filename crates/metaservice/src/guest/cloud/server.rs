//! Answers to cloud-init: a request and a time in, an answer out, without I/O.

use std::time::Instant;

use bytes::Bytes;

use super::instance::Cloud;
use super::tokens::{self, Tokens};
use super::tree::Tree;

/// A request for metadata.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    /// The session token of the request.
    pub(crate) token: Option<&'a str>,
    /// The lifetime of a requested token, in seconds.
    pub(crate) ttl: Option<&'a str>,
}

/// The header with a session token.
pub(crate) const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
/// The header with a token's lifetime in seconds.
pub(crate) const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";

/// The answer to a [`Question`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Found(Bytes),
    /// A new token and its lifetime in seconds.
    Token(String, u32),
    /// The request for a token has no valid lifetime.
    BadRequest,
    /// The token is unknown or has expired.
    Unauthorized,
    MethodNotAllowed,
    NotFound,
}

/// The metadata of one instance, and the tokens of its clients.
pub(crate) struct Server {
    tree: Tree,
    tokens: Tokens,
}

const TOKEN_PATH: &str = "/latest/api/token";

impl Server {
    /// `script` installs the agent. The image runs it after the user data.
    pub(crate) fn new(cloud: &Cloud, script: Option<&str>) -> Self {
        Self { tree: Tree::of(cloud, script), tokens: Tokens::default() }
    }

    /// The answer at `now`; `random` makes the text of a token.
    pub(crate) fn answer(
        &mut self,
        question: Question<'_>,
        now: Instant,
        random: impl FnOnce() -> String,
    ) -> Answer {
        if question.path == TOKEN_PATH {
            return match (question.method, tokens::lifetime(question.ttl)) {
                ("PUT", Some(seconds)) => {
                    Answer::Token(self.tokens.issue(random(), seconds, now), seconds)
                }
                ("PUT", None) => Answer::BadRequest,
                _ => Answer::MethodNotAllowed,
            };
        }
        let Some(found) = self.tree.find(question.path) else { return Answer::NotFound };
        if question.method != "GET" {
            return Answer::MethodNotAllowed;
        }
        // A client of the older version sends no token.
        match question.token {
            Some(token) if !self.tokens.is_valid(token, now) => Answer::Unauthorized,
            _ => Answer::Found(found),
        }
    }
}

#[cfg(test)]
mod tests;
