//! Why credentials that are there cannot be used.

use std::io;
use std::path::PathBuf;

use coracle_model::Name;

/// What is wrong with a source of credentials. None of it shows what the source holds.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A configuration that is there cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A docker configuration is not what it has to be.
    #[error("the docker configuration of {origin}: {problem}")]
    Malformed {
        /// The file, or the Secret and its key.
        origin: String,
        /// The place in it, and what is wrong there.
        problem: String,
    },
    /// A Secret is named as a pull secret and is none.
    #[error(
        "Secret {namespace}/{name} is of type {kind:?}, which holds no credentials for registries; it must be \
         kubernetes.io/dockerconfigjson or kubernetes.io/dockercfg"
    )]
    NotPullSecret {
        /// Its namespace.
        namespace: Name,
        /// Its name.
        name: Name,
        /// Its `type`.
        kind: String,
    },
    /// A credential helper gives no answer.
    #[error("the credential helper {program}, asked for {registry}: {problem}")]
    Helper {
        /// Its program.
        program: String,
        /// What it was asked for.
        registry: String,
        /// What it did instead.
        problem: String,
    },
    /// A configuration of credential providers is not what it has to be.
    #[error("the configuration of credential providers {}: {problem}", path.display())]
    ProviderConfig {
        /// Its file.
        path: PathBuf,
        /// The place in it, and what is wrong there.
        problem: String,
    },
    /// A credential provider gives no answer.
    #[error("the credential provider {provider}, asked for {image}: {problem}")]
    Provider {
        /// Its name.
        provider: String,
        /// What it was asked for.
        image: String,
        /// What it did instead.
        problem: String,
    },
    /// The search was given up, because the program ends.
    #[error("the search for credentials of the node was given up: {0}")]
    GivenUp(String),
}
