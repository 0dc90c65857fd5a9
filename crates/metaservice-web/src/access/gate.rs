//! Decides by the head of a request whether it comes from the page. It does no I/O.
//!
//! A page of another server must not use this one through the user's browser. Its requests have
//! its own `Origin`, and after DNS rebinding its own name in `Host`.

use std::net::{IpAddr, SocketAddr};

/// What the decision needs of a request.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Head<'a> {
    /// Whether the method is GET or HEAD.
    pub(crate) reads: bool,
    /// Whether it asks for a websocket.
    pub(crate) upgrades: bool,
    /// The headers, each of which must be there at most once.
    pub(crate) host: Header<'a>,
    pub(crate) origin: Header<'a>,
    pub(crate) site: Header<'a>,
    pub(crate) mode: Header<'a>,
}

/// The values of a header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Header<'a> {
    /// It is missing.
    #[default]
    None,
    /// It is there once.
    One(&'a str),
    /// It is there more than once, or it is not text.
    Other,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// `Host` is not the address of this server.
    Host,
    /// `Origin` is not that of this server, or is missing where it must be there.
    Origin,
    /// The browser says that another site asks.
    Site,
}

/// The addresses by which a browser reaches this server.
#[derive(Debug, Clone)]
pub(crate) struct Gate(Vec<Place>);

#[derive(Debug, Clone)]
struct Place {
    /// What an origin begins with.
    scheme: &'static str,
    /// The name with the port, unless that is the usual one.
    host: String,
}

impl Place {
    /// The address of a proxy, if the name is one: it has a scheme.
    fn of_proxy(name: &str) -> Option<Self> {
        let scheme = ["https://", "http://"].into_iter().find(|scheme| name.starts_with(scheme))?;
        Some(Self { scheme, host: name[scheme.len()..].to_owned() })
    }
}

impl Gate {
    /// The gate of a server that listens at this address, and also has these names. A name with a
    /// scheme is the address of a proxy before this server, with its port unless that is usual.
    pub(crate) fn new(address: SocketAddr, names: &[String], is_tls: bool) -> Self {
        let (scheme, usual) = if is_tls { ("https://", 443) } else { ("http://", 80) };
        let is_proxy = |name: &&String| name.contains("://");
        let (proxies, names): (Vec<_>, Vec<_>) = names.iter().partition(is_proxy);
        let mut all: Vec<String> = names.into_iter().cloned().collect();
        // The unspecified address is that of no connection.
        if !address.ip().is_unspecified() {
            all.push(match address.ip() {
                IpAddr::V4(ip) => ip.to_string(),
                IpAddr::V6(ip) => format!("[{ip}]"),
            });
        }
        if address.ip().is_loopback() {
            all.push("localhost".to_owned());
        }
        let mut hosts: Vec<String> =
            all.iter().map(|name| format!("{name}:{}", address.port())).collect();
        // Browsers leave the port out if it is the usual one.
        if address.port() == usual {
            hosts.extend(all);
        }
        let own = hosts.into_iter().map(|host| Place { scheme, host });
        let proxies = proxies.into_iter().filter_map(|name| Place::of_proxy(name));
        Self(own.chain(proxies).collect())
    }

