//! `staticPodURL` and what belongs to it.

use std::collections::BTreeMap;
use std::time::Duration;

use coracle_fetch::{Address, RequestHeaders};
use coracle_model::go_duration;

use super::Overrides;
use super::problems::{Giver, Problems};

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
        problems: &mut Problems,
    ) -> Option<Self> {
        let from_flags = split(&flags.manifest_url_header).unwrap_or_else(|message| {
            problems.others.push(message);
            Vec::new()
        });
        let (headers, headers_giver) = if from_flags.is_empty() {
            let pairs = file_headers.into_iter().flatten();
            let pairs = pairs.flat_map(|(name, values)| values.into_iter().map(move |it| (name.clone(), it)));
            (pairs.collect(), Giver::field("staticPodURLHeader"))
        } else {
            (from_flags, Giver::Flag("--manifest-url-header"))
        };
        let frequency = match (&flags.http_check_frequency, &file_frequency) {
            (Some(text), _) => frequency(text, &Giver::Flag("--http-check-frequency"), problems),
            (None, Some(text)) => frequency(text, &Giver::field("httpCheckFrequency"), problems),
            (None, None) => FREQUENCY,
        };
        let url = match (&flags.manifest_url, &file_url) {
            (Some(url), _) => Some((url, Giver::Flag("--manifest-url"))),
            (None, Some(url)) => Some((url, Giver::field("staticPodURL"))),
            (None, None) => None,
        };
        // As in the kubelet, the empty one is none.
        let Some((url, url_giver)) = url.filter(|(url, _)| !url.is_empty()) else {
            if let Some((name, _)) = headers.first() {
                let message = "is of no use without a URL (--manifest-url or staticPodURL)";
                problems.invalid(&headers_giver, name, message);
            }
            return None;
        };
        let address = Address::parse(url);
        if let Err(error) = &address {
            problems.invalid(&url_giver, &shown(url), error);
        }
        let pairs = headers.iter().map(|(name, text)| (name.as_str(), text.as_str()));
        let headers = RequestHeaders::new(pairs);
        if let Err(error) = &headers {
            problems.say(&headers_giver, error.to_string());
        }
        Some(Self { address: address.ok()?, headers: headers.ok()?, frequency })
    }
}

/// The kubelet's flag: pairs divided by commas, name and value divided by the first colon.
pub(super) fn split(flags: &[String]) -> Result<Vec<(String, String)>, String> {
    let pairs = flags.iter().flat_map(|flag| flag.split(',')).filter(|pair| !pair.trim().is_empty());
    let pairs = pairs.map(|pair| match pair.split_once(':') {
        Some((name, text)) => Ok((name.trim().to_owned(), text.trim().to_owned())),
        // It may be the value of a secret that has a comma in it.
        None => Err("--manifest-url-header: Invalid value: \"...\": a pair must be NAME:VALUE".to_owned()),
    });
    pairs.collect()
}

/// A URL without what may be secret in it.
pub(super) fn shown(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    if scheme.is_empty() { format!("{host}{path}") } else { format!("{scheme}://{host}{path}") }
}

fn frequency(text: &str, giver: &Giver, problems: &mut Problems) -> Duration {
    let message = match go_duration(text) {
        // As in the kubelet, it stands for the default.
        Some(Duration::ZERO) => return FREQUENCY,
        Some(frequency) if frequency >= MOST_OFTEN => return frequency,
        Some(_) => "must be at least 1s",
        None => "must be a positive duration such as 20s or 1m30s",
    };
    problems.invalid(giver, text, message);
    FREQUENCY
}

#[cfg(test)]
mod tests {
    use super::super::tests;
    use super::*;

    fn load(text: &str, flags: &Overrides) -> Result<Option<ManifestUrl>, String> {
        tests::load(text, flags).map(|config| config.manifest_url)
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
                "staticPodURL: Invalid value: \"ftp://h/p\": must be an absolute http or https URL",
            ),
            ("staticPodURL: me:secret@h\n", "staticPodURL: Invalid value: \"h\": must be"),
            (
                "staticPodURLHeader: {A: [secret]}\n",
                "staticPodURLHeader: Invalid value: \"A\": is of no use without a URL",
            ),
            (
                "staticPodURL: http://h/\nstaticPodURLHeader: {A b: [secret]}\n",
                "staticPodURLHeader: header \"A b\": its name cannot be one",
            ),
            (
                "staticPodURL: http://h/\nhttpCheckFrequency: 10ms\n",
                "httpCheckFrequency: Invalid value: \"10ms\": must be at least 1s",
            ),
            (
                "httpCheckFrequency: '20'\n",
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
