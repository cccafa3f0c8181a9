//! Who has which credentials for a registry: docker configurations (of the host, and of `imagePullSecrets`), credential
//! helpers, and the kubelet's credential provider plugins.
//!
//! A [`Keyring`] knows where a node, or a user, keeps credentials, reads there when it is asked and only what has
//! changed, and names for an image what to try, in order. What a pod brings ([`PullSecrets`]) is tried first, nothing
//! at all ([`Credential::Anonymous`](coracle_registry::Credential::Anonymous)) last.
//!
//! **Invariant:** a secret is in no message, no log line, no `Debug`, and in no file of ours. What cannot be used is told
//! beside what can ([`Lookup::problems`]), by its source and the place in it, never by what stands there.

mod ask;
mod docker;
mod error;
mod found;
mod helper;
mod keyring;
mod pattern;
mod provider;
mod pull_secrets;
#[cfg(test)]
mod tests;

pub use docker::{DockerConfig, DockerConfigFiles, Format};
pub use error::CredentialError;
pub use found::{Found, Lookup, Source};
pub use keyring::Keyring;
pub use provider::CredentialProviders;
pub use pull_secrets::PullSecrets;
