//! Pods' records as files, one a pod, and copies of them for after a reboot.

mod durable;
mod read;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use coracle_linux::{PowerLoss, is_unfinished, list_directory, remove_if_there, replace_file};
use coracle_model::PodUid;
use serde::Serialize;

use self::durable::Durable;
use self::read::{Loaded, Unusable};
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
    /// A record could not be read, and may be another time. Its pod may be running.
    #[error(
        "{}: the pod record cannot be read: {error}; the agent touches no pod before it knows them all: mend that, or \
         remove the file, and what is left of its pod is removed",
        path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A record is whole, and says what this version does not know. Its pod may be running.
    #[error(
        "{}: not a pod record of this version: {error}; the agent touches no pod before it knows them all: start the \
         version that wrote it, or remove the file, and what is left of its pod is removed",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Why.
        error: serde_json::Error,
    },
    /// A file that is no record of the pod it is named after could not be set aside.
    #[error("{}: is {problem}, and cannot be renamed out of the way: {error}", path.display())]
    SetAside {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// Why.
        error: io::Error,
    },
}

/// A record with the boot it is of.
#[derive(Serialize)]
struct Stored<'a> {
    boot: &'a str,
    #[serde(flatten)]
    record: &'a PodRecord,
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
    /// checkpoint, else by a record of an earlier boot. What is provably no record, as a loss of power leaves it, is set
    /// aside, and said. What interrupted writes have left behind is removed.
    ///
    /// # Errors
    /// [`RecordError::Directory`] when a directory cannot be listed. [`RecordError::Read`] and
    /// [`RecordError::Version`] when it cannot be told what a record says: then it cannot be told, either, which
    /// pods there are.
    pub fn load(&self) -> Result<Vec<Found>, RecordError> {
        let mut found = BTreeMap::<String, Found>::new();
        for directory in [&self.records, &self.checkpoints] {
            for path in files(directory)? {
                // Of this boot a record is newer than a checkpoint, which is not even looked at beside it. Where records
                // outlast a boot, no write of theirs was waited for, and they know no status: the checkpoint says more.
                if found.get(&read::stem(&path)).is_some_and(|known| !known.rebooted) {
                    continue;
                }
                match read::read(&path) {
                    Ok(Loaded { boot, record }) => {
                        let rebooted = boot.is_some_and(|boot| boot != self.boot);
                        found.insert(record.pod.uid.to_string(), Found { record, rebooted });
                    }
                    Err(Unusable::Unread(error)) => return Err(RecordError::Read { path, error }),
                    Err(Unusable::Version(error)) => return Err(RecordError::Version { path, error }),
                    Err(Unusable::NoRecord(problem)) => set_aside(path, problem)?,
                }
            }
        }
        Ok(found.into_values().collect())
    }

    fn record_file(&self, uid: &PodUid) -> PathBuf {
        self.records.join(format!("{uid}.json"))
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
    let (unfinished, rest): (Vec<_>, Vec<_>) = list_directory(directory)
        .map_err(failed)?
        .into_iter()
        .partition(|entry| is_unfinished(&entry.file_name()));
    for entry in unfinished {
        fs::remove_file(entry.path()).map_err(failed)?;
    }
    let is_record = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json");
    Ok(rest.into_iter().map(|entry| entry.path()).filter(is_record).collect())
}

/// Moves what is no record out of the way, where nobody takes it for one and people can look at it.
fn set_aside(path: PathBuf, problem: String) -> Result<(), RecordError> {
    let aside = path.with_extension("set-aside");
    match fs::rename(&path, &aside) {
        Ok(()) => {
            tracing::error!(
                "{}: is {problem}; it is kept as {}. The pod goes on as its checkpoint says; without one, what is left of \
                 it is removed",
                path.display(),
                aside.display()
            );
            Ok(())
        }
        Err(error) => Err(RecordError::SetAside { path, problem, error }),
    }
}

/// What concerns records is short and done on the worker's thread, so that a call that was given up is never
/// carried out later.
impl Records for RecordDir {
    async fn save(&self, record: &PodRecord) -> Result<(), Failure> {
        let path = self.record_file(&record.pod.uid);
        // Without waiting for a disk: a record outlives the agent, not the machine, and so do the processes it tells of.
        let write = |bytes: Vec<u8>| Ok(replace_file(&path, 0o600, PowerLoss::MayTear, &bytes)?);
        let saved = self.bytes(record).and_then(write);
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
        let path = self.record_file(pod);
        remove_if_there(&path).map(drop).map_err(|error| failure(&path, &error))
    }
}

fn failure(path: &Path, error: &io::Error) -> Failure {
    Failure::new("FailedSync", format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests;
