//! Removing a cgroup and what is below it.

use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::files::is_gone;
use crate::{Cgroup, Error, RemoveError};

/// How long processes that were killed may take to leave.
const LIMIT: Duration = Duration::from_secs(2);
/// The first pause between attempts; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

impl Cgroup {
    /// Removes it and all below it from every hierarchy, leftovers of interrupted attempts included.
    /// What is not there is no error. Processes must have been killed; they may still be leaving.
    ///
    /// # Errors
    /// Names every directory that could not be removed; all others are gone.
    pub fn remove(&self) -> Result<(), Error> {
        let deadline = Instant::now() + LIMIT;
        let dirs: Vec<PathBuf> = self.host().mounts().map(|mount| mount.join(self.relative())).collect();
        let mut failures = Vec::new();
        for dir in &dirs {
            remove_tree(dir, &mut failures);
        }
        if failures.iter().any(|(_, error)| is_busy(error)) {
            // Some process has not left yet. The v2 tree has an event for that.
            if self.v2_dir().is_some() {
                self.wait_empty_for(LIMIT)?;
            }
            // A v1 hierarchy has none, and can lag behind by the time an exit takes.
            let mut pause = FIRST_PAUSE;
            loop {
                failures.clear();
                for dir in &dirs {
                    remove_tree(dir, &mut failures);
                }
                if !failures.iter().any(|(_, error)| is_busy(error)) || Instant::now() >= deadline {
                    break;
                }
                sleep(pause);
                pause *= 2;
            }
        }
        if failures.is_empty() { Ok(()) } else { Err(Error::Remove(RemoveError(failures))) }
    }
}

/// Removes a tree of cgroups, leaves first: their files go with them and cannot be unlinked.
fn remove_tree(dir: &Path, failures: &mut Vec<(PathBuf, io::Error)>) {
    match rustix::fs::rmdir(dir) {
        Ok(()) | Err(Errno::NOENT | Errno::NODEV) => return,
        // Has children or processes.
        Err(Errno::BUSY | Errno::NOTEMPTY) => {}
        Err(errno) => return failures.push((dir.to_owned(), errno.into())),
    }
    let before = failures.len();
    match std::fs::read_dir(dir) {
        Ok(entries) => {
            for entry in entries.filter_map(Result::ok) {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    remove_tree(&entry.path(), failures);
                }
            }
        }
        Err(error) if is_gone(&error) => return,
        Err(error) => return failures.push((dir.to_owned(), error)),
    }
    if failures.len() > before {
        return;
    }
    match rustix::fs::rmdir(dir) {
        Ok(()) | Err(Errno::NOENT | Errno::NODEV) => {}
        Err(errno) => failures.push((dir.to_owned(), errno.into())),
    }
}

fn is_busy(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENOTEMPTY))
}
