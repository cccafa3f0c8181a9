//! Looks for plugins that wait to be found: sockets in `plugins_registry` and the directories in it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsStr;
use std::fs;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use coracle_device_api::pluginregistration::registration_client::RegistrationClient;
use coracle_device_api::pluginregistration::{DEVICE_PLUGIN, InfoRequest, RegistrationStatus};
use coracle_device_api::tonic::Status;
use coracle_device_api::{ConnectError, call, connect};
use futures_util::StreamExt;
use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask, Watches};
use tokio::task::JoinSet;
use tokio::time;

use crate::endpoint::{self, Registered};
use crate::registration::{LONGEST_INTRODUCTION, check};
use crate::sockets::is_socket;
use crate::state::Shared;

/// How many directories are looked at.
const MOST_DIRECTORIES: usize = 64;
/// How many plugins are spoken with at a time; further ones wait.
const MOST_AT_A_TIME: usize = 64;
/// How many may wait for that.
const MOST_WAITING: usize = 4096;
/// How long is waited before each further attempt at a plugin that does not answer.
const ATTEMPTS: [Duration; 4] =
    [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(20)];

/// The directories that are looked at.
struct Tree {
    watches: Watches,
    directories: HashMap<WatchDescriptor, PathBuf>,
}

/// Why a plugin was not taken up.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("GetInfo failed: {message}", message = .0.message())]
    Info(Status),
    #[error("{0}")]
    Wrong(String),
}

/// Looks at a directory, which is made if it is not there. The future is to be polled for as long as it is looked at.
pub(crate) fn watch(shared: &Arc<Shared>, directory: &Path) -> io::Result<impl Future<Output = ()> + use<>> {
    fs::create_dir_all(directory)?;
    let inotify = Inotify::init()?;
    let mut tree = Tree { watches: inotify.watches(), directories: HashMap::new() };
    let mut found = Vec::new();
    tree.add(directory, &mut found)?;
    let shared = Arc::downgrade(shared);
    Ok(async move {
        if let Err(error) = follow(&shared, inotify, tree, found).await {
            tracing::error!(%error, "plugins that wait to be found are not looked for any more");
        }
    })
}

async fn follow(
    shared: &Weak<Shared>,
    inotify: Inotify,
    mut tree: Tree,
    mut found: Vec<PathBuf>,
) -> io::Result<()> {
    let mut events = inotify.into_event_stream([0; 4096])?;
    let mut visits = JoinSet::new();
    let (mut visiting, mut waiting) = (HashSet::new(), VecDeque::new());
    loop {
        for socket in found.drain(..) {
            if waiting.len() >= MOST_WAITING {
                tracing::warn!(socket = %socket.display(), "too many plugins wait to be found at a time");
            } else if !waiting.contains(&socket) {
                waiting.push_back(socket);
            }
        }
        while visiting.len() < MOST_AT_A_TIME
            // A socket that is there again while one still speaks with what was there before is visited once more.
            && let Some(at) = waiting.iter().position(|socket| !visiting.contains(socket))
            && let Some(socket) = waiting.remove(at)
        {
            visiting.insert(socket.clone());
            let shared = shared.clone();
            visits.spawn(async move {
                visit(&shared, &socket).await;
                socket
            });
        }
        tokio::select! {
            event = events.next() => {
                let Some(event) = event else { return Ok(()) };
                let event = event?;
                tree.event(&event.wd, event.mask, event.name.as_deref(), &mut found);
            }
            Some(visited) = visits.join_next() => {
                if let Ok(socket) = visited {
                    visiting.remove(&socket);
                }
            }
        }
    }
}

/// Speaks with a plugin, until it was taken up or refused.
async fn visit(shared: &Weak<Shared>, socket: &Path) {
    for wait in ATTEMPTS.map(Some).into_iter().chain([None]) {
        match introduce(shared, socket).await {
            Ok(()) => return,
            Err(Refused::Wrong(problem)) => {
                tracing::warn!(socket = %socket.display(), problem, "a plugin was refused");
                return;
            }
            Err(error) => match wait {
                Some(wait) if socket.exists() => time::sleep(wait).await,
                _ => {
                    tracing::warn!(socket = %socket.display(), %error, "a plugin that waits to be found does not answer");
                    return;
                }
            },
        }
    }
}

