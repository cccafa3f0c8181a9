//! A container's log file, rotated by size and count.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;

/// When a log file is rotated and how many are kept, as `containerLogMaxSize` and `containerLogMaxFiles`
/// of KubeletConfiguration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// Bytes after which the current file is put aside.
    pub max_size: u64,
    /// Files kept for a container, the current one among them. At least 2.
    pub max_files: usize,
}

/// Limits that change while logs are written to. All clones are one.
#[derive(Clone, Debug)]
pub(crate) struct SharedLogLimits(Arc<RwLock<LogLimits>>);

/// A log file could not be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} the container log {}: {source}", path.display())]
pub struct LogError {
    pub(super) step: &'static str,
    pub(super) path: PathBuf,
    #[source]
    pub(super) source: io::Error,
}

/// The current file of a container's log, open for appending.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    length: u64,
    limits: SharedLogLimits,
}

// === impl LogLimits ===

impl Default for LogLimits {
    /// The kubelet's defaults: 10 MiB and 5 files.
    fn default() -> Self {
        Self { max_size: 10 * 1024 * 1024, max_files: 5 }
    }
}

// === impl SharedLogLimits ===

impl SharedLogLimits {
    fn get(&self) -> LogLimits {
        *self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, limits: LogLimits) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = limits;
    }
}

impl From<LogLimits> for SharedLogLimits {
    fn from(limits: LogLimits) -> Self {
        Self(Arc::new(RwLock::new(limits)))
    }
}

// === impl LogFile ===

