//! Pods' records as files, one a pod, and copies of them for after a reboot.

mod durable;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use coracle_model::PodUid;
use serde::{Deserialize, Serialize};

use self::durable::Durable;
use crate::PodRecord;
use crate::ports::{Failure, Records};

/// Records in one directory, which outlasts the agent, and checkpoints in another, which outlasts the machine:
/// `<uid>.json` each, with the boot they are of.
#[derive(Clone, Debug)]
pub struct RecordDir {
    records: PathBuf,
    checkpoints: PathBuf,
    boot: String,
    durable: Durable,
}

/// A pod that an agent before this one has had.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// What it knew of the pod.
    pub record: PodRecord,
    /// The machine was booted again since: nothing of the pod runs any more.
    pub rebooted: bool,
}

/// Why the records cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A directory could not be made or listed.
    #[error("{}: the directory of pod records cannot be used: {error}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The thread that writes checkpoints could not be started.
    #[error("cannot start the thread that writes checkpoints of pods: {0}")]
    Thread(io::Error),
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

/// A record with the boot it is of.
#[derive(Serialize)]
struct Stored<'a> {
    boot: &'a str,
    #[serde(flatten)]
    record: &'a PodRecord,
}

/// As it is read: those of before there were checkpoints name no boot, and were of the one that wrote them.
#[derive(Deserialize)]
struct Loaded {
    boot: Option<String>,
    #[serde(flatten)]
    record: PodRecord,
}

impl RecordDir {
    /// The records of this boot in one directory, checkpoints in another; both are made, for this user only,
    /// when they are not there. `boot` tells this boot from every other, as the kernel's `boot_id` does.
    ///
    /// # Errors
    /// [`RecordError::Directory`], [`RecordError::Thread`].
    pub fn open(
        records: impl Into<PathBuf>,
        checkpoints: impl Into<PathBuf>,
        boot: impl Into<String>,
    ) -> Result<Self, RecordError> {
        let (records, checkpoints) = (records.into(), checkpoints.into());
        for path in [&records, &checkpoints] {
            if let Err(error) = DirBuilder::new().recursive(true).mode(0o700).create(path) {
                return Err(RecordError::Directory { path: path.clone(), error });
            }
        }
        let durable = Durable::start().map_err(RecordError::Thread)?;
        Ok(Self { records, checkpoints, boot: boot.into(), durable })
    }

    /// Every pod that is on record, in order of UID: by its record if that is of this boot, else by its
    /// checkpoint. With it, what is wrong with those that cannot be read. What interrupted writes have left
    /// behind is removed.
    ///
    /// # Errors
    /// [`RecordError::Directory`] when a directory cannot be listed.
    pub fn load(&self) -> Result<(Vec<Found>, Vec<RecordError>), RecordError> {
        let (mut found, mut errors) = (BTreeMap::new(), Vec::new());
        // What is found later counts: a record is newer than a checkpoint.
        for directory in [&self.checkpoints, &self.records] {
            for path in files(directory)? {
                match read(path) {
                    Ok(Loaded { boot, record }) => {
                        let rebooted = boot.is_some_and(|boot| boot != self.boot);
                        found.insert(record.pod.uid.clone(), Found { record, rebooted });
                    }
                    Err(error) => errors.push(error),
                }
            }
        }
        Ok((found.into_values().collect(), errors))
    }

    fn record_file(&self, uid: &PodUid, end: &str) -> PathBuf {
        self.records.join(format!("{uid}.{end}"))
    }

    fn checkpoint_file(&self, uid: &PodUid) -> PathBuf {
        self.checkpoints.join(format!("{uid}.json"))
    }

    fn bytes(&self, record: &PodRecord) -> io::Result<Vec<u8>> {
        Ok(serde_json::to_vec(&Stored { boot: &self.boot, record })?)
    }
}

/// The records in a directory, in order of their names.
fn files(directory: &Path) -> Result<Vec<PathBuf>, RecordError> {
    let failed = |error| RecordError::Directory { path: directory.to_owned(), error };
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        names.push(entry.map_err(failed)?.path());
    }
    names.sort();
    let ends = |path: &PathBuf, end: &str| path.extension().is_some_and(|extension| extension == end);
    for path in names.iter().filter(|path| ends(path, "new")) {
        fs::remove_file(path).map_err(failed)?;
    }
    names.retain(|path| ends(path, "json"));
    Ok(names)
}

