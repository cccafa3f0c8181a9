//! The addresses of requests, and where a redirect leads (RFC 3986, section 5).

use coracle_fetch::resolve;

use crate::check::dial;

/// The address of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) https: bool,
    /// `None` is the pod.
    pub(crate) host: Option<String>,
    pub(crate) port: u16,
    /// Host and port as a request names them.
    pub(crate) authority: String,
    /// Path and query, as a request has them.
    pub(crate) target: String,
}

/// Where a redirect leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Redirect {
    /// To the host it came from.
    Same {
        url: Url,
        /// The reference had no host, so that the virtual host stays what it was.
        relative: bool,
    },
    /// To another host, or out of HTTP.
    Other,
}

// === impl Url ===

impl Url {
    /// The address of a path, which may hold a query, on a host.
    pub(crate) fn new(https: bool, host: Option<&str>, port: u16, path: &str) -> Self {
        Self {
            https,
            host: host.map(str::to_owned),
            port,
            authority: dial::join(host, port),
            target: target(path),
        }
    }

    /// The host's name, without brackets.
    pub(crate) fn hostname(&self) -> String {
        match &self.host {
            None => dial::POD.to_string(),
            Some(host) => bare(host).to_owned(),
        }
    }

    /// Where a `Location` leads that a response to a request of this address has.
    pub(crate) fn redirect(&self, location: &str) -> Redirect {
        let location = location.trim();
        let (https, rest) = match scheme(location) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
            Some(_) => return Redirect::Other,
            None => (self.https, location),
        };
        let Some(rest) = rest.strip_prefix("//") else {
            let url = Self { target: target(&resolve(&self.target, location)), ..self.clone() };
            return Redirect::Same { url, relative: true };
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let authority = authority.rsplit('@').next().unwrap_or_default();
        let default = if https { 443 } else { 80 };
        let (name, port) = match authority.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => {
                (name, if port.is_empty() { Ok(default) } else { port.parse() })
            }
            _ => (authority, Ok(default)),
        };
        match port {
            Ok(port) if bare(name) == self.hostname() => Redirect::Same {
                url: Self {
                    https,
                    host: self.host.clone(),
                    port,
                    authority: authority.to_owned(),
                    target: target(path),
                },
                relative: false,
            },
            _ => Redirect::Other,
        }
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.target)
    }
}

/// The scheme of a reference that has one, and what follows its colon.
fn scheme(reference: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = reference.split_once(':')?;
    let mut letters = scheme.bytes();
    let valid = letters.next().is_some_and(|first| first.is_ascii_alphabetic())
        && letters.all(|letter| letter.is_ascii_alphanumeric() || b"+-.".contains(&letter));
    valid.then_some((scheme, rest))
}

fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// A path and query as a request may have them: no fragment, a slash first, and escaped what must be.
fn target(path: &str) -> String {
    let path = path.split('#').next().unwrap_or_default();
    let (path, query) = path.split_at(path.find('?').unwrap_or(path.len()));
    let mut target = String::with_capacity(path.len() + query.len() + 1);
    if !path.starts_with('/') {
        target.push('/');
    }
    escape(path, b"!$&'()*+,;=:@/[]-._~", &mut target);
    escape(query, b"!$&'()*+,;=:@/[]-._~?|^`{}\\", &mut target);
    target
}

/// Appends a text, every byte escaped that is no letter, no digit, not among `plain` and no escape.
fn escape(text: &str, plain: &[u8], into: &mut String) {
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        let escaped =
            || bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        if byte.is_ascii_alphanumeric() || plain.contains(byte) || (*byte == b'%' && escaped()) {
            into.push(char::from(*byte));
        } else {
            into.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_sent_as_written_as_far_as_can_be() {
        for (path, sent) in [
            ("/", "/"),
            ("", "/"),
            ("healthz", "/healthz"),
            ("/healthz?ready=1&x=a b", "/healthz?ready=1&x=a%20b"),
            ("/a b/ü", "/a%20b/%C3%BC"),
            ("/%20%zz%4", "/%20%25zz%254"),
            ("/x#part", "/x"),
            ("/!$&'()*+,;=:@[]-._~", "/!$&'()*+,;=:@[]-._~"),
            ("/a\r\nb", "/a%0D%0Ab"),
            ("?q", "/?q"),
        ] {
            assert_eq!(target(path), sent, "{path}");
        }
    }

    fn leads(location: &str) -> Option<String> {
        match Url::new(false, None, 8080, "/a/b/c?q").redirect(location) {
            Redirect::Same { url, .. } => Some(url.to_string()),
            Redirect::Other => None,
        }
    }

    #[test]
    fn redirects_within_the_host_are_followed() {
        for (location, url) in [
            ("/x", "http://127.0.0.1:8080/x"),
            ("x", "http://127.0.0.1:8080/a/b/x"),
            ("../x?y=../z", "http://127.0.0.1:8080/a/x?y=../z"),
            ("../../../x/.", "http://127.0.0.1:8080/x/"),
            ("/x/./y/..", "http://127.0.0.1:8080/x/"),
            ("?r", "http://127.0.0.1:8080/a/b/c?r"),
            ("", "http://127.0.0.1:8080/a/b/c?q"),
            ("#f", "http://127.0.0.1:8080/a/b/c?q"),
            ("//127.0.0.1/x", "http://127.0.0.1/x"),
            ("http://127.0.0.1:81", "http://127.0.0.1:81/"),
            ("HTTPS://user@127.0.0.1/x?y", "https://127.0.0.1/x?y"),
            (" /trimmed ", "http://127.0.0.1:8080/trimmed"),
            ("/a:b", "http://127.0.0.1:8080/a:b"),
        ] {
            assert_eq!(leads(location).as_deref(), Some(url), "{location}");
        }
    }

    #[test]
    fn redirects_to_other_hosts_are_not() {
        for location in [
            "http://example.org/",
            "//example.org",
            "http://localhost/",
            "http://127.0.0.1.example.org/",
            "http://127.0.0.1@example.org/",
            "http://127.0.0.1:http/",
            "ftp://127.0.0.1/",
            "mailto:someone",
            "http:///x",
        ] {
            assert_eq!(leads(location), None, "{location}");
        }
    }

    #[test]
    fn ports_and_schemes_of_redirects() {
        let url = Url::new(true, Some("::1"), 8443, "/");
        assert_eq!(url.to_string(), "https://[::1]:8443/");
        let to = |location| match url.redirect(location) {
            Redirect::Same { url, relative } => (url.https, url.port, relative),
            Redirect::Other => panic!("{location} leads elsewhere"),
        };
        assert_eq!(to("/x"), (true, 8443, true));
        assert_eq!(to("//[::1]/x"), (true, 443, false));
        assert_eq!(to("http://[::1]:8080"), (false, 8080, false));
        assert_eq!(to("http://[::1]"), (false, 80, false));
    }
}
