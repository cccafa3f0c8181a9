//! Identifiers of pods and containers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A pod's UID: unique over time, safe as a file name and as a cgroup's name.
///
/// Kubernetes gives UUIDs; manifests in the wild carry other strings, so what is held here is any
/// non-empty text of at most 63 letters, digits, `-`, `_` and `.` that begins with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PodUid(String);

/// The text is not usable as a pod's UID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a pod UID: it must be 1 to 63 letters, digits, '-', '_' or '.', and begin with a letter or digit"
)]
pub struct InvalidPodUid(String);

/// A container's identifier: 256 bits, written as 64 hexadecimal digits, as containerd and runc do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId([u8; 32]);

/// The text is not a container identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a container ID: it must be 64 lower-case hexadecimal digits")]
pub struct InvalidContainerId(String);

// === impl PodUid ===

impl PodUid {
    /// The UID as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PodUid {
    type Err = InvalidPodUid;

    fn from_str(text: &str) -> Result<Self, InvalidPodUid> {
        let bytes = text.as_bytes();
        let usable = (1..=63).contains(&bytes.len())
            && bytes[0].is_ascii_alphanumeric()
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if usable { Ok(Self(text.to_owned())) } else { Err(InvalidPodUid(text.to_owned())) }
    }
}

impl TryFrom<String> for PodUid {
    type Error = InvalidPodUid;

    fn try_from(text: String) -> Result<Self, InvalidPodUid> {
        text.parse()
    }
}

impl From<PodUid> for String {
    fn from(uid: PodUid) -> String {
        uid.0
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl ContainerId ===

impl ContainerId {
    /// An identifier from its 256 bits.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A fresh identifier, from the operating system's random numbers.
    pub fn random() -> Self {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        bytes[16..].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        Self(bytes)
    }

    /// The 256 bits.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for ContainerId {
    type Err = InvalidContainerId;

    fn from_str(text: &str) -> Result<Self, InvalidContainerId> {
        crate::hex::parse(text).map(Self).ok_or_else(|| InvalidContainerId(text.to_owned()))
    }
}

impl TryFrom<String> for ContainerId {
    type Error = InvalidContainerId;

    fn try_from(text: String) -> Result<Self, InvalidContainerId> {
        text.parse()
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> String {
        id.to_string()
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::hex::write(&self.0, f)
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_uid_cannot_be_a_path() {
        for bad in ["", ".", "..", "a/b", "-a", "a b", &"x".repeat(64)] {
            assert!(bad.parse::<PodUid>().is_err(), "{bad:?} was accepted");
        }
        assert!("6f8e1f0c-8a53-4b6e-9a55-3d7f1c2b9a10".parse::<PodUid>().is_ok());
    }

    #[test]
    fn a_container_id_round_trips() {
        let id = ContainerId::random();
        assert_eq!(id.to_string().parse::<ContainerId>().unwrap(), id);
        assert!("zz".repeat(32).parse::<ContainerId>().is_err());
        assert!("AB".repeat(32).parse::<ContainerId>().is_err(), "upper case would name a second path");
    }
}
