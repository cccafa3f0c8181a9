//! Hashes of credentials.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use coracle_model::{Digest, Hasher};
use coracle_registry::Credential;

use super::AccessError;
use super::files::write_durably;

/// What goes into every hash of this node.
pub(super) struct Salt([u8; 32]);

// === impl Salt ===

impl Salt {
    /// The node's, or a new one where there is none: no hash from before will be met again then.
    pub(super) fn open(path: &Path) -> Result<Self, AccessError> {
        match fs::read(path) {
            Ok(bytes) => {
                if let Ok(salt) = bytes.try_into() {
                    return Ok(Self(salt));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(AccessError::Read { path: path.to_owned(), source }),
        }
        let mut salt = [0; 32];
        File::open("/dev/urandom")
            .and_then(|mut random| random.read_exact(&mut salt))
            .and_then(|()| write_durably(path, &salt))
            .map_err(|source| AccessError::Write { path: path.to_owned(), source })?;
        Ok(Self(salt))
    }

    /// The hash of a credential. Each part goes in with its length, so that no two credentials are one text.
    pub(super) fn hash(&self, credential: &Credential) -> Digest {
        let parts: [&str; 3] = match credential {
            Credential::Anonymous => ["anonymous", "", ""],
            Credential::Basic { username, password } => ["basic", username, password.expose()],
            Credential::Identity(token) => ["identity", token.expose(), ""],
            Credential::Bearer(token) => ["bearer", token.expose(), ""],
        };
        let mut hasher = Hasher::default();
        hasher.update(&self.0);
        for part in parts {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.finish()
    }
}

impl std::fmt::Debug for Salt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Salt(..)")
    }
}
