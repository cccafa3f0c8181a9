//! Image names, in Docker's grammar and with Docker's defaults.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// A fully spelled out image name: `nginx` is `docker.io/library/nginx:latest`.
///
/// Where a name has both a tag and a digest, the digest decides which image is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageName {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// The text is not an image name. The wording is the kubelet's, whose reason is `InvalidImageName`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("couldn't parse image name {text:?}: {problem}")]
pub struct InvalidImageName {
    text: String,
    problem: &'static str,
}

const FORMAT: &str = "invalid reference format";
const UPPER_CASE: &str = "invalid reference format: repository name must be lowercase";
const TOO_LONG: &str = "repository name must not be more than 255 characters";
const HEXADECIMAL: &str =
    "invalid repository name: cannot be 64 hexadecimal characters, which would be an image's identifier";
const DIGEST: &str = "invalid digest: only sha256 digests of 64 lower-case hexadecimal digits are supported";

const DEFAULT_DOMAIN: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";

// === impl ImageName ===

impl ImageName {
    /// The registry's host, with its port.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag; `None` when only a digest was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The manifest's digest.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// `domain/path`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The same repository, by the manifest's digest.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// What the store files the name under: without the tag where a digest decides.
    pub fn key(&self) -> Self {
        match self.digest {
            Some(digest) => self.with_digest(digest),
            None => self.clone(),
        }
    }

    /// The short form people write: without Docker Hub's prefix.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let short = full.strip_prefix("docker.io/").unwrap_or(&full);
        short.strip_prefix("library/").unwrap_or(short).to_owned()
    }
}

impl FromStr for ImageName {
    type Err = InvalidImageName;

    fn from_str(text: &str) -> Result<Self, InvalidImageName> {
        let invalid = |problem| InvalidImageName { text: text.chars().take(300).collect(), problem };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|_| invalid(DIGEST))?)),
            None => (text, None),
        };
        // A colon after the last slash begins a tag; one before it is a port.
        let (repository, tag) = match rest.rfind(':').filter(|colon| !rest[*colon..].contains('/')) {
            Some(colon) => (&rest[..colon], Some(&rest[colon + 1..])),
            None => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(invalid(FORMAT));
        }
        let is_domain = |first: &str| {
            first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase())
        };
        let (domain, path) = match repository.split_once('/') {
            Some((first, path)) if is_domain(first) => (first, path.to_owned()),
            Some(_) => (DEFAULT_DOMAIN, repository.to_owned()),
            None => (DEFAULT_DOMAIN, format!("library/{repository}")),
        };
        let domain = if domain == "index.docker.io" { DEFAULT_DOMAIN } else { domain };
        let path =
            if domain == DEFAULT_DOMAIN && !path.contains('/') { format!("library/{path}") } else { path };
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(invalid(UPPER_CASE));
        }
        if !is_domain_text(domain) || !path.split('/').all(is_path_component) {
            return Err(invalid(FORMAT));
        }
        if domain.len() + 1 + path.len() > 255 {
            return Err(invalid(TOO_LONG));
        }
        if !text.contains('/') && repository.len() == 64 && repository.bytes().all(|b| b.is_ascii_hexdigit())
        {
            return Err(invalid(HEXADECIMAL));
        }
        let tag = match (tag, digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some(DEFAULT_TAG.to_owned()),
        };
        Ok(Self { domain: domain.to_owned(), path, tag, digest })
    }
}

/// `[\w][\w.-]{0,127}`
fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = tag.as_bytes();
    (1..=128).contains(&bytes.len())
        && word(bytes[0])
        && bytes.iter().all(|&b| word(b) || matches!(b, b'.' | b'-'))
}

/// Lower-case letters and digits, separated by one `.`, one or two `_`, or any number of `-`.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    alphanumeric(first)
        && alphanumeric(last)
        && bytes.split(|b| alphanumeric(*b)).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-')
        })
}

/// A host name or a bracketed IPv6 address, with an optional port.
fn is_domain_text(domain: &str) -> bool {
    let (host, port) = match domain.rfind(':').filter(|colon| !domain[*colon..].contains(']')) {
        Some(colon) => (&domain[..colon], Some(&domain[colon + 1..])),
        None => (domain, None),
    };
    if port.is_some_and(|port| port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit())) {
        return false;
    }
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
    }
    host.split('.').all(|label| {
        let bytes = label.as_bytes();
        match (bytes.first(), bytes.last()) {
            (Some(first), Some(last)) => {
                first.is_ascii_alphanumeric()
                    && last.is_ascii_alphanumeric()
                    && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
            }
            _ => false,
        }
    })
}

impl TryFrom<String> for ImageName {
    type Error = InvalidImageName;

    fn try_from(text: String) -> Result<Self, InvalidImageName> {
        text.parse()
    }
}

impl From<ImageName> for String {
    fn from(name: ImageName) -> String {
        name.to_string()
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_defaults() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for (text, full) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("bitnami/nginx", "docker.io/bitnami/nginx:latest"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/library/nginx", "docker.io/library/nginx:latest"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/a/b:t", "localhost:5000/a/b:t"),
            ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"),
            ("[::1]:5000/x", "[::1]:5000/x:latest"),
            ("a__b/c-d--e.f", "docker.io/a__b/c-d--e.f:latest"),
            (&format!("nginx@{digest}"), &format!("docker.io/library/nginx@{digest}")),
            (&format!("nginx:1@{digest}"), &format!("docker.io/library/nginx:1@{digest}")),
        ] {
            assert_eq!(text.parse::<ImageName>().unwrap().to_string(), full, "{text}");
        }
    }

    #[test]
    fn what_is_no_name() {
        for text in [
            "",
            ":",
            "/",
            "a/",
            "/a",
            "a//b",
            "a:",
            "a b",
            "a:b c",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a@",
            "a@sha256:x",
            "a@sha512:00",
            "../x",
            "a/../b",
            "a:-t",
            "é",
            "a\n",
            "host:port/x",
            "host:/x",
            "x@y@z",
            &"a/".repeat(200),
            &"0a".repeat(32),
            &format!("a:{}", "t".repeat(129)),
        ] {
            assert!(text.parse::<ImageName>().is_err(), "{text:?}");
        }
        assert_eq!(
            "library/Nginx".parse::<ImageName>().unwrap_err().to_string(),
            "couldn't parse image name \"library/Nginx\": invalid reference format: repository name must be lowercase"
        );
    }

    #[test]
    fn the_digest_decides() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let both: ImageName = format!("nginx:1@{digest}").parse().unwrap();
        assert_eq!(both.key().to_string(), format!("docker.io/library/nginx@{digest}"));
        assert_eq!("nginx".parse::<ImageName>().unwrap().familiar(), "nginx:latest");
    }
}
