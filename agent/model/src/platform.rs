//! Platforms of images, and which of them this machine's are.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a program runs on, in the words of Go; OCI's `platform` of a descriptor, as it comes.
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

    /// Which of several is for this platform: the place of the best that runs on it. What names no platform is taken where
    /// nothing else fits.
    pub fn choose<'a>(&self, of: impl IntoIterator<Item = Option<&'a Self>>) -> Option<usize> {
        let normal: Vec<_> = of.into_iter().map(|one| one.map(Self::normal)).collect();
        let best = self
            .runs()
            .into_iter()
            .find_map(|wanted| normal.iter().position(|one| one.as_ref() == Some(&wanted)));
        best.or_else(|| normal.iter().position(Option::is_none))
    }

    /// Whether an image may run on this platform whose configuration says that it is for this one. A variant says nothing
    /// there: many leave it out.
    pub fn may_run(&self, os: &str, architecture: &str) -> bool {
        let other = Self { architecture: architecture.to_owned(), os: os.to_owned(), variant: None }.normal();
        self.runs().iter().any(|one| one.os == other.os && one.architecture == other.architecture)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_deref() {
            None | Some("") => Ok(()),
            Some(variant) => write!(f, "/{variant}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        let (os, architecture) = (parts.next().unwrap(), parts.next().unwrap());
        Platform { architecture, os, variant: parts.next() }
    }

    fn chosen<'a>(on: &str, of: &[&'a str]) -> Option<&'a str> {
        let platforms: Vec<_> = of.iter().map(|text| (*text != "-").then(|| platform(text))).collect();
        platform(on).choose(platforms.iter().map(Option::as_ref)).map(|at| of[at])
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
            assert_eq!(chosen(on, of), expected, "{on} of {of:?}");
        }
    }

    #[test]
    fn what_an_image_says_of_itself_is_held_against_what_runs() {
        for (on, os, architecture, expected) in [
            ("linux/amd64", "linux", "amd64", true),
            ("linux/amd64", "linux", "386", true),
            ("linux/amd64", "linux", "arm64", false),
            ("linux/amd64", "windows", "amd64", false),
            ("linux/amd64", "", "", false),
            ("linux/arm64/v8", "linux", "arm", true),
            ("linux/arm64/v8", "linux", "aarch64", true),
            ("linux/arm/v7", "linux", "arm64", false),
        ] {
            assert_eq!(platform(on).may_run(os, architecture), expected, "{os}/{architecture} on {on}");
        }
    }
}
