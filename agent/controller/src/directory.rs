//! A directory of manifests, watched.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use coracle_linux::list_directory;
use coracle_model::ManifestSource;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use jiff::Timestamp;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::place::{FileEvent, Happened, Mounts, Place, is_manifest};
use crate::unheard::{EVERY, Look};
use crate::{ControllerError, Decode, Found, Manifests};

/// Events this close together are handled as one.
const QUIET: Duration = Duration::from_millis(10);
/// A burst is handled after this long even if it goes on.
const LONGEST: Duration = Duration::from_millis(200);
/// How many files are read at a time: a hostile one takes much memory.
const AT_A_TIME: usize = 2;

/// Watches a directory of manifests.
///
/// A file is read when it was closed after writing, moved there or linked; never while it is being
/// written. What is wrong with it is reported and leaves the pods of its last valid content alone. The
/// same goes for a directory that vanishes as a whole; its files removed one by one are removed pods.
///
/// Where watches cannot tell of everything, since manifests are links that lead elsewhere, a link is on the way to the
/// directory, or other machines write to its file system, it is looked at every 20 seconds as well.
pub struct DirectorySource<D> {
    directory: Arc<Path>,
    decode: Arc<D>,
    manifests: Arc<Manifests>,
    /// Files someone is writing.
    writing: BTreeSet<OsString>,
    /// The directory that was found last is not taken at its word.
    doubted: bool,
}

/// Why everything is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Occasion {
    /// The agent starts.
    Start,
    /// Another directory stands at the path, or none does.
    Replaced,
    /// Something happened in it, and it is not known what.
    Changed,
}

impl<D: Decode> DirectorySource<D> {
    /// A source for this directory, which need not be there yet, of all files that are known. Nothing is published
    /// until it was read once.
    ///
    /// # Errors
    /// When the path is empty, or relative and the working directory is gone.
    pub fn new(directory: &Path, decode: D, manifests: &Arc<Manifests>) -> Result<Self, ControllerError> {
        // Not resolved: a link in the path may be swapped, and is followed anew.
        let directory = std::path::absolute(directory)
            .map_err(|error| ControllerError::Watch { path: directory.to_owned(), error })?;
        manifests.expect(&directory.as_path().into());
        Ok(Self {
            directory: Arc::from(directory),
            decode: Arc::new(decode),
            manifests: Arc::clone(manifests),
            writing: BTreeSet::new(),
            doubted: false,
        })
    }

    /// Reads the directory, and then what changes in it, until the future is dropped.
    ///
    /// # Errors
    /// When inotify or the table of mounts cannot be used at all.
    pub async fn run(mut self) -> Result<Infallible, ControllerError> {
        let mounts = Mounts::follow()?;
        let mut occasion = Occasion::Start;
        loop {
            let mut place = Place::establish(&self.directory)?;
            self.writing.clear();
            // Before everything is read: what changes meanwhile is seen by the next look.
            let mut look = self.look().await;
            self.scan(&place, occasion).await;
            self.manifests.was_read(&self.place());
            self.manifests.publish();
            occasion = Occasion::Replaced;
            while place.is_current() {
                let again = look.as_ref().map(|_| EVERY);
                let happened = gather(&mut place, &mounts, again, |name| self.is_news(name)).await?;
                // What asks for looking comes with an event. Mounts come and go with every pod.
                let is_quiet = look.is_none() && happened == Happened::default();
                let now = if is_quiet { None } else { self.look().await };
                let differs = look.is_some() && now != look;
                look = now;
                if self.take_in(&place, happened, differs).await {
                    self.manifests.publish();
                }
            }
        }
    }

    /// Looks at what no event tells of, if there is such.
    async fn look(&self) -> Option<Look> {
        let directory = Arc::clone(&self.directory);
        spawn_blocking(move || Look::at(&directory)).await.ok().flatten()
    }

    /// Takes in what happened, or what a look found that `differs`. Whether there was anything to take in.
    async fn take_in(&mut self, place: &Place, happened: Happened, differs: bool) -> bool {
        let current = place.is_current();
        let mut files = Vec::new();
        for (name, event) in happened.files {
            match event {
                FileEvent::Writing => drop(self.writing.insert(name)),
                FileEvent::Complete | FileEvent::Gone => {
                    self.writing.remove(&name);
                    // Once the directory is gone its files cannot be read; those removed before are known.
                    if current || event == FileEvent::Gone {
                        files.push(Arc::from(self.directory.join(name)));
                    }
                }
            }
        }
        let any = !files.is_empty();
        if happened.anything && current {
            // Whoever closed a file meanwhile may have gone unheard.
            self.writing.clear();
        }
        if current && (happened.anything || differs || any && self.doubted) {
            self.scan(place, Occasion::Changed).await;
            return true;
        }
        self.read(files).await;
        any
    }

