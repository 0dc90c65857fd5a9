//! The end-points: their paths and methods.

/// Makes [`Endpoint`] from its rows, so that no end-point is missing in one of its methods.
macro_rules! endpoints {
    ($($(#[$doc:meta])+ $endpoint:ident = $methods:literal $path:literal;)+) => {
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
            $($(#[$doc])+ $endpoint,)+
        }

        impl Endpoint {
            /// All end-points, in the order of the protocol page.
            pub const ALL: &[Self] = &[$(Self::$endpoint),+];

            /// The path of this end-point, without a query.
            #[must_use]
            pub const fn path(self) -> &'static str {
                match self {
                    $(Self::$endpoint => $path,)+
                }
            }

            const fn methods(self) -> &'static str {
                match self {
                    $(Self::$endpoint => $methods,)+
                }
            }
        }
    };
}

endpoints! {
    /// The command and its environment.
    Execute = "GET" "/engine/v1/execute";
    /// The job's log.
    Log = "POST" "/engine/v1/log";
    /// The job has succeeded.
    Success = "PUT" "/engine/v1/success";
    /// The job has failed.
    Failed = "PUT" "/engine/v1/failed";
    /// The next action.
    Poll = "GET" "/engine/v1/poll";
    /// The reply to an action.
    Reply = "GET POST" "/engine/v1/reply";
    /// The reply to a list-folder action, as older agents send it.
    ListFolder = "POST" "/engine/v1/list-folder";
    /// An empty answer, which shows that the service is there.
    Ping = "GET" "/engine/v1/ping";
    /// Extension: an agent claims the job.
    Session = "PUT" "/engine/v1/session";
    /// Extension: what an agent needs to know when its machine was restored.
    Renewal = "GET" "/engine/v1/renewal";
}

impl Endpoint {
    /// The end-point at exactly this path. `None`: the answer is `NoSuchEndPoint`.
    #[must_use]
    pub fn from_path(path: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|endpoint| endpoint.path() == path)
    }

    /// Whether the end-point has this method. `false`: the answer is `MethodNotAllowed`.
    ///
    /// `reply` has the methods of all actions. Which one is right depends on the action, see
    /// [`ActionKind::is_replied_by`](crate::ActionKind::is_replied_by).
    #[must_use]
    pub fn allows(self, method: &str) -> bool {
        self.methods().split(' ').any(|allowed| allowed == method)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_point_is_found_by_its_path_alone() {
        for &endpoint in Endpoint::ALL {
            assert_eq!(Endpoint::from_path(endpoint.path()), Some(endpoint));
            assert_eq!(Endpoint::from_path(&format!("{}/", endpoint.path())), None);
        }
    }

    #[test]
    fn methods_are_compared_as_a_whole() {
        assert!(Endpoint::Reply.allows("GET") && Endpoint::Reply.allows("POST"));
        for method in ["PUT", "GET POST", "get", ""] {
            assert!(!Endpoint::Reply.allows(method), "{method}");
        }
    }
}
