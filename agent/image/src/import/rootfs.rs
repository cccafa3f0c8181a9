//! A plain root file system as an image of one layer.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{ImportOptions, Imported, RootfsConfig, architecture};
use crate::incoming::{Disk, Incoming, LayerFailure, write_layer};
use crate::store::open_directory;
use crate::unpack::{Lowers, Sink, copy_directory, unpack_stream};
use crate::{Digest, ImageConfig, ImageDocument, ImageError, ImageName, RootFs, Store};

pub(crate) fn import_directory(
    store: &Store,
    path: &Path,
    options: &ImportOptions,
) -> Result<Imported, ImageError> {
    import(store, path, options, |skip, sink| {
        let source: OwnedFd = open_directory(path)?;
        copy_directory(source, skip, sink).map_err(LayerFailure::from)
    })
}

pub(crate) fn import_tar(
    store: &Store,
    path: &Path,
    options: &ImportOptions,
) -> Result<Imported, ImageError> {
    import(store, path, options, |_, sink| {
        let file = File::open(path).map_err(ImageError::source("open", path))?;
        let streamed =
            unpack_stream(file, None, sink).map_err(|failure| LayerFailure::from(failure.fault))?;
        Ok((streamed.diff_id, streamed.archive_size))
    })
}

fn import(
    store: &Store,
    path: &Path,
    options: &ImportOptions,
    unpack: impl FnOnce((u64, u64), Sink<'_>) -> Result<(Digest, u64), LayerFailure>,
) -> Result<Imported, ImageError> {
    let name = options
        .name
        .clone()
        .ok_or_else(|| ImageError::invalid(path, "a plain root file system brings no name: give one"))?;
    let name = checked_name(path, name)?;
    let config = config(path, &options.config)?;
    let metadata = fs::metadata(store.root()).map_err(ImageError::store("look at", store.root()))?;
    // What the source must not contain: the store itself.
    let skip = (metadata.dev(), metadata.ino());
    let disk = Disk::of(store)?;
    let work = store.temporary()?;
    let layer = path.display().to_string();
    let (diff_id, size) =
        write_layer(&work.path, &layer, options.limits, Lowers::none(), |sink| unpack(skip, sink))?;
    let document = ImageDocument {
        architecture: architecture().to_owned(),
        os: "linux".to_owned(),
        // Without a time, the same content and configuration are the same image.
        created: None,
        config,
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![diff_id] },
    };
    let json = serde_json::to_vec(&document).map_err(|error| ImageError::invalid(path, error.to_string()))?;
    Incoming::of_layer(store, disk, &json, work, diff_id, size)?.commit(&[name], options.pin.clone())
}

/// A name for something that has no manifest.
fn checked_name(path: &Path, name: ImageName) -> Result<ImageName, ImageError> {
    match name.digest() {
        None => Ok(name),
        Some(_) => {
            Err(ImageError::invalid(path, format!("its name {name} cannot have a digest: give a tag")))
        }
    }
}

fn config(path: &Path, given: &RootfsConfig) -> Result<ImageConfig, ImageError> {
    if let Some(entry) = given.env.iter().find(|entry| entry.find('=').is_none_or(|at| at == 0)) {
        return Err(ImageError::invalid(
            path,
            format!("environment entry {entry:?} is not of the form NAME=value"),
        ));
    }
    if let Some(dir) = given.working_dir.as_deref().filter(|dir| !dir.starts_with('/')) {
        return Err(ImageError::invalid(path, format!("working directory {dir:?} is not absolute")));
    }
    let user = given.user.clone().unwrap_or_default();
    crate::user::check(&user)?;
    Ok(ImageConfig {
        user,
        env: given.env.clone(),
        entrypoint: given.entrypoint.clone(),
        cmd: given.cmd.clone(),
        working_dir: given.working_dir.clone().unwrap_or_default(),
        ..ImageConfig::default()
    })
}
