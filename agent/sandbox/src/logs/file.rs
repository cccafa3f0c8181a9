//! A container's log file, rotated by size and count.
//!
//! A pod may have had the log directory mounted. So the file's directory is opened, or made, beneath the log
//! directory without following a link whenever something is to be opened, renamed or removed in it, and that is
//! done by its descriptor. None is kept: a rotation is rare, and a descriptor for each container is not.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, fstat, openat, renameat, unlinkat};
use rustix::io::Errno;

use super::beneath::make_beneath;

/// How long a file that could not be opened is left alone, at first and at most; it doubles in between.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

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

/// The current file of a container's log, open for appending where it could be opened.
#[derive(Debug)]
pub(crate) struct LogFile {
    /// What the file lies beneath.
    log_dir: PathBuf,
    path: PathBuf,
    file: Option<File>,
    length: u64,
    limits: SharedLogLimits,
    /// After a failure to open it: when that is tried again, and how long that is after the failure.
    retry: Option<(Instant, Duration)>,
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
    /// The log at `path`, which lies beneath `log_dir`. It is not open yet.
    pub(crate) fn new(log_dir: &Path, path: PathBuf, limits: SharedLogLimits) -> Self {
        let log_dir = log_dir.to_owned();
        Self { log_dir, path, file: None, length: 0, limits, retry: None }
    }

