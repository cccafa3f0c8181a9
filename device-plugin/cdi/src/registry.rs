//! The specifications of the node, and what a device's name means now.
//!
//! Nothing watches the directories: a look-up lists them and looks at each file (a few system calls), and reads again what
//! is another file than before. So it knows what is there at the moment it is asked, and costs nothing in between.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use coracle_linux::Stamp;
use coracle_model::ContainerEdits;

use crate::error::{CdiError, file};
use crate::name::QualifiedName;
use crate::read::read_file;
use crate::resolve;
use crate::spec::{Device, Spec};

/// Where specifications are, unless something else is configured: those of the administrator, and over them those that
/// programs write.
pub const DEFAULT_DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// The most specifications that are read of one directory.
const MOST_FILES: usize = 1024;

/// The specifications in some directories. A device in a later directory goes before one in an earlier.
#[derive(Debug)]
pub struct Registry {
    directories: Vec<PathBuf>,
    files: Mutex<BTreeMap<PathBuf, Known>>,
}

/// A file that was read.
#[derive(Clone, Debug)]
struct Known {
    stamp: Stamp,
    /// Which of the directories it is in.
    priority: usize,
    spec: Result<Arc<Spec>, Arc<CdiError>>,
}

/// A device, and the specification it is of.
struct Found<'a> {
    path: &'a Path,
    spec: &'a Spec,
    device: &'a Device,
}

// === impl Registry ===

impl Registry {
    /// Over these directories, which need not exist.
    pub fn new(directories: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        Self { directories: directories.into_iter().map(Into::into).collect(), files: Mutex::default() }
    }

    /// What the devices bring into one container: of each specification its own edits once, before those of its first
    /// device; a device that is named twice counts once. Blocks.
    ///
    /// # Errors
    /// [`CdiError`] when a device is not there, is there more than once, or wants what is not supported.
    pub fn resolve(&self, names: &[QualifiedName]) -> Result<ContainerEdits, CdiError> {
        let mut edits = ContainerEdits::default();
        if names.is_empty() {
            return Ok(edits);
        }
        let (files, mut faults) = self.refresh();
        let mut done = BTreeSet::new();
        let mut specs = BTreeSet::new();
        for name in names.iter().filter(|name| done.insert(*name)) {
            let Some(found) = find(&files, name)? else {
                let broken = files.values().filter_map(|known| known.spec.as_ref().err());
                faults.extend(broken.map(ToString::to_string));
                return Err(CdiError::Unknown {
                    name: name.clone(),
                    directories: self.directories.clone(),
                    faults,
                });
            };
            if specs.insert(found.path) {
                refuse_unsupported(&found, name, found.spec.container_edits.intel_rdt.is_some())?;
                resolve::add(&mut edits, &found.spec.container_edits);
            }
            refuse_unsupported(&found, name, found.device.container_edits.intel_rdt.is_some())?;
            resolve::add(&mut edits, &found.device.container_edits);
        }
        Ok(edits)
    }

    /// Every device there is, by its full name.
    pub fn devices(&self) -> BTreeSet<String> {
        let (files, _) = self.refresh();
        let specs = files.values().filter_map(|known| known.spec.as_ref().ok());
        specs
            .flat_map(|spec| spec.devices.iter().map(move |device| format!("{}={}", spec.kind, device.name)))
            .collect()
    }

    /// What is wrong with specifications now.
    pub fn faults(&self) -> Vec<String> {
        let (files, mut faults) = self.refresh();
        faults.extend(files.values().filter_map(|known| known.spec.as_ref().err()).map(ToString::to_string));
        faults
    }

    /// Reads what has changed. Also what is wrong with directories.
    fn refresh(&self) -> (BTreeMap<PathBuf, Known>, Vec<String>) {
        let mut known = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = BTreeMap::new();
        let mut faults = Vec::new();
        for (priority, directory) in self.directories.iter().enumerate() {
            let paths = list(directory).unwrap_or_else(|error| {
                faults.push(error.to_string());
                Vec::new()
            });
            for path in paths {
                // One that goes away meanwhile is not there.
                let Ok(metadata) = fs::metadata(&path) else { continue };
                let stamp = Stamp::of(&metadata);
                let same = known.remove(&path).filter(|old| old.stamp == stamp && old.priority == priority);
                let read =
                    || Known { stamp, priority, spec: read_file(&path).map(Arc::new).map_err(Arc::new) };
                let file = same.unwrap_or_else(read);
                now.insert(path, file);
            }
        }
        *known = now.clone();
        (now, faults)
    }
}

/// The files of a directory that are specifications by their names, in order. A directory that is not there has none.
fn list(directory: &Path) -> Result<Vec<PathBuf>, CdiError> {
    let failed = |error| file("list the directory of CDI specifications", directory)(error);
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "json" || extension == "yaml") {
            if paths.len() == MOST_FILES {
                let why = format!("it holds more than {MOST_FILES} specifications");
                return Err(failed(io::Error::other(why)));
            }
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// The device of the last directory that has one.
fn find<'a>(
    files: &'a BTreeMap<PathBuf, Known>,
    name: &QualifiedName,
) -> Result<Option<Found<'a>>, CdiError> {
    let mut best: Option<(usize, Found<'a>)> = None;
    let mut several: Vec<PathBuf> = Vec::new();
    for (path, known) in files {
        let Ok(spec) = &known.spec else { continue };
        if !name.is_of(&spec.kind) {
            continue;
        }
        let Some(device) = spec.devices.iter().find(|device| device.name == name.name()) else { continue };
        let found = Found { path, spec, device };
        match &best {
            Some((priority, _)) if *priority > known.priority => {}
            Some((priority, first)) if *priority == known.priority => {
                if several.is_empty() {
                    several.push(first.path.to_owned());
                }
                several.push(path.clone());
            }
            _ => {
                several.clear();
                best = Some((known.priority, found));
            }
        }
    }
    if several.is_empty() {
        return Ok(best.map(|(_, found)| found));
    }
    Err(CdiError::Ambiguous { name: name.clone(), files: several })
}

fn refuse_unsupported(found: &Found<'_>, name: &QualifiedName, rdt: bool) -> Result<(), CdiError> {
    match rdt {
        true => Err(CdiError::Unsupported {
            name: name.clone(),
            path: found.path.to_owned(),
            field: "containerEdits.intelRdt",
        }),
        false => Ok(()),
    }
}
