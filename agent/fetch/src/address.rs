//! Addresses, and where a redirect leads from one (RFC 3986, section 5).

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::Uri;
use hyper::header::HeaderValue;
use percent_encoding::percent_decode_str;

use crate::Error;
use crate::reference::resolve;

/// An absolute `http` or `https` URL.
///
/// Shown without user, password and query: those may be secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    https: bool,
    /// In lower case; an IPv6 address without brackets.
    host: String,
    port: u16,
    /// Path and query, as a request has them.
    target: String,
    /// `Authorization`, of the user and password before the host.
    credentials: Option<HeaderValue>,
}

// === impl Address ===

impl Address {
    /// Reads a URL. A fragment is left away.
    ///
    /// # Errors
    /// [`Error::Address`], whose message does not repeat the URL.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let invalid = |reason: &str| Error::Address(reason.to_owned());
        // The scheme first: of `host:80/path` the parser would make an authority.
        let https = match text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase()).as_deref() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(invalid("it begins with neither http:// nor https://")),
        };
        let uri: Uri =
            text.parse().map_err(|error: hyper::http::uri::InvalidUri| invalid(&error.to_string()))?;
        let authority = uri.authority().ok_or_else(|| invalid("it has no host"))?;
        let host = uri.host().unwrap_or_default().to_ascii_lowercase();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
        if host.is_empty() {
            return Err(invalid("it has no host"));
        }
        let rest = authority.as_str().rsplit('@').next().unwrap_or_default();
        let port = match (uri.port_u16(), rest.rsplit_once(':')) {
            (Some(0), _) => return Err(invalid("port 0 is none")),
            (Some(port), _) => port,
            (None, Some((_, port))) if !port.is_empty() && !port.ends_with(']') => {
                return Err(invalid("its port is none"));
            }
            (None, _) => default_port(https),
        };
        let credentials = authority.as_str().rsplit_once('@').map(|(user, _)| basic(user)).transpose()?;
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Ok(Self { https, host: host.to_owned(), port, target, credentials })
    }

    /// Whether it is asked by HTTPS.
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// Whether nobody but this machine can be meant.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
    }

    /// The host, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn credentials(&self) -> Option<&HeaderValue> {
        self.credentials.as_ref()
    }

    /// Path and query, which may be secret.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Host and port as a request names them: the port only if it is not the scheme's.
    pub fn authority(&self) -> String {
        match self.port == default_port(self.https) {
            true => self.bracketed(),
            false => self.host_and_port(),
        }
    }

    /// Host and port, always.
    pub(crate) fn host_and_port(&self) -> String {
        format!("{}:{}", self.bracketed(), self.port)
    }

    /// Everything but user and password, for a proxy.
    pub(crate) fn absolute(&self) -> String {
        format!("{}{}", self.origin(), self.target)
    }

    /// Whether what may be told to one may be told to the other (RFC 6454).
    pub fn same_origin(&self, other: &Self) -> bool {
        (self.https, &self.host, self.port) == (other.https, &other.host, other.port)
    }

    /// Whether both name the same thing, whoever asks.
    pub(crate) fn same_resource(&self, other: &Self) -> bool {
        self.same_origin(other) && self.target == other.target
    }

    /// Where a `Location` leads that this address has answered with. A user and password in it are left away: they
    /// are the server's, not the user's.
    ///
    /// # Errors
    /// Why it is not followed, after "is redirected": it leads from https to http, or nowhere.
    pub fn redirect(&self, location: &str) -> Result<Self, String> {
        let reference = location.trim();
        let reference = reference.split('#').next().unwrap_or_default();
        let to = if has_scheme(reference) {
            Self::parse(reference)
        } else if reference.starts_with("//") {
            Self::parse(&format!("{}:{reference}", self.scheme()))
        } else {
            Self::parse(&format!("{}{}", self.origin(), resolve(&self.target, reference)))
        };
        let to = to.map_err(|error| format!("but not to where one can be: {error}"))?;
        if self.https && !to.https {
            // Whoever is on the way could say what is to run.
            return Err(format!("from https to http ({to}), which is not followed"));
        }
        Ok(Self { credentials: None, ..to })
    }

    fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }

    /// Scheme and authority.
    pub fn origin(&self) -> String {
        format!("{}://{}", self.scheme(), self.authority())
    }

    fn bracketed(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.target.split('?').next().unwrap_or_default();
        write!(f, "{}{path}", self.origin())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn default_port(https: bool) -> u16 {
    if https { 443 } else { 80 }
}

/// RFC 7617 of a URL's user and password, as Go's client and curl make it.
fn basic(user: &str) -> Result<HeaderValue, Error> {
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let mut pair: Vec<u8> = percent_decode_str(user).collect();
    pair.push(b':');
    pair.extend(percent_decode_str(password));
    let text = format!("Basic {}", BASE64_STANDARD.encode(pair));
    let mut value = HeaderValue::from_str(&text)
        .map_err(|error| Error::Address(format!("user and password: {error}")))?;
    value.set_sensitive(true);
    Ok(value)
}

fn has_scheme(reference: &str) -> bool {
    let Some((scheme, _)) = reference.split_once(':') else { return false };
    let mut letters = scheme.bytes();
    letters.next().is_some_and(|first| first.is_ascii_alphabetic())
        && letters.all(|letter| letter.is_ascii_alphanumeric() || b"+-.".contains(&letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_and_what_is_shown() {
        for (text, shown, authority, target) in [
            ("http://example.org", "http://example.org/", "example.org", "/"),
            ("HTTPS://Example.ORG:443/a?b=c#d", "https://example.org/a", "example.org", "/a?b=c"),
            ("https://me:pw@h:8443/p?token=x", "https://h:8443/p", "h:8443", "/p?token=x"),
            ("http://[::1]:8080?x", "http://[::1]:8080/", "[::1]:8080", "/?x"),
            ("http://h:/", "http://h/", "h", "/"),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!((address.to_string().as_str(), format!("{address:?}").as_str()), (shown, shown));
            assert_eq!((address.authority().as_str(), address.target()), (authority, target), "{text}");
        }
        let credentials = |text: &str| {
            let value = Address::parse(text).unwrap().credentials?;
            Some(value.to_str().unwrap().to_owned())
        };
        assert_eq!(credentials("http://a:b%40c@h/").as_deref(), Some("Basic YTpiQGM="));
        assert_eq!(credentials("http://a@h/").as_deref(), Some("Basic YTo="));
        assert_eq!(credentials("http://h/@"), None);
    }

    #[test]
    fn what_is_no_address() {
        for text in [
            "",
            "example.org",
            "/pods",
            "ftp://example.org",
            "file:///etc/passwd",
            "example.org:80/x",
            "http://",
            "http:///x",
            "http://h:0/",
            "http://h:99999/",
            "http://h:x/",
            "http://a b/",
            "http://h/\r\nX: y",
            "http://user:secret@/x",
        ] {
            let error = Address::parse(text).unwrap_err().to_string();
            assert!(error.starts_with("must be an absolute http or https URL: "), "{text}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn this_machine() {
        for (host, expected) in [
            ("localhost", true),
            ("127.8.9.10", true),
            ("[::1]", true),
            ("[::ffff:127.0.0.1]", true),
            ("localhost.example.org", false),
            ("169.254.169.254", false),
        ] {
            assert_eq!(Address::parse(&format!("http://{host}/")).unwrap().is_loopback(), expected, "{host}");
        }
    }

    fn leads(from: &str, location: &str) -> Option<String> {
        let to = Address::parse(from).unwrap().redirect(location).ok()?;
        assert_eq!(to.credentials, None);
        Some(to.absolute())
    }

    #[test]
    fn where_redirects_lead() {
        for (location, url) in [
            ("/x", "http://h:8080/x"),
            ("x", "http://h:8080/a/b/x"),
            ("../x?y=../z", "http://h:8080/a/x?y=../z"),
            ("../../../x/.", "http://h:8080/x/"),
            ("/x/./y/..", "http://h:8080/x/"),
            ("?r", "http://h:8080/a/b/c?r"),
            ("", "http://h:8080/a/b/c?q"),
            ("#f", "http://h:8080/a/b/c?q"),
            ("//other/x", "http://other/x"),
            ("https://user:pw@other:444/x?y", "https://other:444/x?y"),
            (" /trimmed ", "http://h:8080/trimmed"),
            ("/a:b", "http://h:8080/a:b"),
        ] {
            assert_eq!(leads("http://me:pw@h:8080/a/b/c?q", location).as_deref(), Some(url), "{location}");
        }
        for location in ["ftp://h/", "mailto:someone", "http:///x", "http://h:http/", "/a b"] {
            assert_eq!(leads("http://h/", location), None, "{location}");
        }
        assert_eq!(leads("https://h/", "http://h/"), None, "less safe than what was asked for");
        assert_eq!(leads("https://h/", "//other/").as_deref(), Some("https://other/"));
    }

    #[test]
    fn origins() {
        let address = |text: &str| Address::parse(text).unwrap();
        for (one, other, expected) in [
            ("http://h/", "http://h:80/x?y", true),
            ("http://h/", "https://h/", false),
            ("http://h/", "http://h:81/", false),
            ("http://h/", "http://sub.h/", false),
        ] {
            assert_eq!(address(one).same_origin(&address(other)), expected, "{one} {other}");
        }
    }
}
