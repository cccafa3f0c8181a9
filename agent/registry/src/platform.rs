//! Platforms of images, and which of them this machine's are.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::answer::shown;
use crate::document::Entry;
use crate::error::Error;

/// What a program runs on, in the words of Go; OCI's `platform` of a descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// Such as `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// Such as `linux`.
    #[serde(default)]
    pub os: String,
    /// Of the architecture, such as `v8` of `arm64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// How many platforms a message names.
const SHOWN: usize = 20;

// === impl Platform ===

impl Platform {
    /// This machine's.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", Some("v8")),
            other => (other, None),
        };
        Self {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// With the names and defaults that containerd's `platforms.Normalize` knows.
    fn normal(&self) -> Self {
        let lower = |text: &str| text.to_ascii_lowercase();
        let architecture = lower(&self.architecture);
        let variant = self.variant.as_deref().map(lower).filter(|variant| !variant.is_empty());
        let (architecture, variant) = match (architecture.as_str(), variant.as_deref()) {
            ("i386", _) => ("386", None),
            ("x86_64" | "x86-64" | "amd64", None | Some("v1")) => ("amd64", None),
            ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", None | Some("8" | "v8" | "v8.0")) => ("arm64", Some("v8")),
            ("aarch64" | "arm64", variant) => ("arm64", variant),
            ("armhf", _) => ("arm", Some("v7")),
            ("armel", _) => ("arm", Some("v6")),
            ("arm", None | Some("7")) => ("arm", Some("v7")),
            ("arm", Some("5")) => ("arm", Some("v5")),
            ("arm", Some("6")) => ("arm", Some("v6")),
            ("arm", Some("8")) => ("arm", Some("v8")),
            (architecture, variant) => (architecture, variant),
        };
        Self {
            architecture: architecture.to_owned(),
            os: lower(&self.os),
            variant: variant.map(str::to_owned),
        }
    }

    /// What runs on this platform, the best first: containerd's `platforms.Only`.
    fn runs(&self) -> Vec<Self> {
        let own = self.normal();
        let like = |architecture: &str, variant: Option<String>| Self {
            architecture: architecture.to_owned(),
            os: own.os.clone(),
            variant,
        };
        let version =
            own.variant.as_deref().and_then(|variant| variant.strip_prefix('v')?.parse::<u32>().ok());
        let older = |from: u32, to: u32| (to..from).rev().map(|version| format!("v{version}"));
        let mut all = vec![own.clone()];
        match own.architecture.as_str() {
            "amd64" => {
                let older = older(version.unwrap_or(1).min(9), 2).map(Some).chain(version.map(|_| None));
                all.extend(older.map(|variant| like("amd64", variant)));
                all.push(like("386", None));
            }
            "arm" => {
                all.extend(older(version.unwrap_or(7).min(9), 5).map(|variant| like("arm", Some(variant))))
            }
            "arm64" => {
                all.extend(older(9, 5).map(|variant| like("arm", Some(variant))));
            }
            _ => {}
        }
        all
    }

    /// Which of an index is for this platform. What names no platform is taken where nothing else fits.
    pub(crate) fn choose<'a>(&self, entries: &'a [Entry]) -> Result<&'a Entry, Error> {
        let normal: Vec<_> = entries.iter().map(|entry| entry.platform.as_ref().map(Self::normal)).collect();
        let best = self
            .runs()
            .into_iter()
            .find_map(|wanted| normal.iter().position(|one| one.as_ref() == Some(&wanted)));
        let found = best.or_else(|| normal.iter().position(Option::is_none));
        found.map(|at| &entries[at]).ok_or_else(|| {
            let mut names: Vec<_> =
                entries.iter().filter_map(|entry| entry.platform.as_ref()).map(Self::to_string).collect();
            names.dedup();
            // Attestations, which are for no machine.
            names.retain(|name| name != "unknown/unknown");
            let more = names.len().saturating_sub(SHOWN);
            names.truncate(SHOWN);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let available = match names.as_slice() {
                [] => "none".to_owned(),
                names => format!("{}{more}", names.join(", ")),
            };
            Error::Platform { wanted: self.to_string(), available }
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", shown(&self.os), shown(&self.architecture))?;
        match self.variant.as_deref() {
            None | Some("") => Ok(()),
            Some(variant) => write!(f, "/{}", shown(variant)),
        }
    }
}

#[cfg(test)]
mod tests {
    use coracle_model::Digest;

    use super::*;
    use crate::Descriptor;

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        let (os, architecture) = (parts.next().unwrap(), parts.next().unwrap());
        Platform { architecture, os, variant: parts.next() }
    }

    fn entries(platforms: &[&str]) -> Vec<Entry> {
        let entry = |text: &&str| Entry {
            descriptor: Descriptor {
                media_type: (*text).to_owned(),
                digest: Digest::of(text.as_bytes()),
                size: 1,
            },
            platform: (*text != "-").then(|| platform(text)),
        };
        platforms.iter().map(entry).collect()
    }

    fn chosen(on: &str, platforms: &[&str]) -> Option<String> {
        let entries = entries(platforms);
        platform(on).choose(&entries).ok().map(|entry| entry.descriptor.media_type.clone())
    }

    #[test]
    fn the_best_that_runs_is_taken() {
        for (on, of, expected) in [
            ("linux/amd64", &["linux/arm64/v8", "linux/amd64"][..], Some("linux/amd64")),
            ("linux/amd64", &["linux/386", "linux/x86_64"], Some("linux/x86_64")),
            ("linux/amd64", &["linux/amd64/v3", "linux/amd64/v1"], Some("linux/amd64/v1")),
            ("linux/amd64", &["linux/amd64/v3"], None),
            ("linux/amd64/v3", &["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], Some("linux/amd64/v2")),
            ("linux/amd64/v3", &["linux/amd64"], Some("linux/amd64")),
            ("linux/amd64", &["linux/i386"], Some("linux/i386")),
            ("linux/arm64/v8", &["linux/arm/v7", "linux/arm64"], Some("linux/arm64")),
            ("linux/arm64/v8", &["linux/arm/v6", "linux/arm/v7"], Some("linux/arm/v7")),
            ("linux/arm/v7", &["linux/arm/v5", "linux/arm/v8", "linux/arm/v6"], Some("linux/arm/v6")),
            ("linux/arm/v7", &["linux/arm"], Some("linux/arm")),
            ("linux/arm/v6", &["linux/arm/v7", "linux/armhf"], None),
            ("linux/amd64", &["windows/amd64", "unknown/unknown"], None),
            ("linux/amd64", &["-", "linux/amd64"], Some("linux/amd64")),
            ("linux/amd64", &["linux/s390x", "-"], Some("-")),
            ("linux/amd64", &["linux/amd64", "linux/amd64"], Some("linux/amd64")),
            ("linux/riscv64", &["linux/riscv64"], Some("linux/riscv64")),
            ("linux/amd64", &[], None),
        ] {
            assert_eq!(chosen(on, of).as_deref(), expected, "{on} of {of:?}");
        }
    }

    #[test]
    fn what_there_is_is_named() {
        let of = entries(&["linux/arm64/v8", "windows/amd64", "unknown/unknown"]);
        let error = platform("linux/amd64").choose(&of).unwrap_err().to_string();
        assert_eq!(error, "has no image for linux/amd64; there is: linux/arm64/v8, windows/amd64");
    }
}
