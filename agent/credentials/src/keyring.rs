//! All that a node, or a user, has for registries.

use std::env;
use std::sync::Arc;

use coracle_model::ImageName;
use coracle_registry::Credential;

use crate::{
    CredentialError, CredentialProviders, DockerConfigFiles, Found, Lookup, PullSecrets, Source, helper,
};

/// Where credentials are looked for. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub struct Keyring(Arc<Places>);

#[derive(Debug, Default)]
struct Places {
    files: Vec<DockerConfigFiles>,
    providers: Option<CredentialProviders>,
}

// === impl Keyring ===

impl Keyring {
    /// These docker configurations, in this order.
    pub fn new(files: Vec<DockerConfigFiles>) -> Self {
        Self(Arc::new(Places { files, providers: None }))
    }

    /// The same, and before them these providers.
    pub fn with_providers(files: Vec<DockerConfigFiles>, providers: CredentialProviders) -> Self {
        Self(Arc::new(Places { files, providers: Some(providers) }))
    }

    /// What to try for an image, in order: what the Secrets hold; what the providers have, where one is for the image;
    /// what the docker configurations hold, or the helpers that they name; nothing. What is the same as something before
    /// is left out.
    ///
    /// Takes as long as programs do that have to be asked, at most a minute each. Dropping it leaves them to their end.
    pub async fn lookup(&self, name: &ImageName, secrets: &PullSecrets) -> Lookup {
        let mut lookup = Lookup { found: Vec::new(), problems: secrets.problems().to_vec() };
        lookup.add(secrets.credentials(name));
        let (places, name) = (Arc::clone(&self.0), name.clone());
        match tokio::task::spawn_blocking(move || places.lookup(&name)).await {
            Ok((found, problems)) => {
                lookup.add(found);
                lookup.problems.extend(problems.into_iter().map(Arc::new));
            }
            Err(error) => lookup.problems.push(Arc::new(CredentialError::GivenUp(error.to_string()))),
        }
        lookup.add([Found { credential: Credential::Anonymous, source: Source::Nobody }]);
        lookup
    }
}

// === impl Places ===

impl Places {
    fn lookup(&self, name: &ImageName) -> (Vec<Found>, Vec<CredentialError>) {
        let mut problems = Vec::new();
        let providers = self.providers.as_ref();
        let mut found =
            providers.map(|providers| providers.credentials(name, &mut problems)).unwrap_or_default();
        let domain = name.domain().to_ascii_lowercase();
        let directories = env::var_os("PATH").unwrap_or_default();
        for files in &self.files {
            for (path, config) in files.read(&mut problems) {
                let of_helper = config.helper(&domain).and_then(|helper| {
                    helper::credential(&directories, helper, &domain).unwrap_or_else(|error| {
                        problems.push(error);
                        None
                    })
                });
                let credentials = of_helper.into_iter().chain(config.credentials(name).cloned());
                found.extend(
                    credentials.map(|credential| Found { credential, source: Source::File(path.to_owned()) }),
                );
            }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use coracle_model::{ConfigKey, ConfigKind, ConfigObject, Name};
    use tempfile::TempDir;

    use super::*;
    use crate::Format;
    use crate::tests::program;

    #[tokio::test]
    async fn what_a_pod_shows_comes_before_what_the_node_has() {
        let directory = TempDir::new().unwrap();
        let auths = |password: &str| {
            format!(r#"{{"auths": {{"reg.example": {{"username": "u", "password": "{password}"}}}}}}"#)
        };
        let answer = r#"{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"Image","auth":{"reg.example":{"username":"u","password":"provided"}}}"#;
        program(directory.path(), "p", &format!("echo '{answer}'"));
        let (config, providers) = (directory.path().join("config.json"), directory.path().join("p.yaml"));
        fs::write(&config, auths("nodes")).unwrap();
        let text = "{kind: CredentialProviderConfig, apiVersion: kubelet.config.k8s.io/v1, providers: [{name: p, \
                    matchImages: [reg.example], defaultCacheDuration: 1m, \
                    apiVersion: credentialprovider.kubelet.k8s.io/v1}]}";
        fs::write(&providers, text).unwrap();
        let providers = CredentialProviders::load(&providers, directory.path()).unwrap();
        let files = DockerConfigFiles::new(vec![(config.clone(), Format::ConfigJson)], true);
        let keyring = Keyring::with_providers(vec![files], providers);

        let [namespace, name] = ["default", "own"].map(|text| Name::label(text).unwrap());
        let secret = ConfigObject {
            key: ConfigKey { kind: ConfigKind::Secret, namespace: namespace.clone(), name: name.clone() },
            data: [(".dockerconfigjson".to_owned(), auths("own").as_bytes().into())].into(),
            binary_data: BTreeMap::new(),
            secret_type: "kubernetes.io/dockerconfigjson".to_owned(),
            immutable: false,
        };
        let image = "reg.example/x".parse().unwrap();
        let lookup = keyring.lookup(&image, &PullSecrets::new([&secret])).await;
        let sources: Vec<_> = lookup.found.into_iter().map(|found| found.source).collect();
        let provider = Source::Provider("p".to_owned());
        assert_eq!(
            sources,
            [Source::Secret { namespace, name }, provider, Source::File(config), Source::Nobody]
        );
        assert!(lookup.problems.is_empty());

        let other = keyring.lookup(&"quay.io/x".parse().unwrap(), &PullSecrets::new([&secret])).await;
        assert_eq!(other.found.len(), 1, "nothing is for another registry");
    }
}
