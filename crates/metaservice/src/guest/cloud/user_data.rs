//! User data: what the user wants of the image, and the script that installs the agent.
//!
//! Owns the kinds of user data as cloud-init distinguishes them, and the MIME message with two
//! parts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

/// The largest user data, in bytes.
const MAX_USER_DATA: usize = 1 << 20;

/// The length of a line of base64 (RFC 2045).
const LINE: usize = 76;

/// The beginning of each kind of user data, and its MIME type.
const KINDS: [(&str, &str); 9] = [
    ("#!", "text/x-shellscript"),
    ("#cloud-config-archive", "text/cloud-config-archive"),
    ("#cloud-config-jsonp", "text/cloud-config-jsonp"),
    ("#cloud-config", "text/cloud-config"),
    ("#cloud-boothook", "text/cloud-boothook"),
    ("#include-once", "text/x-include-once-url"),
    ("#include", "text/x-include-url"),
    ("#part-handler", "text/part-handler"),
    ("## template: jinja", "text/jinja2"),
];

/// User data of a kind that cloud-init supports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserData {
    bytes: Vec<u8>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One part with this MIME type.
    Part(&'static str),
    /// A complete MIME message.
    Message,
}

/// Why user data are not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidUserData {
    /// More bytes than 1 MiB: their number.
    #[error("user data have at most {MAX_USER_DATA} bytes, not {0}")]
    TooLarge(usize),
    /// cloud-init supports no kind that begins like this.
    #[error(
        "user data begin with '#!', '#cloud-config' or another such line, or are a MIME message or gzipped"
    )]
    UnknownKind,
}

impl UserData {
    /// Recognizes the kind of user data by their beginning.
    ///
    /// # Errors
    /// [`InvalidUserData`], if the kind is unknown or the data are larger than 1 MiB.
    pub fn parse(bytes: impl Into<Vec<u8>>) -> Result<Self, InvalidUserData> {
        let bytes = bytes.into();
        if bytes.len() > MAX_USER_DATA {
            return Err(InvalidUserData::TooLarge(bytes.len()));
        }
        let begins = |start: &str| {
            bytes.get(..start.len()).is_some_and(|s| s.eq_ignore_ascii_case(start.as_bytes()))
        };
        let known = KINDS.iter().find(|(start, _)| begins(start));
        let kind = if let Some((_, kind)) = known {
            Kind::Part(kind)
        } else if bytes.starts_with(&[0x1f, 0x8b]) {
            Kind::Part("application/gzip")
        } else if begins("content-type:") || begins("mime-version:") {
            Kind::Message
        } else {
            return Err(InvalidUserData::UnknownKind);
        };
        Ok(Self { bytes, kind })
    }
}

/// The user data to serve: one of the two, or both in a MIME message, the script last.
pub(super) fn merged(user_data: Option<&UserData>, script: Option<&str>) -> Option<Bytes> {
    match (user_data, script) {
        (Some(user_data), Some(script)) => Some(message(user_data, script)),
        (Some(user_data), None) => Some(Bytes::copy_from_slice(&user_data.bytes)),
        (None, script) => script.map(|script| Bytes::copy_from_slice(script.as_bytes())),
    }
}

fn message(user_data: &UserData, script: &str) -> Bytes {
    // Base64 cannot contain this line, but a message of the user can.
    let mut boundary = String::from("==metaservice==");
    while contains(&user_data.bytes, boundary.as_bytes()) {
        boundary.push('=');
    }
    let mut message = format!(
        "Content-Type: multipart/mixed; boundary=\"{boundary}\"\nMIME-Version: 1.0\n\n--{boundary}\n"
    )
    .into_bytes();
    match user_data.kind {
        Kind::Message => message.extend_from_slice(&user_data.bytes),
        Kind::Part(kind) => push_part(&mut message, kind, "user-data", &user_data.bytes),
    }
    message.extend_from_slice(format!("\n--{boundary}\n").as_bytes());
    push_part(&mut message, "text/x-shellscript", "metaservice-agent", script.as_bytes());
    message.extend_from_slice(format!("\n--{boundary}--\n").as_bytes());
    message.into()
}

fn push_part(message: &mut Vec<u8>, kind: &str, name: &str, content: &[u8]) {
    let head = format!(
        "Content-Type: {kind}\nMIME-Version: 1.0\nContent-Transfer-Encoding: base64\n\
         Content-Disposition: attachment; filename=\"{name}\"\n"
    );
    message.extend_from_slice(head.as_bytes());
    for line in STANDARD.encode(content).as_bytes().chunks(LINE) {
        message.push(b'\n');
        message.extend_from_slice(line);
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
