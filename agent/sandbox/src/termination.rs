//! Termination messages: what a container has left to say when it ended.
//!
//! A file of the host is mounted at `terminationMessagePath`. The container can write into it and cannot
//! put anything else in its place, so that what is read here is never a link; it is read all the same as
//! if it could be one, and never further than the limits of Kubernetes allow.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use coracle_linux::{MountAttributes, mount_setattr};
use coracle_model::{Container, Pod, TerminationMessagePolicy};
use rustix::fs::{CWD, OFlags};
use rustix::mount::{MountPropagationFlags, OpenTreeFlags, open_tree};
use serde::{Deserialize, Serialize};

use crate::error::{Error, file};
use crate::logs;

/// The name of the file in [`crate::ContainerRequest::state_dir`], to be removed by whoever made that directory.
const TERMINATION_MESSAGE_FILE: &str = "termination-log";

/// The longest message of one container, in bytes: the end of the file.
const LONGEST: usize = 4096;
/// All of a pod's messages together, in bytes. Each container has an equal share, and of a message that is
/// longer the kubelet shows the beginning.
const POD_TOTAL: usize = 12 * 1024;
/// The longest message taken from a log, in bytes, and in lines.
const LONGEST_OF_LOG: usize = 2048;
const LINES_OF_LOG: usize = 80;

/// Where a container's message comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MessageSource {
    file: PathBuf,
    /// In bytes, of what is shown.
    limit: usize,
    /// The end of the log serves where the file is empty and the container failed.
    or_log: bool,
}

impl MessageSource {
    /// For a container whose file is made in `dir`.
    pub(crate) fn new(pod: &Pod, container: &Container, dir: &Path) -> Self {
        let share = POD_TOTAL / pod.all_containers().count().max(1);
        Self {
            file: dir.join(TERMINATION_MESSAGE_FILE),
            limit: LONGEST.min(share),
            or_log: container.termination_message_policy == TerminationMessagePolicy::FallbackToLogsOnError,
        }
    }

    /// Makes the file, empty and to be written by whomever the container runs as, and gives a detached
    /// mount of it.
    pub(crate) fn make(&self) -> Result<OwnedFd, Error> {
        let failed = |step| move |source: io::Error| file(step, &self.file)(source);
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.file);
        let made = made.map_err(failed("make the termination message file"))?;
        // The mode of its creation is cut by the umask.
        let modes = made.set_permissions(fs::Permissions::from_mode(0o666));
        modes.map_err(failed("set the mode of the termination message file"))?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
        let mount = open_tree(CWD, &self.file, flags)
            .map_err(|errno| failed("copy the mount of the termination message file")(errno.into()))?;
        let private =
            MountAttributes { propagation: Some(MountPropagationFlags::PRIVATE), ..Default::default() };
        mount_setattr(&mount, private).map_err(|errno| {
            failed("make private the mount of the termination message file")(errno.into())
        })?;
        Ok(mount)
    }

    /// The message of the container that ended, in the kubelet's words where it cannot be read. `log` is
    /// its log, complete, beneath `log_dir`.
    pub(crate) fn read(&self, failed: bool, log_dir: &Path, log: &Path) -> Option<String> {
        let message = match read_end(&self.file, LONGEST) {
            Ok(message) => message,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                return Some(format!("Error on reading termination log {}: {error}", self.file.display()));
            }
        };
        if !message.is_empty() {
            return Some(text(&message, self.limit));
        }
        if !(self.or_log && failed) {
            return None;
        }
        match logs::last_lines(log_dir, log, LINES_OF_LOG, LONGEST_OF_LOG) {
            Ok(lines) if lines.is_empty() => None,
            Ok(lines) => Some(text(&lines, self.limit)),
            Err(error) => Some(format!("Error on reading termination message from logs: {error}")),
        }
    }
}

/// The last bytes of a file, at most so many.
fn read_end(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    logs::end_of(&file, metadata.len(), most as u64)
}

/// As text of so many bytes at most. A character that was cut through, at either end, is left out.
fn text(bytes: &[u8], limit: usize) -> String {
    let cut = bytes.iter().take(3).take_while(|byte| **byte & 0xc0 == 0x80).count();
    let mut text = String::from_utf8_lossy(&bytes[cut..]).into_owned();
    text.truncate(text.floor_char_boundary(limit));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(dir: &Path, limit: usize) -> MessageSource {
        MessageSource { file: dir.join("termination-log"), limit, or_log: true }
    }

    #[test]
    fn the_end_of_the_file_counts_and_the_log_only_after_a_failure() {
        let dir = tempfile::tempdir().unwrap();
        let (source, log) = (source(dir.path(), 5), dir.path().join("0.log"));
        fs::write(&log, "2026-01-01T00:00:00Z stderr F it broke\n").unwrap();
        let read = |failed| source.read(failed, dir.path(), &log);
        assert_eq!(read(false), None, "there is no file");
        assert_eq!(read(true).as_deref(), Some("it br"));
        fs::write(&source.file, "").unwrap();
        assert_eq!((read(false), read(true).as_deref()), (None, Some("it br")));
        fs::write(&source.file, "a long farewell").unwrap();
        assert_eq!((read(false).as_deref(), read(true).as_deref()), (Some("a lon"), Some("a lon")));
        // The end of the file, and of that the share of the container.
        fs::write(&source.file, format!("{}é{}", "x".repeat(5000), "y".repeat(LONGEST - 1))).unwrap();
        assert_eq!(read(false).as_deref(), Some("yyyyy"), "half a character is no text");
        fs::write(&source.file, "1234é5").unwrap();
        assert_eq!(read(false).as_deref(), Some("1234"), "half a character is no text");
        fs::write(&source.file, [0xff; 6]).unwrap();
        assert_eq!(read(false).as_deref(), Some("\u{fffd}"), "what is shown is limited");
    }

    #[test]
    fn a_link_in_the_place_of_the_file_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let source = source(dir.path(), 100);
        std::os::unix::fs::symlink("/etc/passwd", &source.file).unwrap();
        let message = source.read(false, dir.path(), Path::new("0.log")).unwrap();
        assert!(message.starts_with("Error on reading termination log"), "{message}");
    }
}