    /// Whether a file of that name would be one that nothing runs from yet.
    fn is_news(&self, name: &OsStr) -> bool {
        let file = self.directory.join(name).into();
        !self.doubted && !self.manifests.with(|catalog| catalog.knows(&file))
    }

    /// Looks at everything that is there.
    async fn scan(&mut self, place: &Place, occasion: Occasion) {
        let text = self.directory.display();
        let holds_something =
            self.manifests.with(|catalog| catalog.holds_something(|source| !source.is_url()));
        let left_alone = if holds_something { "; the pods from it are left alone" } else { "" };
        if !place.is_there() {
            return self.set_problem(Some(format!("{text}: there is no such directory{left_alone}")));
        }
        let directory = Arc::clone(&self.directory);
        let listed =
            spawn_blocking(move || manifests_in(&directory)).await.map_err(io::Error::from).flatten();
        let found = match listed {
            Ok(found) => found,
            Err(error) => {
                return self.set_problem(Some(format!("{text}: cannot be read: {error}{left_alone}")));
            }
        };
        self.doubted = found.is_empty() && holds_something && occasion == Occasion::Replaced;
        if self.doubted {
            // An empty directory in the place of a full one is rather a lost mount than a wish.
            return self.set_problem(Some(format!("{text}: is empty since it was replaced{left_alone}")));
        }
        self.set_problem(None);
        let found: BTreeSet<Arc<Path>> = found.into_iter().map(Arc::from).collect();
        let known: Vec<Arc<Path>> =
            self.manifests.with(|catalog| catalog.sources().filter_map(|it| it.as_file().cloned()).collect());
        // Those of a directory that was configured before are not looked at: what lies there is nobody's any more.
        let (known, elsewhere): (Vec<_>, Vec<_>) =
            known.into_iter().partition(|path| path.parent() == Some(&*self.directory));
        for path in elsewhere {
            self.manifests.with(|catalog| catalog.update_file(&ManifestSource::File(path), None));
        }
        let gone = known.into_iter().filter(|path| !found.contains(path));
        let written = |path: &Arc<Path>| path.file_name().is_none_or(|name| !self.writing.contains(name));
        let all = gone.chain(found.iter().filter(|path| written(path)).cloned()).collect();
        self.read(all).await;
    }

    /// The directory as a whole.
    fn place(&self) -> ManifestSource {
        ManifestSource::File(Arc::clone(&self.directory))
    }

    fn set_problem(&self, message: Option<String>) {
        let place = self.place();
        self.manifests.with(|catalog| catalog.set_place_problem(&place, message, Timestamp::now()));
    }

    /// Reads files, some at a time and away from the runtime's threads, and takes them in one after another.
    async fn read(&mut self, files: Vec<Arc<Path>>) {
        let reading = files.into_iter().map(|path| {
            let (decode, file) = (Arc::clone(&self.decode), Arc::clone(&path));
            async move { (path, spawn_blocking(move || read(&*decode, &file)).await) }
        });
        let mut reading = stream::iter(reading).buffered(AT_A_TIME);
        while let Some((path, read)) = reading.next().await {
            let found = read.unwrap_or_else(|error| Some(Err(format!("{}: {error}", path.display()))));
            let source = ManifestSource::File(path);
            self.manifests.with(|catalog| catalog.update_file(&source, found));
        }
    }
}

/// Waits for something to happen, or for the time of another look, and until it is quiet again. Files that are new and
/// complete are not kept waiting: whatever comes after them, nothing is taken back for having acted on them.
async fn gather(
    place: &mut Place,
    mounts: &Mounts,
    again: Option<Duration>,
    is_news: impl Fn(&OsStr) -> bool,
) -> Result<Happened, ControllerError> {
    let mut happened = Happened::default();
    tokio::select! {
        result = place.next(&mut happened) => result?,
        result = mounts.changed() => return result.map(|()| happened),
        () = sleep(again.unwrap_or_default()), if again.is_some() => return Ok(happened),
    }
    let latest = Instant::now() + LONGEST;
    loop {
        while let Some(result) = place.next(&mut happened).now_or_never()
            && Instant::now() < latest
        {
            result?;
        }
        let only_news =
            |(name, event): (&OsString, &FileEvent)| *event == FileEvent::Complete && is_news(name);
        if !happened.anything && !happened.files.is_empty() && happened.files.iter().all(only_news) {
            return Ok(happened);
        }
        let next = timeout(QUIET, place.next(&mut happened));
        match timeout_at(latest, next).await {
            Ok(Ok(result)) => result?,
            Ok(Err(_)) | Err(_) => return Ok(happened),
        }
    }
}

/// The manifests of a directory, in order of name.
pub(crate) fn manifests_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in list_directory(directory)? {
        if is_manifest(Path::new(&entry.file_name())) && !entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// What a file holds; `None` when it is not there. A link that leads nowhere is there.
fn read(decode: &impl Decode, path: &Path) -> Option<Result<Found, String>> {
    match fs::symlink_metadata(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => None,
        _ => Some(decode(path)),
    }
}
