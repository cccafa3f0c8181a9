//! A pod's `imagePullSecrets`.

use std::sync::Arc;

use coracle_model::{ConfigObject, ImageName};

use crate::{CredentialError, DockerConfig, Format, Found, Source};

/// The docker configurations of a pod's pull secrets.
#[derive(Debug, Default)]
pub struct PullSecrets {
    secrets: Vec<(Source, DockerConfig)>,
    problems: Vec<Arc<CredentialError>>,
}

/// `type` and key of the two kinds of Secrets that have one.
const KINDS: [(&str, &str, Format); 2] = [
    ("kubernetes.io/dockerconfigjson", ".dockerconfigjson", Format::ConfigJson),
    ("kubernetes.io/dockercfg", ".dockercfg", Format::Dockercfg),
];

// === impl PullSecrets ===

impl PullSecrets {
    /// What these Secrets hold. One that cannot be used leaves the others as they are, and is told with each lookup.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a ConfigObject>) -> Self {
        let mut this = Self::default();
        for secret in secrets {
            this.add(secret).unwrap_or_else(|error| this.problems.push(Arc::new(error)));
        }
        this
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty() && self.problems.is_empty()
    }

    /// What cannot be used of them.
    pub fn problems(&self) -> &[Arc<CredentialError>] {
        &self.problems
    }

    /// What they hold for an image: as in the kubelet, the longest match of all Secrets first.
    pub fn credentials(&self, name: &ImageName) -> Vec<Found> {
        let of_secret = |secret: &(Source, DockerConfig)| {
            let matching = secret.1.matching(name);
            let owned = matching.map(|(pattern, credential)| (pattern.clone(), credential.clone()));
            owned.map(|(pattern, credential)| (pattern, credential, secret.0.clone())).collect::<Vec<_>>()
        };
        let mut found: Vec<_> = self.secrets.iter().flat_map(of_secret).collect();
        found.sort_by(|(one, ..), (other, ..)| other.cmp(one));
        found.into_iter().map(|(_, credential, source)| Found { credential, source }).collect()
    }

    fn add(&mut self, secret: &ConfigObject) -> Result<(), CredentialError> {
        let (namespace, name) = (secret.key.namespace.clone(), secret.key.name.clone());
        let Some((_, key, format)) = KINDS.into_iter().find(|(kind, ..)| *kind == secret.secret_type) else {
            let kind = secret.secret_type.clone();
            return Err(CredentialError::NotPullSecret { namespace, name, kind });
        };
        let origin = format!("Secret {namespace}/{name} under {key}");
        let malformed = |problem: &str| {
            let problem = problem.to_owned();
            CredentialError::Malformed { origin: origin.clone(), problem }
        };
        let bytes = secret.data.get(key).ok_or_else(|| malformed("the key is not there"))?;
        let config = DockerConfig::parse(&origin, format, bytes)?;
        // A program of the host is for the host's administrator to name.
        let helpers = config.has_helpers().then(|| {
            malformed("credHelpers and credsStore name programs of the host, which a Secret may not; they are not used")
        });
        self.secrets.push((Source::Secret { namespace, name }, config));
        helpers.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use coracle_model::{ConfigKey, ConfigKind, Name};
    use coracle_registry::{Credential, Secret};

    use super::*;

    fn secret(name: &str, kind: &str, key: &str, value: &str) -> ConfigObject {
        ConfigObject {
            key: ConfigKey {
                kind: ConfigKind::Secret,
                namespace: Name::label("default").unwrap(),
                name: Name::label(name).unwrap(),
            },
            data: [(key.to_owned(), value.as_bytes().into())].into(),
            binary_data: BTreeMap::new(),
            secret_type: kind.to_owned(),
            immutable: false,
        }
    }

    #[test]
    fn the_longest_match_of_all_secrets_is_first() {
        let (json, legacy) = ("kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg");
        let secrets = [
            secret("one", json, ".dockerconfigjson", r#"{"auths": {"reg.example": {"auth": "dTp3aWRl"}}}"#),
            secret("two", legacy, ".dockercfg", r#"{"reg.example/team": {"auth": "dTpsb25n"}}"#),
            secret("bad", json, ".dockerconfigjson", r#"{"auths": {"reg.example": "hunter2"}}"#),
            secret("helper", json, ".dockerconfigjson", r#"{"credsStore": "x"}"#),
            secret("empty", legacy, "x", "hunter2"),
            secret("other", "Opaque", ".dockerconfigjson", r#"{"auths": {"reg.example": {"auth": "dTp4"}}}"#),
        ];
        let secrets = PullSecrets::new(&secrets);
        let found = secrets.credentials(&"reg.example/team/x".parse().unwrap());
        let basic = |password: &str, name: &str| Found {
            credential: Credential::Basic { username: "u".to_owned(), password: Secret::new(password) },
            source: Source::Secret {
                namespace: Name::label("default").unwrap(),
                name: Name::label(name).unwrap(),
            },
        };
        assert_eq!(found, [basic("long", "two"), basic("wide", "one")]);

        let problems: Vec<_> = secrets.problems().iter().map(ToString::to_string).collect();
        let of = |name: &str, key: &str, problem: &str| {
            format!("the docker configuration of Secret default/{name} under {key}: {problem}")
        };
        assert_eq!(
            problems,
            [
                of("bad", ".dockerconfigjson", "auths[\"reg.example\"] is not a JSON object"),
                of(
                    "helper",
                    ".dockerconfigjson",
                    "credHelpers and credsStore name programs of the host, which a Secret may not; they are not used"
                ),
                of("empty", ".dockercfg", "the key is not there"),
                "Secret default/other is of type \"Opaque\", which holds no credentials for registries; it must be \
                 kubernetes.io/dockerconfigjson or kubernetes.io/dockercfg"
                    .to_owned(),
            ]
        );
    }
}
