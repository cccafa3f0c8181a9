//! What a registry is shown.

use std::fmt;

/// Text that is in no message: `Debug` shows that it is there, and nothing of it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Secret(String);

/// By what a registry, or the token service it names, knows who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Credential {
    /// Nothing: what everybody may have.
    #[default]
    Anonymous,
    /// A user and password, by HTTP's basic scheme, to the registry or to its token service.
    Basic {
        /// The user's name.
        username: String,
        /// The password, or an access token in its place.
        password: Secret,
    },
    /// A refresh token (`identitytoken`) that a token service gives access tokens for, by OAuth 2.
    Identity(Secret),
    /// A bearer token (`registrytoken`) that the registry takes as it is.
    Bearer(Secret),
}

// === impl Credential ===

impl Credential {
    /// What must be in no message.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &str> {
        let secret = match self {
            Self::Anonymous => None,
            Self::Basic { password: secret, .. } | Self::Identity(secret) | Self::Bearer(secret) => {
                Some(secret)
            }
        };
        secret.map(Secret::expose).filter(|secret| !secret.is_empty()).into_iter()
    }
}

// === impl Secret ===

impl Secret {
    /// Takes a text into keeping.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for who it is meant for.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