    /// Opens the file at its end, making it and its directory, where it is not open: it was never before, or could
    /// not be, or somebody has removed it. `false` while it is too soon to try again.
    pub(super) fn ensure_open(&mut self, now: Instant) -> Result<bool, LogError> {
        // A file without a name takes all that is written to it, and nobody can read that.
        let removed = |file: &File| fstat(file).is_ok_and(|stat| stat.st_nlink == 0);
        if self.file.as_ref().is_some_and(removed) {
            (self.file, self.length) = (None, 0);
        }
        if self.file.is_some() {
            return Ok(true);
        }
        if self.retry.is_some_and(|(not_before, _)| now < not_before) {
            return Ok(false);
        }
        match self.directory().and_then(|dir| self.open_in(&dir)) {
            Ok((file, length)) => {
                (self.file, self.length, self.retry) = (Some(file), length, None);
                Ok(true)
            }
            Err(error) => {
                let wait = self.retry.map_or(FIRST_WAIT, |(_, wait)| (wait * 2).min(LONGEST_WAIT));
                self.retry = Some((now + wait, wait));
                Err(error)
            }
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes in the current file.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Appends records in one write. After an error the file is as before.
    pub(super) fn append(&mut self, records: &[u8]) -> Result<(), LogError> {
        let mut file = self.opened("append to")?;
        match file.write_all(records) {
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
        self.opened("cut back")?.set_len(length).map_err(|source| self.error("cut back", source))?;
        self.length = length;
        Ok(())
    }

    /// Puts the current file aside once it has reached its size, and removes the oldest ones.
    ///
    /// The name it gets is its own with the time appended, as the kubelet names it, so that log
    /// shippers follow; a reader that has it open reads on to its end. After an error what is written goes on
    /// where it went before, and the next call takes up what this one has not done.
    pub(super) fn rotate_if_full(&mut self, now: Timestamp) -> Result<(), LogError> {
        if self.file.is_none() || self.length < self.limits.get().max_size {
            return Ok(());
        }
        let dir = self.directory()?;
        let aside = self.aside(&dir, now).map_err(|errno| self.error("list rotations of", errno))?;
        match renameat(&dir, self.name(), &dir, &aside) {
            // Somebody has removed it, or a rotation before this one came no further.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(self.error("rotate", errno)),
        }
        let (file, length) = self.open_in(&dir)?;
        (self.file, self.length) = (Some(file), length);
        self.remove_oldest(&dir)
    }

    /// A free name for the current file, beside it, that sorts after every earlier one, also where the clock was set
    /// back since. Rotations within one second are numbered on from the last that is still there.
    fn aside(&self, dir: &OwnedFd, now: Timestamp) -> Result<OsString, Errno> {
        let now = now.strftime("%Y%m%d-%H%M%S").to_string();
        let rotations = rotated(dir, self.name())?;
        let times =
            rotations.iter().filter_map(|name| Path::new(name).extension()?.to_str()?.get(..now.len()));
        let is_time = |text: &&str| {
            text.bytes()
                .enumerate()
                .all(|(at, byte)| if at == 8 { byte == b'-' } else { byte.is_ascii_digit() })
        };
        let latest = times.filter(is_time).max();
        let mut aside = self.name().to_owned();
        aside.push(format!(".{}", latest.map_or(now.as_str(), |latest| latest.max(now.as_str()))));
        let numbered = format!("{}-", aside.to_string_lossy());
        let last = rotations
            .iter()
            .filter_map(|name| name.to_str()?.strip_prefix(&numbered)?.parse::<u32>().ok())
            .max();
        if last.is_some() || rotations.contains(&aside) {
            aside.push(format!("-{:03}", last.map_or(1, |last| last.saturating_add(1))));
        }
        Ok(aside)
    }

    fn remove_oldest(&self, dir: &OwnedFd) -> Result<(), LogError> {
        let mut rotated =
            rotated(dir, self.name()).map_err(|errno| self.error("list rotations of", errno))?;
        rotated.sort();
        let keep = self.limits.get().max_files.saturating_sub(1).max(1);
        for old in rotated.iter().rev().skip(keep) {
            match unlinkat(dir, old, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => {
                    let path = self.path.with_file_name(old);
                    return Err(LogError { step: "remove", path, source: errno.into() });
                }
            }
        }
        Ok(())
    }

    fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }

    fn directory(&self) -> Result<OwnedFd, LogError> {
        let directory = self.path.parent().unwrap_or(&self.log_dir);
        make_beneath(&self.log_dir, directory)
            .map_err(|source| self.error("open, or make, the directory of", source))
    }

    /// The file in its directory, open for appending, and its length.
    fn open_in(&self, dir: &OwnedFd) -> Result<(File, u64), LogError> {
        // What a pod has put in its place is neither followed, if it is a link, nor waited for, if it is a pipe.
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC;
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let opened = openat(dir, self.name(), flags, Mode::from_raw_mode(0o640));
        let file = File::from(opened.map_err(|errno| self.error("open", errno))?);
        let metadata = file.metadata().map_err(|source| self.error("look at", source))?;
        if !metadata.is_file() {
            return Err(self.error("open", io::Error::other("it is not a regular file")));
        }
        Ok((file, metadata.len()))
    }

    fn opened(&self, step: &'static str) -> Result<&File, LogError> {
        self.file.as_ref().ok_or_else(|| self.error(step, io::Error::other("it is not open")))
    }

    fn error(&self, step: &'static str, source: impl Into<io::Error>) -> LogError {
        LogError { step, path: self.path.clone(), source: source.into() }
    }
}

/// The names of the files put aside for the log of that name in `dir`.
pub(super) fn rotated(dir: &OwnedFd, log: &OsStr) -> Result<Vec<OsString>, Errno> {
    let prefix = [log.as_bytes(), b"."].concat();
    let mut found = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name.starts_with(&prefix) {
            found.push(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// The log `c/0.log`, open, in a directory of its own.
    struct Scene {
        dir: tempfile::TempDir,
        log: LogFile,
    }

    impl Scene {
        fn new(max_size: u64, max_files: usize) -> Self {
            Self::with(LogLimits { max_size, max_files }.into())
        }

        fn with(limits: SharedLogLimits) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let mut log = LogFile::new(dir.path(), dir.path().join("c/0.log"), limits);
            assert!(log.ensure_open(Instant::now()).unwrap());
            Self { dir, log }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join("c").join(name)
        }

        fn read(&self) -> String {
            fs::read_to_string(self.path("0.log")).unwrap()
        }

        /// What is in the files put aside, the oldest first.
        fn aside(&self) -> Vec<String> {
            let dir = make_beneath(self.dir.path(), &self.dir.path().join("c")).unwrap();
            let mut names = rotated(&dir, OsStr::new("0.log")).unwrap();
            names.sort();
            let read = |name: &OsString| fs::read_to_string(self.dir.path().join("c").join(name)).unwrap();
            names.iter().map(read).collect()
        }
    }

    #[test]
    fn rotation_keeps_the_newest_files() {
        let mut scene = Scene::new(10, 3);
        for n in 0..6 {
            scene.log.append(format!("record {n}\n\n").as_bytes()).unwrap();
            scene.log.rotate_if_full(Timestamp::UNIX_EPOCH).unwrap();
        }
        assert_eq!(scene.aside(), ["record 4\n\n", "record 5\n\n"]);
        assert_eq!(scene.read(), "");
    }

    #[test]
    fn rotation_keeps_the_newest_files_also_when_the_clock_is_set_back() {
        let mut scene = Scene::new(10, 3);
        for (n, second) in [2_000_000, 2_000_001, 100, 100, 5].into_iter().enumerate() {
            scene.log.append(format!("record {n}\n\n").as_bytes()).unwrap();
            scene.log.rotate_if_full(Timestamp::from_second(second).unwrap()).unwrap();
        }
        assert_eq!(scene.aside(), ["record 3\n\n", "record 4\n\n"]);
    }

    #[test]
    fn limits_change_while_a_log_is_written_to() {
        let limits = SharedLogLimits::from(LogLimits { max_size: 1000, max_files: 5 });
        let mut scene = Scene::with(limits.clone());
        let mut write = || {
            scene.log.append(b"a record\n").unwrap();
            scene.log.rotate_if_full(Timestamp::UNIX_EPOCH).unwrap();
            scene.aside().len()
        };
        assert_eq!(write(), 0);
        limits.set(LogLimits { max_size: 10, max_files: 2 });
        assert_eq!(write(), 1, "what is there counts");
        assert_eq!((0..6).map(|_| write()).last(), Some(1));
    }

    #[test]
    fn a_log_that_was_removed_is_made_anew() {
        let mut scene = Scene::new(10, 3);
        scene.log.append(b"gone\n").unwrap();
        fs::remove_file(scene.path("0.log")).unwrap();
        assert!(scene.log.ensure_open(Instant::now()).unwrap());
        assert_eq!(scene.log.length(), 0);
        scene.log.append(b"after\n").unwrap();
        assert_eq!(scene.read(), "after\n");
        fs::remove_dir_all(scene.path("")).unwrap();
        assert!(scene.log.ensure_open(Instant::now()).unwrap());
        scene.log.append(b"and its directory\n").unwrap();
        assert_eq!(scene.read(), "and its directory\n");
        // Also where it is time to put it aside.
        fs::remove_dir_all(scene.path("")).unwrap();
        scene.log.rotate_if_full(Timestamp::UNIX_EPOCH).unwrap();
        scene.log.append(b"again\n").unwrap();
        assert_eq!((scene.read().as_str(), scene.aside().len()), ("again\n", 0));
    }

    #[test]
    fn a_rotation_that_fails_half_way_is_taken_up_by_the_next() {
        let mut scene = Scene::new(10, 3);
        scene.log.append(b"0123456789\n").unwrap();
        // As a rotation leaves it that could rename the file and open none.
        fs::rename(scene.path("0.log"), scene.path("0.log.19700101-000000")).unwrap();
        scene.log.append(b"meanwhile\n").unwrap();
        scene.log.rotate_if_full(Timestamp::UNIX_EPOCH).unwrap();
        scene.log.append(b"next\n").unwrap();
        assert_eq!(scene.aside(), ["0123456789\nmeanwhile\n"]);
        assert_eq!(scene.read(), "next\n");
    }

    #[test]
    fn what_cannot_be_opened_is_tried_again_at_growing_intervals() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("c"), "in the place of the directory").unwrap();
        let mut log = LogFile::new(dir.path(), dir.path().join("c/0.log"), LogLimits::default().into());
        let mut now = Instant::now();
        for wait in [FIRST_WAIT, FIRST_WAIT * 2, FIRST_WAIT * 4] {
            log.ensure_open(now).unwrap_err();
            assert!(log.append(b"x").is_err());
            assert!(!log.ensure_open(now + wait - Duration::from_millis(1)).unwrap(), "too soon");
            now += wait;
        }
        fs::remove_file(dir.path().join("c")).unwrap();
        assert!(log.ensure_open(now).unwrap());
        log.append(b"x").unwrap();
    }

    #[test]
    fn nothing_is_written_in_the_place_of_a_log() {
        let elsewhere = tempfile::tempdir().unwrap();
        let target = elsewhere.path().join("0.log");
        fs::write(&target, "untouched").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let refused = |path: &str| {
            let mut log = LogFile::new(dir.path(), dir.path().join(path), LogLimits::default().into());
            log.ensure_open(Instant::now()).unwrap_err()
        };
        fs::create_dir(dir.path().join("c")).unwrap();
        symlink(&target, dir.path().join("c/0.log")).unwrap();
        refused("c/0.log");
        symlink(elsewhere.path(), dir.path().join("link")).unwrap();
        refused("link/0.log");
        refused("link/pod/0.log");
        let pipe = rustix::fs::FileType::Fifo;
        let place = dir.path().join("c/1.log");
        rustix::fs::mknodat(rustix::fs::CWD, &place, pipe, Mode::from_raw_mode(0o600), 0).unwrap();
        refused("c/1.log");
        let _reader = File::options().read(true).write(true).open(&place).unwrap();
        refused("c/1.log");
        assert_eq!(fs::read_to_string(&target).unwrap(), "untouched");
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_rotation_follows_no_link_that_a_pod_has_put_in_place_of_the_directory() {
        let mut scene = Scene::new(10, 2);
        let elsewhere = tempfile::tempdir().unwrap();
        for name in ["0.log", "0.log.19700101-000000", "0.log.19700101-000001", "0.log.19700101-000002"] {
            fs::write(elsewhere.path().join(name), "untouched").unwrap();
        }
        scene.log.append(b"0123456789\n").unwrap();
        fs::rename(scene.path(""), scene.dir.path().join("moved")).unwrap();
        symlink(elsewhere.path(), scene.dir.path().join("c")).unwrap();
        scene.log.rotate_if_full(Timestamp::UNIX_EPOCH).unwrap_err();
        // What is written goes on where it went.
        scene.log.append(b"more\n").unwrap();
        assert_eq!(fs::read_to_string(scene.dir.path().join("moved/0.log")).unwrap(), "0123456789\nmore\n");
        let left: Vec<_> = fs::read_dir(elsewhere.path()).unwrap().map(|entry| entry.unwrap()).collect();
        assert_eq!(left.len(), 4);
        assert!(left.iter().all(|entry| fs::read_to_string(entry.path()).unwrap() == "untouched"));
    }
}
