//! `hosts.toml`, as [containerd] has it.
//!
//! [containerd]: https://github.com/containerd/containerd/blob/main/docs/hosts.md

use std::path::Path;
use std::time::Duration;

use coracle_fetch::{Address, Identity, RequestHeaders, Trust};
use coracle_model::go_duration;
use hyper::HeaderMap;
use toml_edit::{Array, DocumentMut, Item, TableLike, Value};

use super::{Capabilities, DOCKER_HUB, Scheme};

/// The hosts of a file.
#[derive(Debug)]
pub(crate) struct HostsFile {
    /// In the order of the file; the registry itself last.
    pub(crate) hosts: Vec<Configured>,
    /// What the file says in vain.
    pub(crate) warnings: Vec<String>,
}

/// What a file says of a host.
#[derive(Debug)]
pub(crate) struct Configured {
    /// Where it is; `None` where nothing else is said than the registry's name.
    pub(crate) place: Option<Place>,
    pub(crate) capabilities: Capabilities,
    pub(crate) trust: Trust,
    pub(crate) headers: HeaderMap,
    pub(crate) dial_timeout: Option<Duration>,
}

/// Where a host's API is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) scheme: Scheme,
    /// Host, and port if one is given.
    pub(crate) authority: String,
    /// Without a slash at the end.
    pub(crate) path: String,
}

/// A place in a file, as it is written there, for messages.
#[derive(Clone, Copy)]
struct At<'a>(&'a str);

// === impl HostsFile ===

impl HostsFile {
    /// Reads a file, whose relative paths begin at a directory.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub(crate) fn parse(text: &str, directory: &Path) -> Result<Self, String> {
        let document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| {
            // Not its own message, which shows the line, and with it what a header says.
            let line =
                error.span().map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1));
            format!("line {line}: {}", error.message())
        })?;
        let (mut hosts, mut warnings) = (Vec::new(), Vec::new());
        let root = document.as_table();
        if let Some(item) = root.get("host") {
            let table = item.as_table_like().ok_or("host: must be a table of hosts")?;
            for (url, item) in table.iter() {
                let at = format!("host.{url:?}");
                let table = item.as_table_like().ok_or_else(|| format!("{at}: must be a table"))?;
                hosts.push(Configured::read(Some(url), table, At(&at), directory, &mut warnings)?);
            }
        }
        let server = root.get("server").map(|item| string(item, At("server"))).transpose()?;
        let server = server.filter(|server| !server.is_empty());
        hosts.push(Configured::read(server, root, At(""), directory, &mut warnings)?);
        Ok(Self { hosts, warnings })
    }
}

// === impl Configured ===

impl Configured {
    fn read(
        url: Option<&str>,
        table: &dyn TableLike,
        at: At<'_>,
        directory: &Path,
        warnings: &mut Vec<String>,
    ) -> Result<Self, String> {
        let root = at.0.is_empty();
        let mut capabilities = Capabilities::ALL;
        let mut trust = Trust::default();
        let mut headers = HeaderMap::new();
        let (mut dial_timeout, mut override_path) = (None, false);
        for (key, item) in table.iter() {
            let name = at.key(key);
            let here = At(&name);
            match key {
                "capabilities" => capabilities = read_capabilities(item, here)?,
                "ca" => {
                    trust.roots = strings(item, here)?.into_iter().map(|path| directory.join(path)).collect()
                }
                "client" => trust.identities = identities(item, here, directory)?,
                "skip_verify" => trust.skip_verify = boolean(item, here)?,
                "header" => headers = read_headers(item, here)?,
                "override_path" => override_path = boolean(item, here)?,
                "dial_timeout" => {
                    let text = string(item, here)?;
                    let time = go_duration(text).filter(|time| !time.is_zero());
                    dial_timeout =
                        Some(time.ok_or_else(|| format!("{name}: {text:?} is no duration such as \"3s\""))?);
                }
                "server" | "host" if root => {}
                _ => warnings.push(format!("{name} is not known, and has no effect")),
            }
        }
        let place = url
            .map(|url| Place::read(url, override_path, if root { At("server") } else { at }))
            .transpose()?;
        if place.is_none() && override_path {
            warnings.push("override_path has no effect without a server".to_owned());
        }
        Ok(Self { place, capabilities, trust, headers, dial_timeout })
    }
}

// === impl Place ===

