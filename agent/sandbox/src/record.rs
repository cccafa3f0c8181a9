//! What the runtime writes down, so that the next agent knows its sandboxes and containers.
//!
//! These files live in the run directory. They must survive the agent, not the machine: they are
//! replaced by renaming, without waiting for a disk.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use coracle_linux::{PowerLoss, replace_file};
use coracle_model::ContainerId;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::error::Category;

use crate::error::{Error, file};
use crate::request::ExecUser;
use crate::termination::MessageSource;

/// A pod's sandbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SandboxRecord {
    /// How often it was made again.
    pub(crate) attempt: u32,
}

/// A container whose creation succeeded. **Invariant:** nothing of its environment is in it, which may
/// hold values of Secrets: the run directory may lie on a disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ContainerRecord {
    pub(crate) id: ContainerId,
    pub(crate) name: String,
    pub(crate) attempt: u32,
    pub(crate) sandbox_attempt: u32,
    pub(crate) image_id: String,
    /// Of its volumes, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) volume_images: BTreeMap<String, String>,
    pub(crate) created_at: Timestamp,
    /// The order to execute the program: on record before it is given, and carried out whatever happens to
    /// the agent. A container without it was never told to start.
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) exit: Option<ExitRecord>,
    pub(crate) log: PathBuf,
    /// A terminal's master is held after the pipes.
    pub(crate) tty: bool,
    pub(crate) stop_signal: i32,
    pub(crate) user: ExecUser,
    pub(crate) cwd: String,
    pub(crate) message: MessageSource,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExitRecord {
    pub(crate) exit_code: i32,
    pub(crate) signal: Option<i32>,
    pub(crate) reason: String,
    pub(crate) message: Option<String>,
    pub(crate) finished_at: Timestamp,
}

/// The name of a container's record in its directory.
pub(crate) const CONTAINER: &str = "container.json";
/// The name of a sandbox's record in its directory.
pub(crate) const SANDBOX: &str = "sandbox.json";

/// Writes a record in place of the one before.
pub(crate) fn write(path: &Path, record: &impl Serialize) -> Result<(), Error> {
    let failed = |source: io::Error| file("write", path)(source);
    let bytes = serde_json::to_vec(record).map_err(|error| failed(error.into()))?;
    replace_file(path, 0o600, PowerLoss::MayTear, &bytes).map_err(|error| failed(error.into()))
}

/// Whether a record was read and is none: it would be no other if it were read again.
pub(crate) fn is_malformed(error: &Error) -> bool {
    use io::ErrorKind::{InvalidData, UnexpectedEof};
    matches!(error, Error::File { source, .. } if matches!(source.kind(), InvalidData | UnexpectedEof))
}

/// What is whole and says what this version does not know is no reason to give anything up: the version that wrote it
/// may come back.
fn judge(error: serde_json::Error) -> io::Error {
    match error.classify() {
        Category::Data => io::Error::new(io::ErrorKind::Unsupported, error),
        Category::Io | Category::Syntax | Category::Eof => error.into(),
    }
}

/// Reads a record; `None` when there is none.
pub(crate) fn read<R: DeserializeOwned>(path: &Path) -> Result<Option<R>, Error> {
    match fs::read(path) {
        Ok(bytes) => {
            let record = serde_json::from_slice(&bytes).map_err(|error| file("read", path)(judge(error)))?;
            Ok(Some(record))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file("read", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_torn_is_malformed() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(SANDBOX);
        let error = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            read::<SandboxRecord>(&path).unwrap_err()
        };
        for torn in [&b""[..], b"{\"attempt\":", &[0; 64]] {
            assert!(is_malformed(&error(torn)), "{torn:?}");
        }
        for other in ["{}", r#"{"attempt":"second"}"#] {
            assert!(!is_malformed(&error(other.as_bytes())), "{other}");
        }
        fs::remove_file(&path).unwrap();
        assert!(read::<SandboxRecord>(&path).unwrap().is_none());
        fs::create_dir(&path).unwrap();
        assert!(!is_malformed(&read::<SandboxRecord>(&path).unwrap_err()));
    }
}
