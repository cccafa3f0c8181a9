//! `staticPodURL` and what belongs to it.

use std::collections::BTreeMap;
use std::time::Duration;

use coracle_fetch::{Address, RequestHeaders};
use coracle_model::go_duration;

use super::{ConfigError, Overrides, value};

/// The kubelet's default of `httpCheckFrequency`.
const FREQUENCY: Duration = Duration::from_secs(20);
/// Asking more often would keep the node busy.
const MOST_OFTEN: Duration = Duration::from_secs(1);

/// Where manifests are served, and how they are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ManifestUrl {
    /// `staticPodURL`.
    pub(crate) address: Address,
    /// `staticPodURLHeader`.
    pub(crate) headers: RequestHeaders,
    /// `httpCheckFrequency`.
    pub(crate) frequency: Duration,
}

// === impl ManifestUrl ===

impl ManifestUrl {
    /// What flags, and else the file, say of it.
    pub(super) fn combine(
        flags: &Overrides,
        file_url: Option<String>,
        file_headers: Option<BTreeMap<String, Vec<String>>>,
        file_frequency: Option<String>,
        origin: impl Fn(&str) -> String,
    ) -> Result<Option<Self>, ConfigError> {
        let from_flags = split(&flags.manifest_url_header)?;
        let (headers, headers_origin) = if from_flags.is_empty() {
            let pairs = file_headers.into_iter().flatten();
            let pairs = pairs.flat_map(|(name, values)| values.into_iter().map(move |it| (name.clone(), it)));
            (pairs.collect(), origin("staticPodURLHeader"))
        } else {
            (from_flags, "--manifest-url-header".to_owned())
        };
        let frequency = match (&flags.http_check_frequency, &file_frequency) {
            (Some(text), _) => frequency(text, "--http-check-frequency".to_owned())?,
            (None, Some(text)) => frequency(text, origin("httpCheckFrequency"))?,
            (None, None) => FREQUENCY,
        };
        let url = match (&flags.manifest_url, &file_url) {
            (Some(url), _) => Some((url, "--manifest-url".to_owned())),
            (None, Some(url)) => Some((url, origin("staticPodURL"))),
            (None, None) => None,
        };
        // As in the kubelet, the empty one is none.
        let Some((url, url_origin)) = url.filter(|(url, _)| !url.is_empty()) else {
            return match headers.first() {
                Some((name, _)) => Err(value(
                    headers_origin,
                    name,
                    "is of no use without a URL (--manifest-url or staticPodURL)",
                )),
                None => Ok(None),
            };
        };
        let address =
            Address::parse(url).map_err(|error| value(url_origin, shown(url), &error.to_string()))?;
        let pairs = headers.iter().map(|(name, text)| (name.as_str(), text.as_str()));
        let headers =
            RequestHeaders::new(pairs).map_err(|error| ConfigError::Header(headers_origin, error))?;
        Ok(Some(Self { address, headers, frequency }))
    }
}

/// The kubelet's flag: pairs divided by commas, name and value divided by the first colon.
fn split(flags: &[String]) -> Result<Vec<(String, String)>, ConfigError> {
    let pairs = flags.iter().flat_map(|flag| flag.split(',')).filter(|pair| !pair.trim().is_empty());
    let pairs = pairs.map(|pair| match pair.split_once(':') {
        Some((name, text)) => Ok((name.trim().to_owned(), text.trim().to_owned())),
        // It may be the value of a secret that has a comma in it.
        None => Err(value("--manifest-url-header".to_owned(), "...", "a pair must be NAME:VALUE")),
    });
    pairs.collect()
}

/// A URL without what may be secret in it.
fn shown(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    if scheme.is_empty() { format!("{host}{path}") } else { format!("{scheme}://{host}{path}") }
}

