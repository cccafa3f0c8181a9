//! The files of one container's log, opened so that nothing a pod can do to them leads elsewhere.
//!
//! A pod that mounts the log directory can replace a log by a symbolic link to a file of the host and
//! have the agent, which is root, read it out. So every path is resolved beneath a descriptor of the log
//! directory, without following any link, and only regular files are read.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, StatxFlags, fstat, openat2, statx};

use super::position::FileId;

/// The directory of one container's logs, and which of its runs is meant.
#[derive(Debug)]
pub(crate) struct LogDirectory {
    directory: OwnedFd,
    current: String,
}

/// One file of a log. Rotation makes the current one an older one, and may compress that later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// What rotation added to the name, by which the older ones sort; `None` for the current one.
    rotated: Option<String>,
    name: String,
    pub(crate) file: FileId,
}

/// An open file of a log.
#[derive(Debug)]
pub(crate) enum Source {
    Plain(File),
    Gzip(Box<MultiGzDecoder<File>>),
}

/// How often the directory is read again where it has changed meanwhile. A rotation takes longer than a look.
const LOOKS: u32 = 1000;

const RESOLVE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

// === impl LogDirectory ===

impl LogDirectory {
    /// Opens `<logs>/<pod>/<container>`. Neither name may hold a `/`; both come from validated names.
    pub(crate) fn open(logs: &Path, pod: &str, container: &str, attempt: u32) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(logs, flags, Mode::empty())?;
        let beneath = format!("{pod}/{container}");
        let directory = openat2(&root, &beneath, flags | OFlags::NOFOLLOW, Mode::empty(), RESOLVE)?;
        Ok(Self { directory, current: format!("{attempt}.log") })
    }

    /// Every file of the log, oldest first, the current one last.
    ///
    /// A file that is renamed while a directory is read may be found under neither name, and the name it had by
    /// then be the next one's. What was renamed during one look stands still during the second, unless yet
    /// another was: so two looks that see the same have seen all.
    pub(crate) fn segments(&self) -> io::Result<Vec<Segment>> {
        let mut seen = self.look()?;
        for _ in 0..LOOKS {
            let again = self.look()?;
            if again == seen {
                return Ok(seen);
            }
            seen = again;
        }
        Err(io::Error::other("the log is rotated faster than its directory can be read"))
    }

    /// Whether a file is the current one.
    pub(crate) fn is_current(&self, segment: &Segment) -> io::Result<bool> {
        Ok(self.identify(&self.current)? == Some(segment.file))
    }

    fn look(&self) -> io::Result<Vec<Segment>> {
        let mut segments: Vec<Segment> = Vec::new();
        for entry in Dir::read_from(&self.directory)? {
            let Ok(name) = entry?.file_name().to_owned().into_string() else { continue };
            let Some(rotated) = self.rotated(&name) else { continue };
            if let Some(file) = self.identify(&name)? {
                segments.push(Segment { rotated, name, file });
            }
        }
        // `None` sorts before every `Some`; the current file is the newest.
        segments.sort_by(|a, b| {
            a.rotated.is_none().cmp(&b.rotated.is_none()).then_with(|| a.rotated.cmp(&b.rotated))
        });
        // While a file is being compressed it stands there twice.
        segments.dedup_by(|later, kept| later.rotated.is_some() && later.rotated == kept.rotated);
        Ok(segments)
    }

    /// What a file is known by; `None` when it is not there, or is no regular file.
    fn identify(&self, name: &str) -> io::Result<Option<FileId>> {
        let wanted = StatxFlags::TYPE | StatxFlags::INO | StatxFlags::BTIME;
        match statx(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW, wanted) {
            Ok(stat) if FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile => {
                let time = stat.stx_btime;
                let born = time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec.into());
                Ok(Some(FileId { inode: stat.stx_ino, born }))
            }
            Ok(_) | Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Opens a file of the log; `None` when it is gone by now.
    pub(crate) fn open_segment(&self, segment: &Segment) -> io::Result<Option<Source>> {
        // NONBLOCK: a fifo put in place of the file must not hold the reader.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match openat2(&self.directory, &segment.name, flags, Mode::empty(), RESOLVE) {
            Ok(file) => file,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let stat = fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} is not a regular file", segment.name),
            ));
        }
        if stat.st_ino != segment.file.inode {
            return Ok(None);
        }
        let file = File::from(file);
        Ok(Some(if segment.is_compressed() {
            Source::Gzip(Box::new(MultiGzDecoder::new(file)))
        } else {
            Source::Plain(file)
        }))
    }

    /// What rotation added to a name of this log; `None` for another file.
    #[allow(clippy::option_option)]
    fn rotated(&self, name: &str) -> Option<Option<String>> {
        let added = name.strip_prefix(self.current.as_str())?;
        if added.is_empty() {
            return Some(None);
        }
        let time = added.strip_prefix('.')?;
        let time = time.strip_suffix(".gz").unwrap_or(time);
        // `0.log.20260102-150405`; not the `.tmp` of a compression under way.
        let digits = !time.is_empty() && time.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        digits.then(|| Some(time.to_owned()))
    }
}

