//! Refuses requests that a process of the guest makes on behalf of another host, as metadata
//! services do.
//!
//! A web server in the guest that fetches URLs of its users could be used to fetch from this
//! service (server-side request forgery, DNS rebinding). Such a request comes through a proxy,
//! which adds a header, or it has a `Host` of a domain that was pointed to the service's address.

use std::collections::BTreeSet;
use std::net::IpAddr;

use http::{HeaderMap, Uri, header};

/// Headers that proxies add.
const FORWARDING: [&str; 5] =
    ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"];

/// Top-level domains that do not exist on the internet.
const PRIVATE: [&str; 3] = ["internal", "local", "localhost"];

/// Checks a request. The error says why it is not served.
pub(crate) fn check(
    uri: &Uri,
    headers: &HeaderMap,
    known: &BTreeSet<String>,
) -> Result<(), &'static str> {
    if FORWARDING.iter().any(|name| headers.contains_key(*name)) {
        return Err("forwarded requests are not served");
    }
    // The request line may name a host as well, and a forged request may have several `Host`
    // headers.
    let line = uri.authority().map(|authority| Some(authority.as_str()));
    let headers = headers.get_all(header::HOST).into_iter().map(|host| host.to_str().ok());
    let foreign = |host: Option<&str>| !host.is_some_and(|host| is_own(host, known));
    if line.into_iter().chain(headers).any(foreign) {
        return Err("the service is not known by this Host");
    }
    Ok(())
}

fn is_own(host: &str, known: &BTreeSet<String>) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    if name.parse::<IpAddr>().is_ok() {
        return true;
    }
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    match name.rsplit_once('.') {
        None => true,
        Some((_, last)) => PRIVATE.contains(&last) || known.contains(&name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(name: &'static str, value: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        served("/", &headers)
    }

    fn served(uri: &str, headers: &HeaderMap) -> bool {
        let known = BTreeSet::from(["meta.example.org".to_owned()]);
        check(&uri.parse().unwrap(), headers, &known).is_ok()
    }

    #[test]
    fn addresses_and_names_without_a_domain_are_served() {
        for host in [
            "169.254.169.254",
            "127.0.0.1:8080",
            "[::1]:80",
            "metadata",
            "metadata:80",
            "localhost",
            "metadata.internal",
            "a.b.local",
            "META.example.org:81",
            "",
        ] {
            assert!(allowed("host", host), "{host}");
        }
        assert!(served("/", &HeaderMap::new()));
        assert!(served("http://169.254.169.254/", &HeaderMap::new()));
    }

    #[test]
    fn other_names_and_forwarded_requests_are_not() {
        for host in ["evil.example", "169.254.169.254.nip.io", "example.org.", "internal.evil"] {
            assert!(!allowed("host", host), "{host}");
        }
        let mut both = HeaderMap::new();
        both.append("host", "metadata".parse().unwrap());
        assert!(!served("http://evil.example/", &both), "a host in the request line");
        both.append("host", "evil.example".parse().unwrap());
        assert!(!served("/", &both), "a second host");
        for name in FORWARDING {
            assert!(!allowed(name, "1.2.3.4"), "{name}");
        }
    }
}
