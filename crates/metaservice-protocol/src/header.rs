//! The names of headers, content types and websocket subprotocols.

/// The header of a get-artifact reply that carries no file.
pub const ERROR_HEADER: &str = "X-Taskcluster-Worker-Error";

/// The value of [`ERROR_HEADER`] for a file that cannot be opened.
pub const FILE_NOT_FOUND: &str = "file-not-found";

/// Extension: the header of `success` and `failed` requests. Its value is an
/// [`Ending`](crate::Ending).
pub const RESULT_HEADER: &str = "Metaservice-Result";

/// Extension: the header of `execute` and `poll` requests in which an agent announces itself. Its
/// value is an [`AgentInfo`](crate::AgentInfo).
pub const AGENT_HEADER: &str = "Metaservice-Agent";

/// Extension: the header of the answers to `execute` and `poll` in which a service announces
/// itself. Its value is a [`ServiceInfo`](crate::ServiceInfo).
pub const SERVICE_HEADER: &str = "Metaservice-Service";

/// Extension: the header of a POST to `reply` that refuses an action. Its value is a
/// [`Failure`](crate::Failure).
pub const FAILURE_HEADER: &str = "Metaservice-Failure";

/// Extension: the header of a reply to read. Its value is a [`FileHead`](crate::FileHead).
pub const FILE_HEADER: &str = "Metaservice-File";

/// Extension: the header of a `log` request with numbered bytes. Its value is a
/// [`LogPlace`](crate::LogPlace).
pub const LOG_HEADER: &str = "Metaservice-Log";

/// Extension: the header of a claim. Its value is a random word of the agent's, by which the same
/// agent can repeat the claim.
pub const CLAIM_HEADER: &str = "Metaservice-Claim";

/// Extension: the header of all requests of a session, except `ping`. Its value is the secret of
/// the [`SessionGrant`](crate::SessionGrant).
pub const SESSION_HEADER: &str = "Metaservice-Session";

/// Extension: the content type of a [`transfer`](crate::transfer).
pub const TRANSFER_TYPE: &str = "application/vnd.metaservice.transfer";

/// Extension: the content type of lines of JSON, the replies to list and stats.
pub const JSON_LINES_TYPE: &str = "application/jsonl";

/// Extension: the websocket subprotocol of
/// [`StreamProtocol::V2`](crate::shell::StreamProtocol::V2).
pub const SHELL2_PROTOCOL: &str = "shell.2.metaservice";

/// Extension: the websocket subprotocol of
/// [`StreamProtocol::V1`](crate::shell::StreamProtocol::V1). A client offers it together with
/// [`SHELL2_PROTOCOL`], so that a host that wants version 1 can accept an offer: some websocket
/// clients fail if no offer is accepted.
pub const SHELL1_PROTOCOL: &str = "shell.1.metaservice";