impl Place {
    fn read(url: &str, override_path: bool, at: At<'_>) -> Result<Self, String> {
        let failed = |reason: &str| format!("{}: {reason}", at.0);
        let (scheme, rest) = match url.split_once("://") {
            None => (Scheme::Https, url),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
            Some(_) => return Err(failed("must begin with https:// or http://")),
        };
        if rest.contains(['?', '#', '@']) {
            return Err(failed("must be a host and a path: without a user, a query or a fragment"));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let parts = path.split('/').filter(|part| !part.is_empty());
        let mut path: String = parts.flat_map(|part| ["/", part]).collect();
        if !override_path && !path.ends_with("/v2") {
            path.push_str("/v2");
        }
        let authority = if authority == DOCKER_HUB[0] { DOCKER_HUB[1] } else { authority };
        let scheme_text = if scheme == Scheme::Http { "http" } else { "https" };
        Address::parse(&format!("{scheme_text}://{authority}{path}/"))
            .map_err(|error| failed(&error.to_string()))?;
        Ok(Self { scheme, authority: authority.to_owned(), path })
    }
}

// === impl At ===

impl At<'_> {
    fn key(self, key: &str) -> String {
        if self.0.is_empty() { key.to_owned() } else { format!("{}.{key}", self.0) }
    }
}

fn read_capabilities(item: &Item, at: At<'_>) -> Result<Capabilities, String> {
    let all = array(item, at)?;
    if all.is_empty() {
        return Ok(Capabilities::ALL);
    }
    let mut can = Capabilities { pull: false, resolve: false };
    for one in all {
        match one.as_str() {
            Some("pull") => can.pull = true,
            Some("resolve") => can.resolve = true,
            // Nothing is pushed, and nobody asks what refers to an image.
            Some("push" | "referrers") => {}
            _ => return Err(format!("{}: each must be \"pull\", \"resolve\" or \"push\"", at.0)),
        }
    }
    Ok(can)
}

fn read_headers(item: &Item, at: At<'_>) -> Result<HeaderMap, String> {
    let table = item.as_table_like().ok_or_else(|| format!("{}: must be a table", at.0))?;
    let mut pairs = Vec::new();
    for (name, item) in table.iter() {
        let name_at = at.key(name);
        pairs.extend(strings(item, At(&name_at))?.into_iter().map(|value| (name, value)));
    }
    let mut headers = HeaderMap::new();
    RequestHeaders::new(pairs).map_err(|error| format!("{}: {error}", at.0))?.put_into(&mut headers);
    Ok(headers)
}

/// A file that holds certificate and key; or several, each such a file or a pair of both.
fn identities(item: &Item, at: At<'_>, directory: &Path) -> Result<Vec<Identity>, String> {
    let one = |path: &str| Identity { certificate: directory.join(path), key: None };
    if let Some(path) = item.as_str() {
        return Ok(vec![one(path)]);
    }
    let wrong =
        || format!("{}: must be a file, or an array of files or of pairs of certificate and key", at.0);
    let all = item.as_array().ok_or_else(wrong)?;
    let identity = |value: &Value| {
        if let Some(path) = value.as_str() {
            return Ok(one(path));
        }
        let pair: Vec<_> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        match pair.as_slice() {
            [certificate] => Ok(one(certificate)),
            [certificate, ""] => Ok(one(certificate)),
            [certificate, key] => {
                Ok(Identity { certificate: directory.join(certificate), key: Some(directory.join(key)) })
            }
            _ => Err(wrong()),
        }
    };
    all.iter().map(identity).collect()
}

fn string<'a>(item: &'a Item, at: At<'_>) -> Result<&'a str, String> {
    item.as_str().ok_or_else(|| format!("{}: must be a string", at.0))
}

/// A string, or an array of them.
fn strings<'a>(item: &'a Item, at: At<'_>) -> Result<Vec<&'a str>, String> {
    if let Some(text) = item.as_str() {
        return Ok(vec![text]);
    }
    let wrong = || format!("{}: must be a string or an array of strings", at.0);
    item.as_array().ok_or_else(wrong)?.iter().map(|value| value.as_str().ok_or_else(wrong)).collect()
}

fn array<'a>(item: &'a Item, at: At<'_>) -> Result<&'a Array, String> {
    item.as_array().ok_or_else(|| format!("{}: must be an array", at.0))
}

