//! The end-points and header names.

/// The header by which a get-artifact reply says that it carries no file.
pub const ERROR_HEADER: &str = "X-Taskcluster-Worker-Error";

/// The value of [`ERROR_HEADER`] for a file that cannot be opened.
pub const FILE_NOT_FOUND: &str = "file-not-found";

/// Extension: the header of `success` and `failed` requests that carries an
/// [`Ending`](crate::Ending) as one line of JSON.
pub const RESULT_HEADER: &str = "Metaservice-Result";

/// Extension: the header by which an agent announces itself
/// ([`Agent`](crate::Agent)), in `execute` and `poll` requests.
pub const AGENT_HEADER: &str = "Metaservice-Agent";

/// Extension: the header by which a service announces itself
/// ([`Service`](crate::Service)), in answers to those.
pub const SERVICE_HEADER: &str = "Metaservice-Service";

/// Extension: the header of a POST to `reply` that refuses an extended action; its value is
/// a [`Failure`](crate::Failure).
pub const FAILURE_HEADER: &str = "Metaservice-Failure";

/// Extension: the header of a reply to read, with a [`FileHead`](crate::FileHead).
pub const FILE_HEADER: &str = "Metaservice-File";

/// Extension: the header of a `log` request that says where its body belongs, a
/// [`LogPlace`](crate::LogPlace).
pub const LOG_HEADER: &str = "Metaservice-Log";

/// Extension: the header of a request for the session: a word that only the claimant knows, by
/// which it may ask again.
pub const CLAIM_HEADER: &str = "Metaservice-Claim";

/// Extension: the header with the session's secret, of every request but ping once there is one.
pub const SESSION_HEADER: &str = "Metaservice-Session";

/// Extension: the content type of a [`transfer`](crate::transfer).
pub const TRANSFER_TYPE: &str = "application/vnd.metaservice.transfer";

/// Extension: the content type of lines of JSON, as list and stats are answered with.
pub const JSON_LINES_TYPE: &str = "application/jsonl";

/// Extension: the websocket subprotocol of shell streams with larger windows, signals and a
/// detailed exit ([`Dialect::V2`](crate::shell::Dialect)).
pub const SHELL_PROTOCOL: &str = "shell.2.metaservice";

/// Extension: the first dialect by name, offered beside [`SHELL_PROTOCOL`] so that a host that
/// wants the first can take something: a websocket client may insist that an offer is taken.
pub const SHELL1_PROTOCOL: &str = "shell.1.metaservice";

/// An end-point of the service.
///
/// ```
/// use metaservice_protocol::Endpoint;
///
/// assert_eq!(Endpoint::from_path("/engine/v1/poll"), Some(Endpoint::Poll));
/// assert_eq!(Endpoint::from_path("/engine/v1/poll/"), None);
/// assert!(Endpoint::Success.allows("PUT") && !Endpoint::Success.allows("POST"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// The command and its environment.
    Execute,
    /// The job's log.
    Log,
    /// The job has succeeded.
    Success,
    /// The job has failed.
    Failed,
    /// The next action.
    Poll,
    /// The guest's answer to an action.
    Reply,
    /// The guest's answer to a list-folder action, as older agents send it.
    ListFolder,
    /// Is the service there?
    Ping,
    /// Extension: a guest claims the job.
    Session,
    /// Extension: what is new for a guest that has waited for a job.
    Renewal,
}

impl Endpoint {
    /// All end-points, in the order of the protocol page.
    pub const ALL: [Self; 10] = [
        Self::Execute,
        Self::Log,
        Self::Success,
        Self::Failed,
        Self::Poll,
        Self::Reply,
        Self::ListFolder,
        Self::Ping,
        Self::Session,
        Self::Renewal,
    ];

    /// The path of this end-point, without a query.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Execute => "/engine/v1/execute",
            Self::Log => "/engine/v1/log",
            Self::Success => "/engine/v1/success",
            Self::Failed => "/engine/v1/failed",
            Self::Poll => "/engine/v1/poll",
            Self::Reply => "/engine/v1/reply",
            Self::ListFolder => "/engine/v1/list-folder",
            Self::Ping => "/engine/v1/ping",
            Self::Session => "/engine/v1/session",
            Self::Renewal => "/engine/v1/renewal",
        }
    }

    /// The end-point at `path`, compared to the letter; `None` is `NoSuchEndPoint`.
    #[must_use]
    pub fn from_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|endpoint| endpoint.path() == path)
    }

    /// Whether `method` may be used here; `false` is `MethodNotAllowed`.
    ///
    /// `reply` allows the two methods that some action is answered with; which of
    /// them is right depends on the action, see
    /// [`Request::is_replied_by`](crate::Request::is_replied_by).
    #[must_use]
    pub fn allows(self, method: &str) -> bool {
        match self {
            Self::Execute | Self::Poll | Self::Ping | Self::Renewal => method == "GET",
            Self::Log | Self::ListFolder => method == "POST",
            Self::Success | Self::Failed | Self::Session => method == "PUT",
            Self::Reply => method == "GET" || method == "POST",
        }
    }
}
