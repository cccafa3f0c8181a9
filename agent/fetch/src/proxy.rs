//! Which proxy a request goes by.

use hyper::Uri;
use hyper::header::HeaderValue;
use hyper_util::client::proxy::matcher::Matcher;

use crate::{Address, Error};

/// The variables, the lower case ones second, with what curl uses them for.
const VARIABLES: [[&str; 2]; 3] =
    [["HTTP_PROXY", "http_proxy"], ["HTTPS_PROXY", "https_proxy"], ["ALL_PROXY", "all_proxy"]];

/// The proxies of the environment: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, in upper or lower
/// case, as curl reads them. This machine is never asked by one, as in Go's client.
#[derive(Debug)]
pub struct Proxies(Matcher);

/// A proxy, and what it is to be told.
pub(crate) struct Proxy {
    pub(crate) address: Address,
    /// `Proxy-Authorization`.
    pub(crate) credentials: Option<HeaderValue>,
}

// === impl Proxies ===

impl Proxies {
    /// Those of the process's environment.
    ///
    /// # Errors
    /// [`Error::Proxy`] where a variable names what is no proxy, or a kind that is not spoken: going without it
    /// would be a silent surprise.
    pub fn from_environment() -> Result<Self, Error> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// Those of some variables.
    ///
    /// # Errors
    /// As [`Proxies::from_environment`].
    pub fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let any = |names: [&'static str; 2]| {
            let set = names.into_iter().filter_map(|name| Some((name, get(name)?)));
            set.into_iter().find(|(_, value)| !value.trim().is_empty())
        };
        let mut values = [const { String::new() }; 3];
        for (names, slot) in VARIABLES.into_iter().zip(&mut values) {
            if let Some((variable, value)) = any(names) {
                check(variable, &value)?;
                *slot = value;
            }
        }
        let [http, https, all] = values;
        let none = any(["NO_PROXY", "no_proxy"]).map(|(_, value)| value).unwrap_or_default();
        Ok(Self(Matcher::builder().http(http).https(https).all(all).no(none).build()))
    }

    /// The one that a request to this address goes by; `None` when it goes there itself.
    pub(crate) fn of(&self, address: &Address) -> Result<Option<Proxy>, Error> {
        if address.is_loopback() {
            return Ok(None);
        }
        let uri: Uri =
            address.absolute().parse().map_err(|_| Error::Address("it cannot be asked".to_owned()))?;
        let Some(proxy) = self.0.intercept(&uri) else { return Ok(None) };
        let address = Address::parse(&proxy.uri().to_string())?;
        Ok(Some(Proxy { address, credentials: proxy.basic_auth().cloned() }))
    }
}

/// Whether the value names a proxy that can be spoken to.
fn check(variable: &'static str, value: &str) -> Result<(), Error> {
    let refuse = |reason| Err(Error::Proxy { variable, reason });
    let probe = Matcher::builder().all(value.to_owned()).build();
    match probe.intercept(&Uri::from_static("http://example.org/")) {
        None => refuse("it must be an http or https URL"),
        Some(proxy) if proxy.uri().scheme_str().is_some_and(|scheme| scheme.starts_with("socks")) => {
            refuse("SOCKS is not spoken; it must be an http or https URL")
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goes_by(variables: &[(&str, &str)], address: &str) -> Option<String> {
        let get =
            |name: &str| variables.iter().find(|(one, _)| *one == name).map(|(_, value)| (*value).to_owned());
        let proxies = Proxies::from_variables(get).unwrap();
        let proxy = proxies.of(&Address::parse(address).unwrap()).unwrap()?;
        let credentials = proxy.credentials.map(|value| format!(" {}", value.to_str().unwrap()));
        Some(format!("{}{}", proxy.address, credentials.unwrap_or_default()))
    }

    #[test]
    fn which_proxy_is_taken() {
        let all = [
            ("HTTP_PROXY", "http://one:3128"),
            ("https_proxy", "two:3129"),
            ("NO_PROXY", "inside.org, 10.0.0.0/8"),
        ];
        for (address, proxy) in [
            ("http://example.org/", Some("http://one:3128/")),
            ("https://example.org/", Some("http://two:3129/")),
            ("https://www.inside.org/", None),
            ("http://10.1.2.3/", None),
            ("http://11.1.2.3/", Some("http://one:3128/")),
            ("http://localhost/", None),
            ("https://127.0.0.1:8443/", None),
            ("http://[::1]/", None),
        ] {
            assert_eq!(goes_by(&all, address).as_deref(), proxy, "{address}");
        }
        assert_eq!(goes_by(&[], "http://example.org/"), None);
        assert_eq!(goes_by(&[("HTTP_PROXY", " ")], "http://example.org/"), None);
        assert_eq!(goes_by(&[("NO_PROXY", "*"), ("ALL_PROXY", "x:1")], "http://example.org/"), None);
        assert_eq!(
            goes_by(&[("ALL_PROXY", "https://a:b@p")], "http://example.org/").as_deref(),
            Some("https://p/ Basic YTpi")
        );
    }

    #[test]
    fn what_is_no_proxy_is_said() {
        for (value, expected) in [
            ("socks5://p:1080", "SOCKS is not spoken"),
            ("ftp://p", "must be an http or https URL"),
            ("http://a b", "must be an http or https URL"),
        ] {
            let get = |name: &str| (name == "https_proxy").then(|| value.to_owned());
            let error = Proxies::from_variables(get).unwrap_err().to_string();
            assert!(error.contains("https_proxy") && error.contains(expected), "{error}");
        }
    }
}
