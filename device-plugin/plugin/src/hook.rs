//! What our CDI devices have executed in a container's mount namespace before its root is entered: the host's program, with
//! the host's privileges, on a root file system that an image decides.
//!
//! **Invariant:** nothing of the container is executed, no link of it leads out of its root, nothing of another file system (a
//! volume) is written, nothing but a regular file is opened, and what is read of it is bounded.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use coracle_linux::{NewFile, PowerLoss};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;
use serde::Deserialize;

use crate::ld_cache::{Cache, CacheError, MOST_BYTES};
use crate::name::check_container_path;

/// No state and no configuration of a container is longer.
const MOST_JSON: u64 = 16 << 20;
/// The linker's cache.
const CACHE: &str = "ld.so.cache";
/// Where ldconfig looks for directories, for when something in the container runs it.
const CONFIGURATION: &str = "ld.so.conf.d";
/// Our file there. It is read before the image's.
const CONFIGURATION_FILE: &str = "00-coracle-nvidia.conf";

/// What failed in a hook.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// Whoever runs containers did not say which.
    #[error("cannot read the container's state (OCI runtime specification, State) from standard input: {0}")]
    State(String),
    /// Of what it said nothing leads to the container's root.
    #[error("cannot learn the container's root from {path}: {why}")]
    Bundle {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// An argument is wrong.
    #[error("{0:?} is no library: say NAME=PATH, with a name without / and an absolute path")]
    Library(String),
    /// The container's root, or /etc in it, cannot be opened.
    #[error("cannot open {what} in the container's root {root}: {error}")]
    Open {
        /// Which.
        what: &'static str,
        /// The root.
        root: PathBuf,
        /// Why.
        error: Errno,
    },
    /// The image's cache has no room for more.
    #[error("cannot add to /etc/ld.so.cache of the container in {root}: {error}")]
    Cache {
        /// The root.
        root: PathBuf,
        /// Why.
        error: CacheError,
    },
    /// The file system is full, or such.
    #[error("cannot write {what} of the container in {root}: {error}")]
    Write {
        /// Which file.
        what: &'static str,
        /// The root.
        root: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// OCI's state of a container, as far as it is needed.
#[derive(Deserialize)]
struct State {
    bundle: PathBuf,
}

/// OCI's configuration of a container, as far as it is needed.
#[derive(Deserialize)]
struct Bundle {
    root: Root,
}

#[derive(Deserialize)]
struct Root {
    path: PathBuf,
}

/// Has the dynamic linker of a container find libraries (`NAME=PATH` each): they are put into its cache, before those of the
/// image by the same names. `state` is what a runtime gives a hook on standard input.
///
/// A container without glibc needs none of it and comes to no harm; one whose root cannot be written is left as it is, which is
/// told on standard error, since libraries in a directory that the linker looks into by itself are found in any case.
///
/// # Errors
/// [`HookError`], by which the container is not started.
pub fn ldconfig(state: impl Read, libraries: &[String]) -> Result<(), HookError> {
    let libraries = libraries.iter().map(|text| library(text)).collect::<Result<Vec<_>, _>>()?;
    let root = root_of(state)?;
    update(&root, &libraries)
}

fn library(text: &str) -> Result<(&str, &str), HookError> {
    let parts = text.split_once('=').filter(|(name, path)| {
        !name.is_empty()
            && !name.contains(['/', '\0', '\n'])
            && !path.contains('\n')
            && check_container_path(path).is_ok()
    });
    parts.ok_or_else(|| HookError::Library(text.to_owned()))
}

/// The root of the container that a state tells of.
fn root_of(state: impl Read) -> Result<PathBuf, HookError> {
    let mut text = Vec::new();
    state.take(MOST_JSON).read_to_end(&mut text).map_err(|error| HookError::State(error.to_string()))?;
    let state: State = serde_json::from_slice(&text).map_err(|error| HookError::State(error.to_string()))?;
    let path = state.bundle.join("config.json");
    let failed = |why: String| HookError::Bundle { path: path.clone(), why };
    let mut text = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(MOST_JSON).read_to_end(&mut text));
    read.map_err(|error| failed(error.to_string()))?;
    let bundle: Bundle = serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))?;
    // Relative to the bundle, where it is.
    let root = state.bundle.join(bundle.root.path);
    if !root.is_absolute() || root == Path::new("/") {
        return Err(failed(format!("root.path is {}", root.display())));
    }
    Ok(root)
}