fn boolean(item: &Item, at: At<'_>) -> Result<bool, String> {
    item.as_bool().ok_or_else(|| format!("{}: must be true or false", at.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> HostsFile {
        HostsFile::parse(text, Path::new("/certs")).unwrap()
    }

    fn places(file: &HostsFile) -> Vec<String> {
        let shown = |one: &Configured| match &one.place {
            Some(Place { scheme, authority, path }) => format!("{scheme:?} {authority} {path}"),
            None => "itself".to_owned(),
        };
        file.hosts.iter().map(shown).collect()
    }

    #[test]
    fn hosts_are_in_the_order_of_the_file() {
        let file = parse(
            r#"
            server = "https://docker.io"
            [host."https://z.example:8443"]
            capabilities = ["pull", "resolve"]
            [host."http://10.0.0.1:5000/mirror/"]
            capabilities = ["pull"]
            [host."a.example/v2"]
            [host."https://b.example/api//own"]
            override_path = true
            [host."https://c.example"]
            override_path = true
            "#,
        );
        assert_eq!(
            places(&file),
            [
                "Https z.example:8443 /v2",
                "Http 10.0.0.1:5000 /mirror/v2",
                "Https a.example /v2",
                "Https b.example /api/own",
                "Https c.example ",
                "Https registry-1.docker.io /v2",
            ]
        );
        let resolve: Vec<_> = file.hosts.iter().map(|host| host.capabilities.resolve).collect();
        assert_eq!(resolve, [true, false, true, true, true, true]);
        assert_eq!(file.warnings, Vec::<String>::new());
        assert_eq!(places(&parse("")), ["itself"]);
        assert_eq!(places(&parse("server = \"\"")), ["itself"]);
        let inline = parse("host = { 'https://b' = { skip_verify = true }, 'https://a' = {} }");
        assert_eq!(places(&inline), ["Https b /v2", "Https a /v2", "itself"]);
        assert!(inline.hosts[0].trust.skip_verify && !inline.hosts[1].trust.skip_verify);
    }

    #[test]
    fn what_belongs_to_a_host() {
        let file = parse(
            r#"
            ca = "own.crt"
            skip_verify = false
            [host."https://a"]
            ca = ["one.crt", "/abs/two.crt"]
            client = [["c.pem", "k.pem"], "both.pem", ["other.pem", ""]]
            dial_timeout = "1m0.5s"
            wait = "x"
            [host."https://a".header]
            x-one = "1"
            x-two = ["2", "3"]
            "#,
        );
        let [first, own] = file.hosts.as_slice() else { panic!("{file:?}") };
        let path = |text: &str| Path::new(text).to_owned();
        assert_eq!(first.trust.roots, [path("/certs/one.crt"), path("/abs/two.crt")]);
        let identity =
            |certificate, key: Option<&str>| Identity { certificate: path(certificate), key: key.map(path) };
        assert_eq!(
            first.trust.identities,
            [
                identity("/certs/c.pem", Some("/certs/k.pem")),
                identity("/certs/both.pem", None),
                identity("/certs/other.pem", None)
            ]
        );
        assert_eq!(first.dial_timeout, Some(Duration::from_millis(60_500)));
        assert_eq!((first.headers["x-one"].as_bytes(), first.headers.len()), (&b"1"[..], 3));
        assert_eq!(own.trust, Trust { roots: vec![path("/certs/own.crt")], ..Trust::default() });
        assert_eq!(file.warnings, ["host.\"https://a\".wait is not known, and has no effect"]);
    }

    #[test]
    fn what_is_wrong_is_said_without_showing_it() {
        for (text, expected) in [
            ("x = = 'secret'", "line 1: "),
            ("\n\nx = 'secret", "line 3: "),
            ("server = 1", "server: must be a string"),
            ("server = 'ftp://x'", "server: must begin with https:// or http://"),
            ("server = 'https://'", "server: must be an absolute http or https URL"),
            ("server = 'https://u:secret@x'", "server: must be a host and a path"),
            ("host = 1", "host: must be a table of hosts"),
            ("[host]\na = 1", "host.\"a\": must be a table"),
            (
                "[host.'https://a']\ncapabilities = 'pull'",
                "host.\"https://a\".capabilities: must be an array",
            ),
            ("[host.'https://a']\ncapabilities = ['fly']", "capabilities: each must be"),
            ("[host.'https://a']\nca = 1", "ca: must be a string or an array"),
            ("[host.'https://a']\nclient = [['a','b','c']]", "client: must be a file, or"),
            ("[host.'https://a']\nskip_verify = 'yes'", "skip_verify: must be true or false"),
            ("[host.'https://a']\ndial_timeout = '0s'", "dial_timeout: \"0s\" is no duration"),
            ("[host.'https://a'.header]\nhost = 'secret'", "header: header \"host\""),
            ("[host.'https://a'.header]\nx = \"secret\\n\"", "header: header \"x\""),
        ] {
            let error = HostsFile::parse(text, Path::new("/")).unwrap_err();
            assert!(error.contains(expected) && !error.contains("secret"), "{text}: {error}");
        }
    }
}
