//! The file in which it is written who has what.
//!
//! A line with the SHA-256 of the rest, and JSON. It is replaced as a whole, so that it is whole whenever the agent is
//! killed; one that is not was damaged by something else, and says nothing. No disk is waited for: what it tells of outlasts
//! the agent, and ends with the machine.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use coracle_linux::{PowerLoss, replace_file};
use coracle_model::PodUid;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::claims::Containers;

/// What a checkpoint says.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// What each pod has.
    pub(crate) pods: BTreeMap<PodUid, Containers>,
}

/// Why a checkpoint says nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Damaged(String);

// === impl Checkpoint ===

impl Checkpoint {
    /// Reads what `encode` wrote.
    ///
    /// # Errors
    /// It is not whole, or not of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let damaged = |what: &str| Damaged(what.to_owned());
        let end =
            bytes.iter().position(|octet| *octet == b'\n').ok_or_else(|| damaged("it has no checksum"))?;
        let (sum, body) = (&bytes[..end], &bytes[end + 1..]);
        if checksum(body).as_bytes() != sum {
            return Err(damaged("its checksum is not that of what it says"));
        }
        serde_json::from_slice(body).map_err(|error| Damaged(error.to_string()))
    }

    /// As it is written to disk.
    ///
    /// # Errors
    /// None that is known: what it holds can be written as JSON.
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        let body = serde_json::to_vec(self)?;
        let mut bytes = checksum(&body).into_bytes();
        bytes.push(b'\n');
        bytes.extend(body);
        Ok(bytes)
    }

    /// Reads the file at `path`. None, if there is none.
    pub(crate) fn read(path: &Path) -> io::Result<Option<Result<Self, Damaged>>> {
        match fs::read(path) {
            Ok(bytes) => Ok(Some(Self::decode(&bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the file at `path`.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        Ok(replace_file(path, 0o600, PowerLoss::MayTear, &self.encode()?)?)
    }
}

fn checksum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|octet| format!("{octet:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use coracle_model::{ExtendedResource, Name};

    use super::*;
    use crate::claims::Claim;

    fn checkpoint() -> Checkpoint {
        let claim = Claim {
            devices: ["a".to_owned()].into(),
            answer: Some(crate::Answer::default()),
            pre_start: true,
        };
        let resources = [(ExtendedResource::new("example.com/x").unwrap(), claim)].into();
        let containers = [(Name::label("c").unwrap(), resources)].into();
        Checkpoint { pods: [("u".parse().unwrap(), containers)].into() }
    }

    #[test]
    fn what_was_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("devices");
        assert!(Checkpoint::read(&path).unwrap().is_none());
        checkpoint().write(&path).unwrap();
        assert_eq!(Checkpoint::read(&path).unwrap().unwrap(), Ok(checkpoint()));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn one_that_is_damaged_anywhere_says_nothing() {
        let whole = checkpoint().encode().unwrap();
        for at in 0..whole.len() {
            assert!(Checkpoint::decode(&whole[..at]).is_err(), "cut at {at}");
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            assert!(Checkpoint::decode(&flipped).is_err(), "flipped at {at}");
        }
    }
}