impl LogFile {
    /// Opens the log at `path` at its end, making it and its directory when they are not there.
    pub(crate) fn open(path: PathBuf, limits: SharedLogLimits) -> Result<Self, LogError> {
        let opened = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| open(&path));
        match opened.and_then(|file| Ok((file.metadata()?.len(), file))) {
            Ok((length, file)) => Ok(Self { path, file, length, limits }),
            Err(source) => Err(LogError { step: "open", path, source }),
        }
    }

    /// Bytes in the current file.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Appends records in one write. After an error the file is as before.
    pub(super) fn append(&mut self, records: &[u8]) -> Result<(), LogError> {
        match self.file.write_all(records) {
            Ok(()) => {
                self.length += records.len() as u64;
                Ok(())
            }
            Err(source) => {
                let error = self.error("append to", source);
                self.cut(self.length)?;
                Err(error)
            }
        }
    }

    /// Cuts the current file back to `length` bytes.
    pub(super) fn cut(&mut self, length: u64) -> Result<(), LogError> {
        self.file.set_len(length).map_err(|source| self.error("cut back", source))?;
        self.length = length;
        Ok(())
    }

    /// Puts the current file aside once it has reached its size, and removes the oldest ones.
    ///
    /// The name it gets is its own with the time appended, as the kubelet names it, so that log
    /// shippers follow; a reader that has it open reads on to its end.
    pub(super) fn rotate_if_full(&mut self, now: Timestamp) -> Result<(), LogError> {
        if self.length < self.limits.get().max_size {
            return Ok(());
        }
        let aside = self.aside(now).map_err(|source| self.error("list rotations of", source))?;
        fs::rename(&self.path, &aside).map_err(|source| self.error("rotate", source))?;
        self.file = open(&self.path).map_err(|source| self.error("open", source))?;
        self.length = 0;
        self.remove_oldest()
    }

    /// A free name for the current file, beside it, that sorts after every earlier one, also where the clock was set
    /// back since. Rotations within one second are numbered on from the last that is still there.
    fn aside(&self, now: Timestamp) -> io::Result<PathBuf> {
        let now = now.strftime("%Y%m%d-%H%M%S").to_string();
        let rotations = rotated(&self.path)?;
        let times = rotations.iter().filter_map(|path| path.extension()?.to_str()?.get(..now.len()));
        let is_time = |text: &&str| {
            text.bytes()
                .enumerate()
                .all(|(at, byte)| if at == 8 { byte == b'-' } else { byte.is_ascii_digit() })
        };
        let latest = times.filter(is_time).max();
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{}", latest.map_or(now.as_str(), |latest| latest.max(now.as_str()))));
        let first = PathBuf::from(&name);
        let numbered = format!("{}-", first.file_name().unwrap_or_default().to_string_lossy());
        let last = rotations
            .iter()
            .filter_map(|path| path.file_name()?.to_str()?.strip_prefix(&numbered)?.parse::<u32>().ok())
            .max();
        match last {
            None if !first.exists() => return Ok(first),
            last => name.push(format!("-{:03}", last.map_or(1, |last| last + 1))),
        }
        Ok(PathBuf::from(name))
    }

    fn remove_oldest(&self) -> Result<(), LogError> {
        let mut rotated = rotated(&self.path).map_err(|source| self.error("list rotations of", source))?;
        rotated.sort();
        let keep = self.limits.get().max_files.saturating_sub(1).max(1);
        for old in rotated.iter().rev().skip(keep) {
            match fs::remove_file(old) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(LogError { step: "remove", path: old.clone(), source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn error(&self, step: &'static str, source: io::Error) -> LogError {
        LogError { step, path: self.path.clone(), source }
    }
}

fn open(path: &Path) -> io::Result<File> {
    // A pod with the log directory mounted must not make the agent write elsewhere through a link.
    let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    File::options().append(true).create(true).mode(0o640).custom_flags(flags).open(path)
}

/// The files put aside for the log at `path`.
pub(super) fn rotated(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(Vec::new());
    };
    let prefix = format!("{name}.");
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotation_keeps_the_newest_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c/0.log");
        let limits = LogLimits { max_size: 10, max_files: 3 };
        let mut log = LogFile::open(path.clone(), limits.into()).unwrap();
        for n in 0..6 {
            log.append(format!("record {n}\n\n").as_bytes()).unwrap();
            log.rotate_if_full(Timestamp::UNIX_EPOCH).unwrap();
        }
        let mut kept = rotated(&path).unwrap();
        kept.sort();
        let read: Vec<_> = kept.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
        assert_eq!(read, ["record 4\n\n", "record 5\n\n"]);
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn rotation_keeps_the_newest_files_also_when_the_clock_is_set_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c/0.log");
        let limits = LogLimits { max_size: 10, max_files: 3 };
        let mut log = LogFile::open(path.clone(), limits.into()).unwrap();
        for (n, second) in [2_000_000, 2_000_001, 100, 100, 5].into_iter().enumerate() {
            log.append(format!("record {n}\n\n").as_bytes()).unwrap();
            log.rotate_if_full(Timestamp::from_second(second).unwrap()).unwrap();
        }
        let mut kept = rotated(&path).unwrap();
        kept.sort();
        let read: Vec<_> = kept.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
        assert_eq!(read, ["record 3\n\n", "record 4\n\n"]);
    }

    #[test]
    fn limits_change_while_a_log_is_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let limits = SharedLogLimits::from(LogLimits { max_size: 1000, max_files: 5 });
        let mut log = LogFile::open(path.clone(), limits.clone()).unwrap();
        let mut write = || {
            log.append(b"a record\n").unwrap();
            log.rotate_if_full(Timestamp::UNIX_EPOCH).unwrap();
            rotated(&path).unwrap().len()
        };
        assert_eq!(write(), 0);
        limits.set(LogLimits { max_size: 10, max_files: 2 });
        assert_eq!(write(), 1, "what is there counts");
        assert_eq!((0..6).map(|_| write()).last(), Some(1));
    }

    #[test]
    fn a_link_in_place_of_the_log_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        fs::write(&target, "untouched").unwrap();
        std::os::unix::fs::symlink(&target, dir.path().join("0.log")).unwrap();
        assert!(LogFile::open(dir.path().join("0.log"), LogLimits::default().into()).is_err());
        assert_eq!(fs::read_to_string(target).unwrap(), "untouched");
    }
}
