//! Names as RFC 1123 and Kubernetes' API conventions define them.

use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Serialize};

/// A validated name: an RFC 1123 label (namespaces, containers, volumes) or subdomain (pods).
///
/// Either form is safe as a file name: lower-case letters, digits, `-` and (in a subdomain) `.`,
/// beginning and ending with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a text is not a name, in Kubernetes' words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidName(&'static str);

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_LENGTH: &str = "must be no more than 63 characters";
const SUBDOMAIN_LENGTH: &str = "must be no more than 253 characters";

/// Checks an RFC 1123 label (at most 63 characters).
pub fn validate_label(text: &str) -> Result<(), InvalidName> {
    if text.len() > 63 {
        return Err(InvalidName(LABEL_LENGTH));
    }
    if is_label(text) { Ok(()) } else { Err(InvalidName(LABEL)) }
}

/// Checks an RFC 1123 subdomain (at most 253 characters).
pub fn validate_subdomain(text: &str) -> Result<(), InvalidName> {
    if text.len() > 253 {
        return Err(InvalidName(SUBDOMAIN_LENGTH));
    }
    if text.split('.').all(is_label) { Ok(()) } else { Err(InvalidName(SUBDOMAIN)) }
}

fn is_label(text: &str) -> bool {
    let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            inner(first) && inner(last) && bytes.iter().all(|b| inner(b) || *b == b'-')
        }
        _ => false,
    }
}

// === impl Name ===

impl Name {
    /// A name that is an RFC 1123 label.
    pub fn label(text: impl Into<String>) -> Result<Self, InvalidName> {
        let text = text.into();
        validate_label(&text)?;
        Ok(Self(text))
    }

    /// A name that is an RFC 1123 subdomain.
    pub fn subdomain(text: impl Into<String>) -> Result<Self, InvalidName> {
        let text = text.into();
        validate_subdomain(&text)?;
        Ok(Self(text))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        Self::subdomain(text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_subdomains() {
        for good in ["a", "a-b", "0", &"a".repeat(63)] {
            assert!(validate_label(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "a/b", "..", &"a".repeat(64)] {
            assert!(validate_label(bad).is_err(), "{bad}");
        }
        assert!(validate_subdomain("a.b-c.d").is_ok());
        for bad in ["a..b", ".a", "a.", "a/b", &"a".repeat(254)] {
            assert!(validate_subdomain(bad).is_err(), "{bad}");
        }
    }
}
