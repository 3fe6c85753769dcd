//! Whether a request is for this relay (`tls.domains`).
//!
//! The host that a request asks for stands in its `Host` header, and also in its target if that is a whole URL
//! (RFC 9112 § 3.2). All of it must be of a name that is served; the port does not matter.

use hyper::Request;
use hyper::header;
use hyper::http::uri::Authority;

use crate::tls::Domains;

/// Whether what a request asks for is one of `domains`.
#[must_use]
pub fn is_meant<B>(request: &Request<B>, domains: &Domains) -> bool {
    let mut named = request.headers().get_all(header::HOST).iter();
    let (Some(host), None) = (named.next(), named.next()) else { return false };
    let Ok(host) = Authority::try_from(host.as_bytes()) else { return false };
    is_one(&host, domains) && request.uri().authority().is_none_or(|target| is_one(target, domains))
}

fn is_one(authority: &Authority, domains: &Domains) -> bool {
    let (host, whole) = (authority.host(), authority.as_str());
    // A user's name has no place in a Host header, nor has a port that is none.
    let port = whole.strip_prefix(host).map(|rest| rest.strip_prefix(':').unwrap_or(rest));
    port.is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit())) && domains.have(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(target: &str, hosts: &[&[u8]]) -> bool {
        let domains = Domains::new(&["relay.example.com".to_owned(), "b.example".to_owned()]);
        let mut request = Request::builder().uri(target);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        is_meant(&request.body(()).unwrap(), &domains)
    }

    #[test]
    fn the_host_is_one_of_the_names_whatever_its_port_and_case() {
        for host in
            ["relay.example.com", "RELAY.example.COM:443", "b.example:8443", "b.example.:1", "b.example:"]
        {
            assert!(meant("/healthz", &[host.as_bytes()]), "{host}");
        }
        for host in
            ["", "example.com", "relay.example.com.evil.example", "b.example:x", "b.example/", "x@b.example"]
        {
            assert!(!meant("/healthz", &[host.as_bytes()]), "{host}");
        }
        assert!(!meant("/healthz", &[]));
        assert!(!meant("/healthz", &[b"b.example", b"b.example"]));
        assert!(!meant("/healthz", &[b"b.example\xff"]));
        assert!(!meant("/healthz", &[b"127.0.0.1"]));
    }

    #[test]
    fn a_target_that_is_a_url_counts_too() {
        assert!(meant("https://relay.example.com/healthz", &[b"relay.example.com"]));
        assert!(!meant("https://other.example/healthz", &[b"relay.example.com"]));
        assert!(!meant("https://relay.example.com/healthz", &[b"other.example"]));
    }
}