fn read(path: PathBuf) -> Result<Loaded, RecordError> {
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

/// What concerns records is short and done on the worker's thread, so that a call that was given up is never
/// carried out later.
impl Records for RecordDir {
    async fn save(&self, record: &PodRecord) -> Result<(), Failure> {
        let (path, temporary) =
            (self.record_file(&record.pod.uid, "json"), self.record_file(&record.pod.uid, "new"));
        let saved = self.bytes(record).and_then(|bytes| write(&temporary, &path, &bytes));
        saved.map_err(|error| failure(&path, &error))
    }

    async fn checkpoint(&self, record: &PodRecord) -> Result<(), Failure> {
        let path = self.checkpoint_file(&record.pod.uid);
        let bytes = self.bytes(record).map_err(|error| failure(&path, &error))?;
        self.durable.write(path.clone(), bytes).await.map_err(|error| failure(&path, &error))
    }

    async fn forget(&self, pod: &PodUid) -> Result<(), Failure> {
        let path = self.checkpoint_file(pod);
        self.durable.remove(path.clone()).await.map_err(|error| failure(&path, &error))?;
        // Last: while it is there, the pod is found again.
        let path = self.record_file(pod, "json");
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
    use tempfile::TempDir;

    use super::*;
    use crate::tests::values::{at, pod};

    fn open(root: &TempDir, boot: &str) -> RecordDir {
        RecordDir::open(root.path().join("records"), root.path().join("checkpoints"), boot).unwrap()
    }

    fn record(uid: &str) -> PodRecord {
        let pod = Arc::new(pod(uid, RestartPolicy::Always, &["init"], &["web"]));
        PodRecord::new(pod, Some(Arc::from(Path::new("/m/a.yaml"))), at(5))
    }

    #[tokio::test]
    async fn a_record_is_kept_replaced_and_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let records = open(&root, "one");
        let mut record = record("a");
        records.save(&record).await.unwrap();
        record.streak_base.insert("web".to_owned(), 3);
        records.save(&record).await.unwrap();
        fs::write(root.path().join("records/b.new"), "half").unwrap();
        fs::write(root.path().join("records/c.json"), "half").unwrap();
        let (found, errors) = records.load().unwrap();
        assert_eq!(found, [Found { record: record.clone(), rebooted: false }]);
        assert!(matches!(errors[..], [RecordError::Parse { .. }]));
        assert!(!root.path().join("records/b.new").exists());
        records.forget(&record.pod.uid).await.unwrap();
        records.forget(&record.pod.uid).await.unwrap();
        assert_eq!(records.load().unwrap().0, []);
    }

    #[tokio::test]
    async fn a_checkpoint_is_found_after_a_reboot_and_a_record_counts_before_it() {
        let root = tempfile::tempdir().unwrap();
        let records = open(&root, "one");
        let (old, mut new) = (record("a"), record("a"));
        new.restarting = true;
        records.checkpoint(&old).await.unwrap();
        records.save(&new).await.unwrap();
        let found = |records: &RecordDir| records.load().unwrap().0;
        assert_eq!(found(&records), [Found { record: new.clone(), rebooted: false }]);
        // The run directory may outlast a reboot, too.
        let next = open(&root, "two");
        assert_eq!(found(&next), [Found { record: new.clone(), rebooted: true }]);
        fs::remove_dir_all(root.path().join("records")).unwrap();
        let next = open(&root, "two");
        assert_eq!(found(&next), [Found { record: old.clone(), rebooted: true }]);
        next.forget(&old.pod.uid).await.unwrap();
        assert_eq!(found(&next), []);
    }

    #[tokio::test]
    async fn the_same_checkpoint_is_written_once() {
        use std::os::unix::fs::MetadataExt;
        let root = tempfile::tempdir().unwrap();
        let records = open(&root, "one");
        let inode = || fs::metadata(root.path().join("checkpoints/a.json")).unwrap().ino();
        records.checkpoint(&record("a")).await.unwrap();
        let before = inode();
        records.checkpoint(&record("a")).await.unwrap();
        assert_eq!(inode(), before);
    }

    #[tokio::test]
    async fn a_record_of_before_there_were_checkpoints_is_one_of_this_boot() {
        let root = tempfile::tempdir().unwrap();
        let records = open(&root, "one");
        fs::write(root.path().join("records/a.json"), serde_json::to_vec(&record("a")).unwrap()).unwrap();
        assert_eq!(records.load().unwrap().0, [Found { record: record("a"), rebooted: false }]);
    }
}