fn frequency(text: &str, origin: String) -> Result<Duration, ConfigError> {
    match go_duration(text) {
        // As in the kubelet, it stands for the default.
        Some(Duration::ZERO) => Ok(FREQUENCY),
        Some(frequency) if frequency >= MOST_OFTEN => Ok(frequency),
        Some(_) => Err(value(origin, text, "must be at least 1s")),
        None => Err(value(origin, text, "must be a positive duration such as 20s or 1m30s")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Config, parse};
    use super::*;

    fn load(text: &str, flags: &Overrides) -> Result<Option<ManifestUrl>, String> {
        let path = Path::new("/etc/c.yaml");
        let config = parse(path, text).and_then(|file| Config::combine(path, file, flags));
        config.map(|config| config.manifest_url).map_err(|error| error.to_string())
    }

    fn expected(url: &str, headers: &[(&str, &str)], frequency: u64) -> ManifestUrl {
        ManifestUrl {
            address: Address::parse(url).unwrap(),
            headers: RequestHeaders::new(headers.iter().copied()).unwrap(),
            frequency: Duration::from_secs(frequency),
        }
    }

    #[test]
    fn the_kubelets_fields_and_flags() {
        let text = "staticPodURL: https://h/pods\nstaticPodURLHeader: {X-A: [one, two], X-B: ['1,2']}\n\
                    httpCheckFrequency: 1m30s\n";
        let from_file = expected("https://h/pods", &[("X-A", "one"), ("X-A", "two"), ("X-B", "1,2")], 90);
        assert_eq!(load(text, &Overrides::default()), Ok(Some(from_file)));
        let flags = Overrides {
            manifest_url: Some("http://other/".to_owned()),
            manifest_url_header: vec!["a:hello,b: again:x ".to_owned(), "b:beautiful".to_owned()],
            http_check_frequency: Some("5s".to_owned()),
            ..Overrides::default()
        };
        let from_flags =
            expected("http://other/", &[("a", "hello"), ("b", "again:x"), ("b", "beautiful")], 5);
        assert_eq!(load(text, &flags), Ok(Some(from_flags)));
        let defaults = expected("http://h/", &[], 20);
        assert_eq!(load("staticPodURL: http://h/\n", &Overrides::default()), Ok(Some(defaults.clone())));
        let zero = "staticPodURL: http://h/\nhttpCheckFrequency: '0'\n";
        assert_eq!(load(zero, &Overrides::default()), Ok(Some(defaults)));
        assert_eq!(load("staticPodURL: ''\n", &Overrides::default()), Ok(None));
    }

    #[test]
    fn errors_say_where_and_show_no_secret() {
        for (text, expected) in [
            (
                "staticPodURL: ftp://me:secret@h/p?secret\n",
                "/etc/c.yaml: staticPodURL: Invalid value: \"ftp://h/p\": must be an absolute http or https URL",
            ),
            ("staticPodURL: me:secret@h\n", "staticPodURL: Invalid value: \"h\": must be"),
            (
                "staticPodURLHeader: {A: [secret]}\n",
                "/etc/c.yaml: staticPodURLHeader: Invalid value: \"A\": is of no use without a URL",
            ),
            (
                "staticPodURL: http://h/\nstaticPodURLHeader: {A b: [secret]}\n",
                "/etc/c.yaml: staticPodURLHeader: header \"A b\": its name cannot be one",
            ),
            (
                "staticPodURL: http://h/\nhttpCheckFrequency: 10ms\n",
                "/etc/c.yaml: httpCheckFrequency: Invalid value: \"10ms\": must be at least 1s",
            ),
            (
                "httpCheckFrequency: 20\n",
                "httpCheckFrequency: Invalid value: \"20\": must be a positive duration",
            ),
            ("httpCheckFrequency: -20s\n", "must be a positive duration"),
        ] {
            let error = load(text, &Overrides::default()).unwrap_err();
            assert!(error.contains(expected) && !error.contains("secret"), "{text:?} gave {error:?}");
        }
        let flags = Overrides { manifest_url_header: vec!["a:b,secret".to_owned()], ..Overrides::default() };
        let error = load("staticPodURL: http://h/\n", &flags).unwrap_err();
        assert!(error.contains("--manifest-url-header") && !error.contains("secret"), "{error}");
    }
}
