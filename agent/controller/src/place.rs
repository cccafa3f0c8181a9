//! A directory that may not be there yet, may go, and may be replaced or mounted over: watched by path.
//!
//! inotify watches inodes, so a watch says nothing about the path it was set by. Beside the directory its
//! nearest existing ancestor is watched, for the directory to appear or to be replaced, and the table of
//! mounts, for it to be covered or uncovered. Whatever happens there, [`Place::is_current`] tells whether
//! the watch is still on what the path names.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use futures_util::StreamExt;
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::ControllerError;

/// Room for some hundred events at a time.
const BUFFER: usize = 8192;

/// What happened in the directory.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Happened {
    /// Files that can be read now or are gone, by name.
    pub(crate) files: BTreeMap<OsString, FileEvent>,
    /// Events were lost, or links lead elsewhere: everything is to be looked at again.
    pub(crate) anything: bool,
}

/// What happened last to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileEvent {
    /// Someone has begun to write it.
    Writing,
    /// It was closed after writing, put there or linked.
    Complete,
    /// It was removed or moved away.
    Gone,
}

/// The watch on a directory's path.
pub(crate) struct Place {
    path: PathBuf,
    events: EventStream<Vec<u8>>,
    /// The watch on the directory and which directory it is; `None` when there is none.
    directory: Option<(WatchDescriptor, Identity)>,
}

/// Device and inode.
type Identity = (u64, u64);

/// The table of mounts of this mount namespace.
pub(crate) struct Mounts(AsyncFd<File>);

/// Whether a name is one of a manifest. Hidden files are not, nor are the copies editors keep.
pub(crate) fn is_manifest(name: &Path) -> bool {
    let text = name.to_string_lossy();
    let known = name.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json");
    known && !text.starts_with(['.', '#'])
}

// === impl Place ===

impl Place {
    /// Watches what is there now.
    pub(crate) fn establish(path: &Path) -> Result<Self, ControllerError> {
        loop {
            if let Some(place) = Self::try_establish(path)? {
                return Ok(place);
            }
        }
    }

    /// `None` when the path changed under the attempt.
    fn try_establish(path: &Path) -> Result<Option<Self>, ControllerError> {
        let failed = |at: &Path, error| ControllerError::Watch { path: at.to_owned(), error };
        let inotify = Inotify::init().map_err(|error| failed(path, error))?;
        let mut watches = inotify.watches();
        let before = identity(path);
        let ancestor = nearest_ancestor(path);
        let around = WatchMask::CREATE
            | WatchMask::MOVED_TO
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        match watches.add(&ancestor, around) {
            Err(error) if is_absent(&error) => return Ok(None),
            result => result.map_err(|error| failed(&ancestor, error))?,
        };
        let inside = WatchMask::CLOSE_WRITE
            | WatchMask::MODIFY
            | WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MOVED_FROM
            | WatchMask::MOVED_TO
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        let watch = match watches.add(path, inside) {
            // Also one that cannot even be looked at, on a server that does not answer.
            Err(error) if is_absent(&error) || before.is_none() => None,
            result => Some(result.map_err(|error| failed(path, error))?),
        };
        if identity(path) != before
            || nearest_ancestor(path) != ancestor
            || watch.is_some() != before.is_some()
        {
            return Ok(None);
        }
        let events = inotify.into_event_stream(vec![0; BUFFER]).map_err(|error| failed(path, error))?;
        Ok(Some(Self { path: path.to_owned(), events, directory: watch.zip(before) }))
    }

    /// Whether there is a directory.
    pub(crate) fn is_there(&self) -> bool {
        self.directory.is_some()
    }

    /// Whether the watch is on what the path names now.
    pub(crate) fn is_current(&self) -> bool {
        identity(&self.path) == self.directory.as_ref().map(|(_, identity)| *identity)
    }

    /// Waits for the next event, and notes it. May be dropped and called again.
    pub(crate) async fn next(&mut self, happened: &mut Happened) -> Result<(), ControllerError> {
        match self.events.next().await {
            Some(Ok(event)) => self.note(event, happened),
            Some(Err(error)) => return Err(ControllerError::Watch { path: self.path.clone(), error }),
            None => happened.anything = true,
        }
        Ok(())
    }

    fn note(&self, event: EventOwned, happened: &mut Happened) {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            happened.anything = true;
            return;
        }
        let inside = self.directory.as_ref().is_some_and(|(watch, _)| *watch == event.wd);
        // Of the surroundings, and of the directory as such, it is enough to have been woken.
        let Some(name) = event.name.filter(|_| inside) else { return };
        if name.as_encoded_bytes().starts_with(b"..") {
            // `..data` and its like: the links of a volume that is swapped as a whole.
            happened.anything = true;
            return;
        }
        if !is_manifest(Path::new(&name)) || event.mask.contains(EventMask::ISDIR) {
            return;
        }
        let gone = EventMask::DELETE | EventMask::MOVED_FROM;
        let complete = EventMask::CLOSE_WRITE | EventMask::MOVED_TO;
        let what = if event.mask.intersects(gone) {
            FileEvent::Gone
        } else if event.mask.intersects(complete)
            || event.mask.contains(EventMask::CREATE) && self.is_linked(&name)
        {
            FileEvent::Complete
        } else {
            FileEvent::Writing
        };
        happened.files.insert(name, what);
    }

    /// Whether a new name was given to what is complete: nobody will close it.
    fn is_linked(&self, name: &OsString) -> bool {
        fs::symlink_metadata(self.path.join(name)).is_ok_and(|found| found.is_symlink() || found.nlink() > 1)
    }
}

fn identity(path: &Path) -> Option<Identity> {
    let found = fs::metadata(path).ok().filter(fs::Metadata::is_dir)?;
    Some((found.dev(), found.ino()))
}

/// The deepest directory above the path that is there.
fn nearest_ancestor(path: &Path) -> PathBuf {
    let found = path.ancestors().skip(1).find(|ancestor| identity(ancestor).is_some());
    found.unwrap_or(Path::new("/")).to_owned()
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

// === impl Mounts ===

impl Mounts {
    /// Begins to follow the table.
    pub(crate) fn follow() -> Result<Self, ControllerError> {
        let file = File::open("/proc/self/mountinfo").map_err(ControllerError::Mounts)?;
        // Deprecated for types that do not own the descriptor they show; a File does.
        #[expect(deprecated)]
        AsyncFd::with_interest(file, Interest::PRIORITY).map(Self).map_err(ControllerError::Mounts)
    }

    /// Waits for a change: the kernel marks the file as having an exceptional condition (proc(5)).
    pub(crate) async fn changed(&self) -> Result<(), ControllerError> {
        let mut ready = self.0.ready(Interest::PRIORITY).await.map_err(ControllerError::Mounts)?;
        ready.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_manifests() {
        for good in ["web.yaml", "web.yml", "web.json", "a.b.yaml"] {
            assert!(is_manifest(Path::new(good)), "{good}");
        }
        for bad in [
            "web.yaml~",
            ".web.yaml",
            ".web.yaml.swp",
            "#web.yaml#",
            ".#web.yaml",
            "#web.yaml",
            "web.yaml.bak",
            "4913",
            "web",
            "yaml",
            ".yaml",
            "..data",
            "web.YAML.tmp",
        ] {
            assert!(!is_manifest(Path::new(bad)), "{bad}");
        }
    }
}
