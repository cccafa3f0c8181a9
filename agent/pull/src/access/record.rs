//! What is on record of an image: `ImagePullIntent` and `ImagePulledRecord` of the kubelet.

use std::collections::BTreeMap;

use coracle_credentials::{Found, Source};
use coracle_model::{Digest, ImageName, Name};
use serde::{Deserialize, Serialize};

use super::salt::Salt;

/// The most Secrets that are noted for a repository of an image.
const MOST_SECRETS: usize = 100;

/// A pull has begun, and its end is not on record.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Intent {
    kind: IntentKind,
    image: String,
}

/// Who may use an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    kind: RecordKind,
    /// The image's identifier.
    image_ref: Digest,
    /// By repository: what it was pulled with. None for an image that was pulled nobody knows how.
    #[serde(default)]
    credential_mapping: BTreeMap<String, Credentials>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum IntentKind {
    ImagePullIntent,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum RecordKind {
    ImagePulledRecord,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Credentials {
    /// Every pod may use it: it needed nothing, or what the node has.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    node_pods_accessible: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kubernetes_secrets: Vec<PullSecret>,
}

/// A Secret that a registry has let in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PullSecret {
    namespace: Name,
    name: Name,
    /// Of what it held.
    credential_hash: Digest,
}

/// What has opened the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// What every pod of the node has.
    ForAll,
    /// What is a pod's own.
    By(PullSecret),
}

/// What becomes of a pod that wants the image.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It may have it.
    Use,
    /// The same, and this is new.
    UseAndNote(Opened),
    /// The registry is asked.
    Pull,
}

// === impl Intent ===

impl Intent {
    pub(super) fn new(name: &ImageName) -> Self {
        Self { kind: IntentKind::ImagePullIntent, image: name.to_string() }
    }

    /// The name of its file.
    pub(super) fn file(name: &ImageName) -> String {
        format!("sha256-{}", Digest::of(name.to_string().as_bytes()).hex())
    }
}

// === impl Record ===

impl Record {
    /// The image was pulled, nobody knows how.
    pub(super) fn new(image: Digest) -> Self {
        Self { kind: RecordKind::ImagePulledRecord, image_ref: image, credential_mapping: BTreeMap::new() }
    }

    /// The name of its file.
    pub(super) fn file(image: Digest) -> String {
        format!("sha256-{}", image.hex())
    }

    /// What becomes of a pod that shows this.
    pub(super) fn decide(&self, name: &ImageName, shown: &[Found], salt: &Salt) -> Decision {
        let Some(credentials) = self.credential_mapping.get(&name.repository()) else {
            return Decision::Pull;
        };
        if credentials.node_pods_accessible {
            return Decision::Use;
        }
        let known = &credentials.kubernetes_secrets;
        for secret in shown.iter().filter_map(|found| PullSecret::of(found, salt)) {
            if known.contains(&secret) {
                return Decision::Use;
            }
            // The same credentials in another Secret, or others in the same: the KEP's rule for those that are renewed.
            let same = |one: &PullSecret| {
                one.credential_hash == secret.credential_hash || one.is_in_same_secret(&secret)
            };
            if known.iter().any(same) {
                let note = known.len() < MOST_SECRETS;
                return if note { Decision::UseAndNote(Opened::By(secret)) } else { Decision::Use };
            }
        }
        Decision::Pull
    }

    /// Notes what has opened the registry. Whether that was new.
    pub(super) fn add(&mut self, name: &ImageName, opened: Opened) -> bool {
        let credentials = self.credential_mapping.entry(name.repository()).or_default();
        let before = credentials.clone();
        match opened {
            Opened::ForAll => {
                *credentials = Credentials { node_pods_accessible: true, kubernetes_secrets: Vec::new() };
            }
            Opened::By(_) if credentials.node_pods_accessible => {}
            Opened::By(secret) => {
                let secrets = &mut credentials.kubernetes_secrets;
                secrets.retain(|one| !one.is_in_same_secret(&secret));
                secrets.push(secret);
                secrets.sort();
                secrets.truncate(MOST_SECRETS);
            }
        }
        before != *credentials
    }
}

// === impl PullSecret ===

impl PullSecret {
    fn of(found: &Found, salt: &Salt) -> Option<Self> {
        match &found.source {
            Source::Secret { namespace, name } => Some(Self {
                namespace: namespace.clone(),
                name: name.clone(),
                credential_hash: salt.hash(&found.credential),
            }),
            _ => None,
        }
    }

    /// The kubelet compares the Secret's UID as well; a Secret in a manifest has none, and is what its name says.
    fn is_in_same_secret(&self, other: &Self) -> bool {
        (&self.namespace, &self.name) == (&other.namespace, &other.name)
    }
}

// === impl Opened ===

impl Opened {
    pub(super) fn by(found: &Found, salt: &Salt) -> Self {
        PullSecret::of(found, salt).map_or(Self::ForAll, Self::By)
    }
}
