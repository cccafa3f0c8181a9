//! Pods' records as files, one a pod.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use coracle_model::PodUid;

use crate::PodRecord;
use crate::ports::{Failure, Records};

/// A directory of records, `<uid>.json` each, written under another name, synced and renamed.
#[derive(Clone, Debug)]
pub struct RecordDir {
    path: PathBuf,
}

/// Why the records cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The directory could not be made or listed.
    #[error("{}: the directory of pod records cannot be used: {error}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A record could not be read.
    #[error("{}: the pod record cannot be read: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A record is none.
    #[error("{}: not a pod record of this version: {error}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        error: serde_json::Error,
    },
}

impl RecordDir {
    /// The records in this directory, which is made, for this user only, when it is not there.
    ///
    /// # Errors
    /// [`RecordError::Directory`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, RecordError> {
        let path = path.into();
        match DirBuilder::new().recursive(true).mode(0o700).create(&path) {
            Ok(()) => Ok(Self { path }),
            Err(error) => Err(RecordError::Directory { path, error }),
        }
    }

    /// Every record, in order of UID, each read or with what is wrong with it. What an interrupted save
    /// left behind is removed.
    ///
    /// # Errors
    /// [`RecordError::Directory`] when the directory cannot be listed.
    pub fn load(&self) -> Result<Vec<Result<PodRecord, RecordError>>, RecordError> {
        let failed = |error| RecordError::Directory { path: self.path.clone(), error };
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            names.push(entry.map_err(failed)?.path());
        }
        names.sort();
        let mut records = Vec::new();
        for path in names {
            match path.extension().and_then(|end| end.to_str()) {
                Some("json") => records.push(read(path)),
                Some("new") => fs::remove_file(&path).map_err(failed)?,
                _ => {}
            }
        }
        Ok(records)
    }

    fn file(&self, uid: &PodUid, end: &str) -> PathBuf {
        self.path.join(format!("{uid}.{end}"))
    }
}

fn read(path: PathBuf) -> Result<PodRecord, RecordError> {
    match fs::read(&path) {
        Err(error) => Err(RecordError::Read { path, error }),
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| RecordError::Parse { path, error }),
    }
}

/// In one piece for whoever reads it, but without waiting for a disk: a record outlives the agent, not the
/// machine, and so do the processes it tells of.
fn write(temporary: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(temporary)?;
    file.write_all(bytes)?;
    fs::rename(temporary, path)
}

/// The calls are short and made on the worker's thread, so that one that was given up is never carried
/// out later.
impl Records for RecordDir {
    async fn save(&self, record: &PodRecord) -> Result<(), Failure> {
        let (path, temporary) = (self.file(&record.pod.uid, "json"), self.file(&record.pod.uid, "new"));
        let saved = serde_json::to_vec(record)
            .map_err(io::Error::from)
            .and_then(|bytes| write(&temporary, &path, &bytes));
        saved.map_err(|error| failure(&path, &error))
    }

    async fn forget(&self, pod: &PodUid) -> Result<(), Failure> {
        let path = self.file(pod, "json");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failure(&path, &error)),
            _ => Ok(()),
        }
    }
}

fn failure(path: &Path, error: &io::Error) -> Failure {
    Failure::new("FailedSync", format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use coracle_model::RestartPolicy;

    use super::*;
    use crate::tests::values::{at, pod};

    #[tokio::test]
    async fn a_record_is_kept_replaced_and_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let records = RecordDir::open(root.path().join("records")).unwrap();
        let pod = Arc::new(pod("a", RestartPolicy::Always, &["init"], &["web"]));
        let mut record = PodRecord::new(Arc::clone(&pod), Some(Arc::from(Path::new("/m/a.yaml"))), at(5));
        records.save(&record).await.unwrap();
        record.streak_base.insert("web".to_owned(), 3);
        records.save(&record).await.unwrap();
        fs::write(root.path().join("records/b.new"), "half").unwrap();
        fs::write(root.path().join("records/c.json"), "half").unwrap();
        let loaded = records.load().unwrap();
        assert_eq!(loaded.len(), 2);
        assert_eq!(*loaded[0].as_ref().unwrap(), record);
        assert!(matches!(loaded[1], Err(RecordError::Parse { .. })));
        assert!(!root.path().join("records/b.new").exists());
        records.forget(&pod.uid).await.unwrap();
        records.forget(&pod.uid).await.unwrap();
        assert_eq!(records.load().unwrap().len(), 1);
    }
}
