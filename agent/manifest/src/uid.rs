//! UIDs of pods that no API server has given one.

use coracle_document::Node;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use coracle_model::{PodKey, PodUid};

/// What identifies one version of one document.
pub(crate) struct Identity {
    /// Of source, namespace, name and content.
    uid: Uuid,
    /// Of the content, in hexadecimal.
    pub(crate) hash: String,
}

// === impl Identity ===

impl Identity {
    /// The content is hashed as the user wrote it, before defaults: a new version of this program may
    /// know new defaults, and must not for that take every running pod for a changed one. Layout,
    /// order of keys, comments and `status` do not count.
    pub(crate) fn of(source: &str, key: &PodKey, document: &Node<'_>) -> Self {
        let mut canonical = String::new();
        document.write_canonical(&mut canonical);
        let mut digest = Sha256::new();
        for part in [source, &key.namespace, &key.name, &canonical] {
            // Lengths first, so that no two lists of parts look alike.
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part.as_bytes());
        }
        let digest = digest.finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        // Version 8 of RFC 9562: a UUID by an algorithm of one's own.
        let uid = uuid::Builder::from_custom_bytes(bytes).into_uuid();
        Self { uid, hash: uid.simple().to_string() }
    }

    /// The UID of a document that carries none.
    pub(crate) fn uid(&self) -> Result<PodUid, coracle_model::InvalidPodUid> {
        self.uid.hyphenated().to_string().parse()
    }
}
