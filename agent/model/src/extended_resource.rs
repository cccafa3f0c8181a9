//! Extended resources: what device plugins serve.

use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Serialize};

use crate::name::validate_subdomain;

/// The name of an extended resource, `vendor-domain/resource`: fully qualified, and in no domain of Kubernetes' own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ExtendedResource(String);

/// Why a text is not the name of an extended resource.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("doesn't follow extended resource name standard: {0}")]
pub struct InvalidExtendedResource(&'static str);

// === impl ExtendedResource ===

impl ExtendedResource {
    /// Checks a name by the rules of Kubernetes' `IsExtendedResourceName`.
    ///
    /// # Errors
    /// The name is not qualified by a domain, that domain is reserved, or either part is malformed.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidExtendedResource> {
        let text = text.into();
        let Some((domain, name)) = text.split_once('/') else {
            return Err(InvalidExtendedResource(
                "it must be a resource of a vendor, as 'example.com/device'",
            ));
        };
        // As in Kubernetes the text is looked for, not the domain: `mykubernetes.io/x` is reserved as well.
        if text.contains("kubernetes.io/") {
            return Err(InvalidExtendedResource("resources below kubernetes.io are Kubernetes' own"));
        }
        if text.starts_with("requests.") {
            return Err(InvalidExtendedResource("the prefix 'requests.' is reserved for quotas"));
        }
        // A quota of it must have a name as well: `requests.` before the domain.
        if domain.len() + "requests.".len() > 253 || validate_subdomain(domain).is_err() {
            return Err(InvalidExtendedResource(
                "before '/' must stand a lowercase RFC 1123 subdomain of at most 244 characters",
            ));
        }
        let end = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let bytes = name.as_bytes();
        if bytes.len() > 63 || !end(bytes.first()) || !end(bytes.last()) || !bytes.iter().all(inner) {
            return Err(InvalidExtendedResource(
                "after '/' must stand at most 63 alphanumeric characters, '-', '_' or '.', with an alphanumeric \
                 character first and last",
            ));
        }
        Ok(Self(text))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ExtendedResource {
    type Error = InvalidExtendedResource;

    fn try_from(text: String) -> Result<Self, InvalidExtendedResource> {
        Self::new(text)
    }
}

impl From<ExtendedResource> for String {
    fn from(resource: ExtendedResource) -> String {
        resource.0
    }
}

impl Deref for ExtendedResource {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ExtendedResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_kubernetes_accepts() {
        for good in ["nvidia.com/gpu", "nvidia.com/mig-1g.10gb", "a/B_c.d", "amd.com/gpu.shared", "gpu/1"] {
            assert_eq!(ExtendedResource::new(good).map(String::from), Ok(good.to_owned()));
        }
        let long = format!("{}/x", ["a".repeat(62).as_str(); 4].join("."));
        for bad in [
            "gpu",
            "/gpu",
            "nvidia.com/",
            "nvidia.com/gpu/1",
            "NVIDIA.com/gpu",
            "nvidia.com/-gpu",
            "nvidia.com/gpu.",
            "nvidia.com/g pu",
            "kubernetes.io/gpu",
            "node.kubernetes.io/gpu",
            "mykubernetes.io/gpu",
            "requests.nvidia.com/gpu",
            &long,
            &format!("a/{}", "x".repeat(64)),
        ] {
            assert!(ExtendedResource::new(bad).is_err(), "{bad}");
        }
    }
}
