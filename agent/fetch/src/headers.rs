//! What requests carry by the user's wish.

use hyper::HeaderMap;
use hyper::header::{self, HeaderName, HeaderValue};

use crate::Error;

/// What the request itself must say, or what the answer could not be understood with.
const OWN: [HeaderName; 15] = [
    header::ACCEPT_ENCODING,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::HOST,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::PROXY_AUTHORIZATION,
    header::RANGE,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// A `User-Agent`.
pub(crate) fn user_agent_of(text: &str) -> Result<HeaderValue, Error> {
    let refuse = |_| Error::Header { name: "user-agent".to_owned(), reason: "its value cannot be one" };
    HeaderValue::from_str(text).map_err(refuse)
}

/// Headers for requests to one origin. `Debug` shows names alone.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RequestHeaders(HeaderMap);

// === impl RequestHeaders ===

impl RequestHeaders {
    /// Headers of these names and values; of one name, all are sent in this order.
    ///
    /// # Errors
    /// [`Error::Header`], which shows no value.
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, Error> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let refuse = |reason| Error::Header { name: name.to_owned(), reason };
            let key =
                HeaderName::from_bytes(name.as_bytes()).map_err(|_| refuse("its name cannot be one"))?;
            if OWN.contains(&key) {
                return Err(refuse("is none that can be chosen: the request says it itself"));
            }
            let mut value = HeaderValue::from_str(value).map_err(|_| refuse("its value cannot be one"))?;
            value.set_sensitive(true);
            headers.append(key, value);
        }
        Ok(Self(headers))
    }

    /// Adds them to a request, in the place of what it has under their names.
    pub fn put_into(&self, request: &mut HeaderMap) {
        for name in self.0.keys() {
            request.remove(name);
        }
        for (name, value) in &self.0 {
            request.append(name, value.clone());
        }
    }
}

impl std::fmt::Debug for RequestHeaders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_one_name_are_sent_in_order() {
        let headers = RequestHeaders::new([("X-Token", "a"), ("accept", "one"), ("x-token", "b")]).unwrap();
        let mut request = HeaderMap::new();
        request.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        headers.put_into(&mut request);
        let all = |name: &str| -> Vec<&str> {
            request.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
        };
        assert_eq!((all("accept"), all("x-token")), (vec!["one"], vec!["a", "b"]));
    }

    #[test]
    fn what_cannot_be_sent_is_refused_and_no_value_is_shown() {
        for (name, value) in [
            ("a b", "secret"),
            ("", "secret"),
            ("a", "secret\r\nb: c"),
            ("Host", "secret"),
            ("if-none-match", "secret"),
        ] {
            let error = RequestHeaders::new([(name, value)]).unwrap_err().to_string();
            assert!(error.contains(&format!("{name:?}")) && !error.contains("secret"), "{error}");
        }
        let headers = RequestHeaders::new([("authorization", "secret")]).unwrap();
        assert!(!format!("{headers:?}").contains("secret"), "{headers:?}");
    }
}
