//! All that a node, or a user, has for registries.

use std::sync::Arc;

use coracle_model::ImageName;
use coracle_registry::Credential;

use crate::{CredentialError, DockerConfigFiles, Found, Lookup, PullSecrets, Source};

/// Where credentials are looked for. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    files: Arc<Vec<DockerConfigFiles>>,
}

// === impl Keyring ===

impl Keyring {
    /// These docker configurations.
    pub fn new(files: Vec<DockerConfigFiles>) -> Self {
        Self { files: Arc::new(files) }
    }

    /// What to try for an image, in order: what the Secrets hold, then what the docker configurations do, then nothing.
    /// What is the same as something before is left out.
    pub async fn lookup(&self, name: &ImageName, secrets: &PullSecrets) -> Lookup {
        let mut lookup = Lookup { found: Vec::new(), problems: secrets.problems().to_vec() };
        lookup.add(secrets.credentials(name));
        let (this, name) = (self.clone(), name.clone());
        match tokio::task::spawn_blocking(move || this.of_files(&name)).await {
            Ok((found, problems)) => {
                lookup.add(found);
                lookup.problems.extend(problems.into_iter().map(Arc::new));
            }
            Err(error) => lookup.problems.push(Arc::new(CredentialError::GivenUp(error.to_string()))),
        }
        lookup.add([Found { credential: Credential::Anonymous, source: Source::Nobody }]);
        lookup
    }

    fn of_files(&self, name: &ImageName) -> (Vec<Found>, Vec<CredentialError>) {
        let (mut found, mut problems) = (Vec::new(), Vec::new());
        for (path, config) in self.files.iter().flat_map(|files| files.read(&mut problems)) {
            let of_file = config.credentials(name).cloned();
            found.extend(
                of_file.map(|credential| Found { credential, source: Source::File(path.to_owned()) }),
            );
        }
        (found, problems)
    }
}

// === impl Lookup ===

impl Lookup {
    fn add(&mut self, found: impl IntoIterator<Item = Found>) {
        for one in found {
            if !self.found.iter().any(|other| other.credential == one.credential) {
                self.found.push(one);
            }
        }
    }
}