    /// Whether the request may come from the page.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(crate) fn check(&self, head: Head<'_>) -> Result<(), Refusal> {
        let Header::One(host) = head.host else { return Err(Refusal::Host) };
        let own = |place: &&Place| place.host.eq_ignore_ascii_case(host);
        let places: Vec<&Place> = self.0.iter().filter(own).collect();
        if places.is_empty() {
            return Err(Refusal::Host);
        }
        let is_of = |origin: &str, place: &Place| {
            let name = origin.strip_prefix(place.scheme);
            name.is_some_and(|name| name.eq_ignore_ascii_case(host))
        };
        match head.origin {
            // The page of another name of this server is another origin.
            Header::One(origin) if places.iter().any(|place| is_of(origin, place)) => {}
            // A browser sends none when it only reads from the same origin.
            Header::None if head.reads && !head.upgrades => {}
            _ => return Err(Refusal::Origin),
        }
        match (head.site, head.mode) {
            // "none" is a link that the user opened from elsewhere than a page.
            (Header::None | Header::One("same-origin" | "none"), _) => Ok(()),
            // The user follows a link of another page, which leads to the page alone.
            (Header::One(_), Header::One("navigate")) if head.reads && !head.upgrades => Ok(()),
            (Header::One(_) | Header::Other, _) => Err(Refusal::Site),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Header::{None as Missing, One, Other};
    use super::*;

    fn gate() -> Gate {
        Gate::new("127.0.0.1:7878".parse().unwrap(), &[], false)
    }

    fn read<'a>(host: Header<'a>, origin: Header<'a>) -> Head<'a> {
        Head { reads: true, host, origin, ..Head::default() }
    }

    #[test]
    fn only_the_names_of_this_server_are_accepted() {
        for host in ["127.0.0.1:7878", "localhost:7878", "LocalHost:7878"] {
            assert_eq!(gate().check(read(One(host), Missing)), Ok(()), "{host}");
        }
        for host in [
            "",
            "127.0.0.1",
            "localhost",
            "127.0.0.1:80",
            "evil.example:7878",
            "localhost:7878.evil.example",
            "localhost:78789",
            "evil@localhost:7878",
            "[::1]:7878",
            "localhost.:7878",
        ] {
            assert_eq!(gate().check(read(One(host), Missing)), Err(Refusal::Host), "{host}");
        }
        assert_eq!(gate().check(read(Missing, Missing)), Err(Refusal::Host));
        assert_eq!(gate().check(read(Other, Missing)), Err(Refusal::Host));
        let six = Gate::new("[::1]:80".parse().unwrap(), &[], false);
        for host in ["[::1]:80", "[::1]", "localhost", "localhost:80"] {
            assert_eq!(six.check(read(One(host), Missing)), Ok(()), "{host}");
        }
    }

    #[test]
    fn a_server_for_other_hosts_has_the_names_that_it_was_given() {
        let names = ["jobs.example".to_owned()];
        let all = Gate::new("0.0.0.0:443".parse().unwrap(), &names, true);
        for host in ["jobs.example", "jobs.example:443"] {
            assert_eq!(all.check(read(One(host), Missing)), Ok(()), "{host}");
            let own = format!("https://{host}");
            assert_eq!(all.check(read(One(host), One(&own))), Ok(()), "{host}");
            let plain = format!("http://{host}");
            let refused = all.check(read(One(host), One(&plain)));
            assert_eq!(refused, Err(Refusal::Origin), "{host}");
        }
        for host in ["0.0.0.0", "localhost", "0.0.0.0:443", "jobs.example:80"] {
            assert_eq!(all.check(read(One(host), Missing)), Err(Refusal::Host), "{host}");
        }
        let one = Gate::new("192.0.2.7:7878".parse().unwrap(), &[], true);
        assert_eq!(one.check(read(One("192.0.2.7:7878"), Missing)), Ok(()));
        assert_eq!(one.check(read(One("localhost:7878"), Missing)), Err(Refusal::Host));
    }

    #[test]
    fn a_server_behind_a_proxy_has_the_address_of_the_proxy() {
        let names = ["https://jobs.example".to_owned(), "https://[2001:db8::1]:8443".to_owned()];
        let gate = Gate::new("127.0.0.1:7878".parse().unwrap(), &names, false);
        for (host, origin, expected) in [
            ("jobs.example", "https://jobs.example", Ok(())),
            ("[2001:db8::1]:8443", "https://[2001:db8::1]:8443", Ok(())),
            ("127.0.0.1:7878", "http://127.0.0.1:7878", Ok(())),
            ("jobs.example", "http://jobs.example", Err(Refusal::Origin)),
            ("jobs.example", "https://evil.example", Err(Refusal::Origin)),
            ("127.0.0.1:7878", "https://jobs.example", Err(Refusal::Origin)),
            ("127.0.0.1:7878", "https://127.0.0.1:7878", Err(Refusal::Origin)),
            ("jobs.example:7878", "https://jobs.example:7878", Err(Refusal::Host)),
        ] {
            assert_eq!(gate.check(read(One(host), One(origin))), expected, "{host} {origin}");
        }
    }

    #[test]
    fn other_origins_are_refused() {
        let host = One("localhost:7878");
        assert_eq!(gate().check(read(host, One("http://localhost:7878"))), Ok(()));
        for origin in [
            "null",
            "http://localhost",
            "https://localhost:7878",
            "http://127.0.0.1:7878",
            "http://localhost:7879",
            "http://evil.example",
            "http://localhost:7878.evil.example",
            "",
        ] {
            let refused = gate().check(read(host, One(origin)));
            assert_eq!(refused, Err(Refusal::Origin), "{origin}");
        }
        assert_eq!(gate().check(read(host, Other)), Err(Refusal::Origin));
    }

    #[test]
    fn what_changes_something_or_opens_a_websocket_needs_an_origin() {
        let host = One("localhost:7878");
        let write = Head { host, ..Head::default() };
        assert_eq!(gate().check(write), Err(Refusal::Origin));
        let socket = Head { upgrades: true, ..read(host, Missing) };
        assert_eq!(gate().check(socket), Err(Refusal::Origin));
        let origin = One("http://localhost:7878");
        assert_eq!(gate().check(Head { origin, ..write }), Ok(()));
        assert_eq!(gate().check(Head { origin, ..socket }), Ok(()));
    }

    #[test]
    fn what_the_browser_says_about_the_site_counts() {
        let head = read(One("localhost:7878"), Missing);
        for (site, allowed) in
            [("same-origin", true), ("none", true), ("same-site", false), ("cross-site", false)]
        {
            let checked = gate().check(Head { site: One(site), ..head });
            assert_eq!(checked.is_ok(), allowed, "{site}");
        }
        assert_eq!(gate().check(Head { site: Other, ..head }), Err(Refusal::Site));
        let linked = Head { site: One("cross-site"), mode: One("navigate"), ..head };
        assert_eq!(gate().check(linked), Ok(()));
        let origin = One("http://localhost:7878");
        for not_a_link in [
            Head { mode: One("no-cors"), ..linked },
            Head { reads: false, origin, ..linked },
            Head { upgrades: true, origin, ..linked },
        ] {
            assert_eq!(gate().check(not_a_link), Err(Refusal::Site), "{not_a_link:?}");
        }
    }

    proptest! {
        /// Whatever the headers are, what passes has a name of this server, and no other origin.
        #[test]
        fn what_passes_is_from_the_page(
            host in "(localhost|127\\.0\\.0\\.1|[a-z.@:]{0,12})(:7878|:[0-9]{0,3}|)",
            origin in prop::option::of(
                "(http://|https://|)(localhost|127\\.0\\.0\\.1|[a-z.]{0,8})(:7878|)",
            ),
            reads: bool,
            upgrades: bool,
        ) {
            let origin_header = origin.as_deref().map_or(Missing, One);
            let host_header = One(&host);
            let head =
                Head { reads, upgrades, host: host_header, origin: origin_header, ..Head::default() };
            if gate().check(head).is_ok() {
                prop_assert!(["localhost:7878", "127.0.0.1:7878"].contains(&host.as_str()));
                match origin {
                    Some(origin) => prop_assert_eq!(origin, format!("http://{host}")),
                    None => prop_assert!(reads && !upgrades),
                }
            }
        }
    }
}