fn update(root: &Path, libraries: &[(&str, &str)]) -> Result<(), HookError> {
    let open = |what, error| HookError::Open { what, root: root.to_owned(), error };
    let directory = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let directory = directory.map_err(|error| open("/", error))?;
    let etc = match inside(&directory, "etc", OFlags::PATH | OFlags::DIRECTORY) {
        Ok(etc) => etc,
        // An image without has no linker of glibc that would look there; a volume in its place is not ours to write.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::XDEV | Errno::LOOP) => {
            return left(root, "it has no /etc of its own");
        }
        Err(error) => return Err(open("/etc", error)),
    };
    let mut cache = match existing(&etc) {
        Ok(None) => Cache::default(),
        // Those who make images small leave such a one behind.
        Ok(Some(bytes)) if bytes.is_empty() => Cache::default(),
        Ok(Some(bytes)) => match Cache::parse(&bytes) {
            Ok(cache) => cache,
            // The linker makes nothing of it either, and does without.
            Err(error) => return left(root, &format!("its /etc/ld.so.cache cannot be read: {error}")),
        },
        Err(Errno::XDEV | Errno::LOOP | Errno::INVAL) => {
            return left(root, "its /etc/ld.so.cache is no file of its own");
        }
        Err(error) => return Err(open("/etc/ld.so.cache", error)),
    };
    for (name, path) in libraries {
        cache.put(name, path);
    }
    let bytes = cache.to_bytes().map_err(|error| HookError::Cache { root: root.to_owned(), error })?;
    let write = |what, error| HookError::Write { what, root: root.to_owned(), error };
    match replace(&etc, CACHE, &bytes) {
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            return left(root, "its root is read-only");
        }
        done => done.map_err(|error| write("/etc/ld.so.cache", error))?,
    }
    let Ok(configuration) = inside(&etc, CONFIGURATION, OFlags::PATH | OFlags::DIRECTORY) else {
        return Ok(());
    };
    let mut directories: Vec<&str> =
        libraries.iter().filter_map(|(_, path)| Some(path.rsplit_once('/')?.0)).collect();
    directories.sort_unstable();
    directories.dedup();
    let text = directories.join("\n") + "\n";
    replace(&configuration, CONFIGURATION_FILE, text.as_bytes())
        .map_err(|error| write("/etc/ld.so.conf.d", error))
}

/// Says why nothing was done.
#[expect(clippy::unnecessary_wraps, reason = "it ends what can fail")]
fn left(root: &Path, why: &str) -> Result<(), HookError> {
    let _ = writeln!(
        io::stderr(),
        "the dynamic linker of the container in {} is not told of the driver's libraries: {why}; where the linker does not look by itself, LD_LIBRARY_PATH says where they are",
        root.display()
    );
    Ok(())
}

/// Opens what is in a directory of the container: links lead nowhere out of it, and nothing of another file system is opened.
fn inside(directory: &OwnedFd, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    openat2(directory, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// The bytes of the cache there is. A link in its place, and anything but a file, is an error.
fn existing(etc: &OwnedFd) -> Result<Option<Vec<u8>>, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    // First without opening it in earnest: opening a device can do something, opening a pipe can wait.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = match openat2(etc, CACHE, flags, Mode::empty(), resolve) {
        Err(Errno::NOENT) => return Ok(None),
        opened => opened?,
    };
    let before = fstat(&place)?;
    if FileType::from_raw_mode(before.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat2(etc, CACHE, flags, Mode::empty(), resolve)?;
    let after = fstat(&file)?;
    if (before.st_dev, before.st_ino) != (after.st_dev, after.st_ino) {
        return Err(Errno::INVAL);
    }
    let mut bytes = Vec::new();
    let read = File::from(file).take(MOST_BYTES as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(Some(bytes))
}

/// Puts a file in the place of one there is, or is not, in one step: what the old one was linked to stays as it is.
fn replace(directory: &OwnedFd, name: &'static str, bytes: &[u8]) -> io::Result<()> {
    let new = NewFile::create_in(directory.as_fd(), OsStr::new(name), 0o644)?;
    Ok(new.finish(bytes, PowerLoss::MayTear)?)
}

#[cfg(test)]
mod tests;
