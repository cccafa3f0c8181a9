//! Which network namespace is at a path.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// What tells one network namespace from every other there was at the same path.
///
/// `/proc/<pid>/ns/net` leads to the namespace of whoever has that pid. A plugin that is called with such a path after
/// pause has ended would work on another process's interfaces, or the host's. The kernel gives numbers of namespaces
/// again, too, so the time the process was started goes with them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NamespaceId {
    device: u64,
    inode: u64,
    /// In clock ticks since boot; nothing for a path that is no process's.
    started: Option<u64>,
}

// === impl NamespaceId ===

impl NamespaceId {
    /// The one at this path.
    ///
    /// # Errors
    /// As `stat(2)`, also of the process.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        let started = process(path).map(started).transpose()?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino(), started })
    }

    /// Whether it is the namespace this process is in.
    ///
    /// # Errors
    /// As `stat(2)`.
    pub(super) fn is_own(&self) -> io::Result<bool> {
        let own = fs::metadata("/proc/self/ns/net")?;
        Ok((own.dev(), own.ino()) == (self.device, self.inode))
    }
}

/// The directory of the process that the path is of.
fn process(path: &Path) -> Option<&Path> {
    let directory = path.strip_suffix("ns/net")?;
    let pid = directory.strip_prefix("/proc").ok()?.to_str()?;
    pid.bytes().all(|byte| byte.is_ascii_digit()).then_some(directory)
}

/// The 22nd field of proc_pid_stat(5). The second one may hold anything, and ends with the last parenthesis.
fn started(process: &Path) -> io::Result<u64> {
    let stat = fs::read_to_string(process.join("stat"))?;
    let after_name = stat.rsplit_once(')').map(|(_, rest)| rest);
    after_name
        .and_then(|rest| rest.split_whitespace().nth(19)?.parse().ok())
        .ok_or_else(|| io::Error::other("/proc/<pid>/stat has no start time"))
}

/// Paths without their end.
trait StripSuffix {
    fn strip_suffix(&self, end: &str) -> Option<&Path>;
}

impl StripSuffix for Path {
    fn strip_suffix(&self, end: &str) -> Option<&Path> {
        let directory = self.ancestors().nth(Path::new(end).components().count())?;
        self.ends_with(end).then_some(directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_of_a_process_is_told_with_its_start() {
        let path = format!("/proc/{}/ns/net", std::process::id());
        let own = NamespaceId::of(Path::new(&path)).unwrap();
        assert!(own.started.is_some());
        assert!(own.is_own().unwrap());
        assert_eq!(NamespaceId::of(Path::new(&path)).unwrap(), own);
        let elsewhere = NamespaceId::of(Path::new("/proc/self/ns/net")).unwrap();
        assert_eq!((elsewhere.inode, elsewhere.started), (own.inode, None));
        let other = tempfile::NamedTempFile::new().unwrap();
        assert!(!NamespaceId::of(other.path()).unwrap().is_own().unwrap());
        assert!(NamespaceId::of(Path::new("/proc/4294967295/ns/net")).is_err());
    }
}
