//! Requests as the kubelet makes them.

use http_body_util::Empty;
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::url::Url;
use crate::KUBERNETES_VERSION;
use crate::error::Error;

/// The headers of a probe's requests.
pub(super) struct Headers {
    /// The virtual host, when the specification names one.
    host: Option<HeaderValue>,
    all: HeaderMap,
}

/// What the connection decides, not the specification; Go's client, too, takes no notice of them there.
const NOT_SENT: &[HeaderName] = &[
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TRAILER,
    header::TE,
    header::UPGRADE,
];

// === impl Headers ===

impl Headers {
    /// The specification's headers as written, and the two the kubelet adds: `User-Agent` and `Accept`. An
    /// empty value of these leaves them out.
    pub(super) fn new(specified: &[(String, String)], purpose: &str) -> Result<Self, Error> {
        let mut all = HeaderMap::with_capacity(specified.len() + 3);
        for (name, value) in specified {
            let invalid = || Error::Header(name.clone());
            let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| invalid())?;
            all.append(HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid())?, value);
        }
        let agent = || HeaderValue::from_str(&format!("kube-{purpose}/{KUBERNETES_VERSION}"));
        if !all.contains_key(header::USER_AGENT) {
            all.insert(header::USER_AGENT, agent().map_err(|_| Error::Header("User-Agent".to_owned()))?);
        }
        if !all.contains_key(header::ACCEPT) {
            all.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        }
        for name in [header::USER_AGENT, header::ACCEPT] {
            if all.get(&name).is_some_and(HeaderValue::is_empty) {
                all.remove(&name);
            }
        }
        for name in NOT_SENT {
            all.remove(name);
        }
        let host = all.remove(header::HOST).filter(|host| !host.is_empty());
        Ok(Self { host, all })
    }

    /// The next request goes to where a URL says: the virtual host named before is left.
    pub(super) fn forget_host(&mut self) {
        self.host = None;
    }
}

/// The request of an address, on a connection for it alone.
pub(super) fn request(url: &Url, headers: &Headers, http2: bool) -> Result<Request<Empty<Bytes>>, Error> {
    let unusable = |source| Error::Url { url: url.to_string(), source };
    let host = match &headers.host {
        Some(host) => host.clone(),
        None => HeaderValue::from_str(&url.authority).map_err(|error| unusable(error.into()))?,
    };
    let mut all = HeaderMap::with_capacity(headers.all.len() + 2);
    let builder = if http2 {
        let authority = host.to_str().map_err(|_| Error::Header("Host".to_owned()))?;
        Request::get(format!("https://{authority}{}", url.target))
    } else {
        all.insert(header::HOST, host);
        all.insert(header::CONNECTION, HeaderValue::from_static("close"));
        Request::get(url.target.as_str())
    };
    all.extend(headers.all.iter().map(|(name, value)| (name.clone(), value.clone())));
    let mut request = builder.body(Empty::new()).map_err(unusable)?;
    *request.headers_mut() = all;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(specified: &[(&str, &str)]) -> Vec<(String, String)> {
        let specified: Vec<_> =
            specified.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let headers = Headers::new(&specified, "probe").unwrap();
        let request = request(&Url::new(false, None, 80, "/x?y"), &headers, false).unwrap();
        assert_eq!(request.uri().to_string(), "/x?y");
        let pairs = request.headers().iter().map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        });
        let mut pairs: Vec<_> = pairs.collect();
        pairs.sort();
        pairs
    }

    #[track_caller]
    fn assert_sent(specified: &[(&str, &str)], expected: &[(&str, &str)]) {
        let expected: Vec<_> =
            expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(sent(specified), expected);
    }

    #[test]
    fn defaults_are_the_kubelets() {
        assert_sent(
            &[],
            &[
                ("accept", "*/*"),
                ("connection", "close"),
                ("host", "127.0.0.1:80"),
                ("user-agent", "kube-probe/1.37"),
            ],
        );
    }

    #[test]
    fn the_specification_overrides_them() {
        assert_sent(
            &[
                ("Host", "example.org"),
                ("User-Agent", "mine"),
                ("accept", ""),
                ("X-Twice", "1"),
                ("X-Twice", "2"),
                ("Content-Length", "7"),
                ("Connection", "keep-alive"),
                ("X-Text", "ü"),
            ],
            &[
                ("connection", "close"),
                ("host", "example.org"),
                ("user-agent", "mine"),
                ("x-text", "ü"),
                ("x-twice", "1"),
                ("x-twice", "2"),
            ],
        );
    }

    #[test]
    fn what_cannot_be_a_header_is_an_error() {
        for (name, value) in [("A B", "x"), ("A", "x\r\nB: y"), ("", "x")] {
            assert!(Headers::new(&[(name.to_owned(), value.to_owned())], "probe").is_err(), "{name}");
        }
    }
}
