//! Versions of the specification.

use std::fmt;
use std::str::FromStr;

use crate::{CniError, code};

/// A version that is supported. Later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// CHECK; `prevResult` in a DEL.
    V0_4_0,
    /// No `version` of an address; lists alone.
    V1_0_0,
    /// GC and STATUS; more fields of interfaces and routes.
    V1_1_0,
}

// === impl Version ===

impl Version {
    /// All there are, the oldest first.
    pub const ALL: [Self; 3] = [Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    /// The newest.
    pub const NEWEST: Self = Self::V1_1_0;

    /// As configurations have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// All of them, for a message.
    pub(crate) fn all() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Version {
    type Err = CniError;

    /// # Errors
    /// [`code::INCOMPATIBLE_VERSION`], with the supported ones in the details.
    fn from_str(text: &str) -> Result<Self, CniError> {
        Self::ALL.into_iter().find(|version| version.as_str() == text).ok_or_else(|| CniError {
            code: code::INCOMPATIBLE_VERSION,
            msg: format!("version {text:?} of CNI is not supported"),
            details: format!("the supported ones are {}", Self::all()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn supported_versions_are_ordered_and_no_other_is_accepted() {
        assert!(Version::ALL.is_sorted());
        assert_eq!(Version::ALL.last(), Some(&Version::NEWEST));
        for version in Version::ALL {
            assert_eq!(version.as_str().parse(), Ok(version));
        }
        for other in ["", "0.3.0", "0.3.1", "1.1", "1.1.1", "v1.0.0", " 1.0.0"] {
            let error = other.parse::<Version>().unwrap_err();
            assert_eq!(error.code, code::INCOMPATIBLE_VERSION);
            assert_eq!(error.details, "the supported ones are 0.4.0, 1.0.0, 1.1.0");
        }
    }
}
