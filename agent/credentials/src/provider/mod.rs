//! The kubelet's [credential provider] plugins: programs that are asked for an image, and say how long their answer is
//! good, and for which images.
//!
//! [credential provider]: https://kubernetes.io/docs/tasks/administer-cluster/kubelet-credential-provider/

mod cache;
mod config;
mod exec;
#[cfg(test)]
mod tests;

use std::path::Path;

use coracle_model::ImageName;

use crate::{CredentialError, Found, Source};
use cache::Cache;
use config::Config;

/// The credential providers of a node.
#[derive(Debug)]
pub struct CredentialProviders(Vec<Provider>);

#[derive(Debug)]
struct Provider {
    config: Config,
    cache: Cache,
}

// === impl CredentialProviders ===

impl CredentialProviders {
    /// Those that a `CredentialProviderConfig` names, or each of the files ending in `.json`, `.yaml` and `.yml` in a
    /// directory: the kubelet's `--image-credential-provider-config` and `--image-credential-provider-bin-dir`. Their
    /// programs must be there.
    ///
    /// # Errors
    /// [`CredentialError::Read`], [`CredentialError::ProviderConfig`].
    pub fn load(config: &Path, bin_dir: &Path) -> Result<Self, CredentialError> {
        let provider = |config| Provider { config, cache: Cache::default() };
        Ok(Self(config::load(config, bin_dir)?.into_iter().map(provider).collect()))
    }

    /// What they have for an image. Blocks for as long as a provider takes, at most a minute each.
    pub(crate) fn credentials(&self, name: &ImageName, problems: &mut Vec<CredentialError>) -> Vec<Found> {
        let mut found = Vec::new();
        for provider in self.0.iter().filter(|provider| provider.config.matches(name)) {
            let answer = provider.cache.get(name, || exec::ask(&provider.config, name));
            match answer {
                Ok(answer) => found.extend(answer.credentials(name).map(|credential| Found {
                    credential: credential.clone(),
                    source: Source::Provider(provider.config.name.clone()),
                })),
                Err(problem) => problems.push(CredentialError::Provider {
                    provider: provider.config.name.clone(),
                    image: name.repository(),
                    problem,
                }),
            }
        }
        found
    }
}
