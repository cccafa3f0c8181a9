//! Directories watched by inotify: that something was made, removed or moved in one of them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use futures_util::StreamExt as _;
use inotify::{EventMask, EventStream, Inotify, WatchDescriptor, WatchMask, Watches};

use crate::PluginError;

/// Room for some hundred events at a time.
const BUFFER: usize = 16 * 1024;

/// Watches on directories.
pub(crate) struct Watcher {
    events: EventStream<Vec<u8>>,
    watches: Watches,
    directories: BTreeMap<PathBuf, WatchDescriptor>,
}

/// What happened.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Happened {
    /// Something of this name was made or moved there, in this directory.
    Came(PathBuf, OsString),
    /// It was removed or moved away.
    Went(PathBuf, OsString),
    /// A watched directory itself is gone, or more happened than could be told.
    Anything,
}

// === impl Watcher ===

impl Watcher {
    /// One that watches nothing yet.
    pub(crate) fn new() -> Result<Self, PluginError> {
        let failed = |error| PluginError::Watch { path: PathBuf::new(), error };
        let inotify = Inotify::init().map_err(failed)?;
        let watches = inotify.watches();
        let events = inotify.into_event_stream(vec![0; BUFFER]).map_err(failed)?;
        Ok(Self { events, watches, directories: BTreeMap::new() })
    }

    /// Watches these directories and no others. Whether one of them was not watched before: what is in it may have changed
    /// between the last look and now, so it is to be looked at again.
    pub(crate) fn watch(&mut self, directories: &BTreeSet<PathBuf>) -> Result<bool, PluginError> {
        let gone: Vec<PathBuf> =
            self.directories.keys().filter(|path| !directories.contains(*path)).cloned().collect();
        for path in gone {
            self.forget(&path);
        }
        let mut any = false;
        for path in directories {
            if !self.directories.contains_key(path) {
                any |= self.add(path)?;
            }
        }
        Ok(any)
    }

    fn add(&mut self, path: &Path) -> Result<bool, PluginError> {
        let mask = WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MOVED_FROM
            | WatchMask::MOVED_TO
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        match self.watches.add(path, mask) {
            Ok(watch) => {
                self.directories.insert(path.to_owned(), watch);
                Ok(true)
            }
            // It went between the look and now; what it was in tells.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(false)
            }
            Err(error) => Err(PluginError::Watch { path: path.to_owned(), error }),
        }
    }

    fn forget(&mut self, path: &Path) {
        let Some(watch) = self.directories.remove(path) else { return };
        // Two paths of one directory have one watch.
        if !self.directories.values().any(|other| *other == watch) {
            // The kernel has dropped it already where the directory is gone.
            let _ = self.watches.remove(watch);
        }
    }

    /// The next thing that happens. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Result<Happened, PluginError> {
        loop {
            let event = match self.events.next().await {
                Some(Ok(event)) => event,
                Some(Err(error)) => return Err(PluginError::Watch { path: PathBuf::new(), error }),
                None => return Err(PluginError::Task("inotify ended".to_owned())),
            };
            if event.mask.contains(EventMask::Q_OVERFLOW) {
                return Ok(Happened::Anything);
            }
            let path =
                self.directories.iter().find(|(_, watch)| **watch == event.wd).map(|(path, _)| path.clone());
            let Some(path) = path else { continue };
            if event.mask.intersects(EventMask::IGNORED | EventMask::DELETE_SELF | EventMask::MOVE_SELF) {
                // The watch is on a directory that has another path now, or none.
                self.forget(&path);
                return Ok(Happened::Anything);
            }
            let Some(name) = event.name else { continue };
            let came = event.mask.intersects(EventMask::CREATE | EventMask::MOVED_TO);
            return Ok(if came { Happened::Came(path, name) } else { Happened::Went(path, name) });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    async fn next(watcher: &mut Watcher) -> Happened {
        tokio::time::timeout(Duration::from_secs(30), watcher.next())
            .await
            .expect("something happens")
            .expect("inotify works")
    }

    #[tokio::test]
    async fn what_comes_and_goes_is_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().to_owned();
        let mut watcher = Watcher::new().expect("inotify");
        let wanted: BTreeSet<_> = [path.clone(), path.join("none")].into();
        assert!(watcher.watch(&wanted).expect("a watch"));
        assert!(!watcher.watch(&wanted).expect("the same"));
        fs::write(path.join("a"), "").expect("a file");
        assert_eq!(next(&mut watcher).await, Happened::Came(path.clone(), "a".into()));
        fs::rename(path.join("a"), path.join("b")).expect("a rename");
        assert_eq!(next(&mut watcher).await, Happened::Went(path.clone(), "a".into()));
        assert_eq!(next(&mut watcher).await, Happened::Came(path.clone(), "b".into()));
        fs::create_dir(path.join("none")).expect("a directory");
        assert_eq!(next(&mut watcher).await, Happened::Came(path.clone(), "none".into()));
        assert!(watcher.watch(&wanted).expect("a watch"), "it is there now");
        fs::remove_dir(path.join("none")).expect("no directory");
        assert_eq!(next(&mut watcher).await, Happened::Anything);
    }
}