/// Asks a plugin who it is, and tells it what comes of that.
async fn introduce(shared: &Weak<Shared>, socket: &Path) -> Result<(), Refused> {
    let Some(shared) = shared.upgrade() else { return Ok(()) };
    let deadlines = shared.deadlines;
    let channel = connect(socket, deadlines.connect).await?;
    let mut client = RegistrationClient::new(channel).max_decoding_message_size(LONGEST_INTRODUCTION);
    let info = call(deadlines.info, InfoRequest {}, |request| client.get_info(request))
        .await
        .map_err(Refused::Info)?;
    let taken_up = if info.r#type == DEVICE_PLUGIN {
        check(&info.supported_versions, &info.name).and_then(|resource| {
            let socket = match info.endpoint.as_str() {
                "" => socket.to_owned(),
                path if Path::new(path).is_absolute() => PathBuf::from(path),
                other => return Err(format!("endpoint {other:?} is no absolute path")),
            };
            tracing::info!(%resource, socket = %socket.display(), "a device plugin was found");
            let registered = Registered { resource, socket, options: None };
            endpoint::take_up(&shared, registered).map_err(|error| error.to_string())
        })
    } else {
        Err(format!("no handler registered for plugin type: {} at socket {}", info.r#type, socket.display()))
    };
    let error = taken_up.as_ref().err().cloned().unwrap_or_default();
    let status = RegistrationStatus { plugin_registered: taken_up.is_ok(), error };
    let told = call(deadlines.info, status, |request| client.notify_registration_status(request)).await;
    if let Err(status) = told {
        let error = status.message();
        tracing::warn!(socket = %socket.display(), error, "a plugin could not be told whether it was taken up");
    }
    taken_up.map_err(Refused::Wrong)
}

// === impl Tree ===

impl Tree {
    /// Looks at a directory from now on; what is there already is found.
    fn add(&mut self, directory: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
        if self.directories.len() >= MOST_DIRECTORIES {
            tracing::warn!(directory = %directory.display(), "plugins are not looked for here: there are too many directories");
            return Ok(());
        }
        let mask = WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::ONLYDIR | WatchMask::DONT_FOLLOW;
        let watch = self.watches.add(directory, mask)?;
        self.directories.insert(watch, directory.to_owned());
        for entry in fs::read_dir(directory)?.flatten() {
            self.appeared(entry.path(), found);
        }
        Ok(())
    }

    fn event(
        &mut self,
        watch: &WatchDescriptor,
        mask: EventMask,
        name: Option<&OsStr>,
        found: &mut Vec<PathBuf>,
    ) {
        if mask.contains(EventMask::IGNORED) {
            self.directories.remove(watch);
        } else if mask.contains(EventMask::Q_OVERFLOW) {
            // What was missed is found by looking.
            for directory in self.directories.values().cloned().collect::<Vec<_>>() {
                let entries = fs::read_dir(directory).into_iter().flatten().flatten();
                entries.for_each(|entry| self.appeared(entry.path(), found));
            }
        } else if let (Some(directory), Some(name)) = (self.directories.get(watch), name) {
            self.appeared(directory.join(name), found);
        }
    }

    /// What is there now: a socket, or a link to one, is a plugin, a directory may have some. Hidden ones are not meant.
    fn appeared(&mut self, path: PathBuf, found: &mut Vec<PathBuf>) {
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let Ok(metadata) = fs::symlink_metadata(&path) else { return };
        if hidden {
        } else if is_socket(&path) {
            found.push(path);
        } else if metadata.is_dir()
            && !self.directories.values().any(|known| *known == path)
            && let Err(error) = self.add(&path, found)
        {
            tracing::warn!(directory = %path.display(), %error, "plugins cannot be looked for here");
        }
    }
}