impl AsFd for LogDirectory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

// === impl Segment ===

impl Segment {
    pub(crate) fn is_compressed(&self) -> bool {
        self.rotated.is_some() && self.name.ends_with(".gz")
    }
}

// === impl Source ===

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn container() -> (tempfile::TempDir, std::path::PathBuf) {
        let logs = tempfile::tempdir().unwrap();
        let directory = logs.path().join("ns_pod_uid/c");
        fs::create_dir_all(&directory).unwrap();
        (logs, directory)
    }

    #[test]
    fn files_come_in_the_order_they_were_written() {
        let (logs, directory) = container();
        for name in [
            "0.log",
            "0.log.20260102-150405",
            "0.log.20260101-150405.gz",
            "0.log.20260102-150405.gz",
            "0.log.20260103-150405.tmp",
            "1.log",
            "10.log",
            "0.logx",
            "0.log.",
        ] {
            fs::write(directory.join(name), name).unwrap();
        }
        fs::create_dir(directory.join("0.log.1")).unwrap();
        let log = LogDirectory::open(logs.path(), "ns_pod_uid", "c", 0).unwrap();
        let names: Vec<_> = log.segments().unwrap().into_iter().map(|segment| segment.rotated).collect();
        assert_eq!(names, [Some("20260101-150405".to_owned()), Some("20260102-150405".to_owned()), None]);
    }

    #[test]
    fn a_link_in_place_of_a_log_is_not_followed() {
        let (logs, directory) = container();
        let secret = logs.path().join("secret");
        fs::write(&secret, "root:x\n").unwrap();
        symlink(&secret, directory.join("0.log")).unwrap();
        let log = LogDirectory::open(logs.path(), "ns_pod_uid", "c", 0).unwrap();
        assert_eq!(log.segments().unwrap(), []);
        // Swapped after the listing.
        let segment = Segment { rotated: None, name: "0.log".to_owned(), file: FileId { inode: 0, born: 0 } };
        assert!(log.open_segment(&segment).is_err());

        let elsewhere = logs.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        symlink(&elsewhere, logs.path().join("ns_pod_uid/linked")).unwrap();
        assert!(LogDirectory::open(logs.path(), "ns_pod_uid", "linked", 0).is_err());
        symlink(logs.path().join("ns_pod_uid"), logs.path().join("ns_link_uid")).unwrap();
        assert!(LogDirectory::open(logs.path(), "ns_link_uid", "c", 0).is_err());
    }

    #[test]
    fn a_fifo_in_place_of_a_log_does_not_hold_the_reader() {
        let (logs, directory) = container();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            directory.join("0.log"),
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let log = LogDirectory::open(logs.path(), "ns_pod_uid", "c", 0).unwrap();
        let segment = Segment { rotated: None, name: "0.log".to_owned(), file: FileId { inode: 0, born: 0 } };
        let error = log.open_segment(&segment).unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");
    }
}
