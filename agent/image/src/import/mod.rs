//! Images from files: OCI layouts, `docker save` archives, plain root file systems.

mod archive;
mod docker;
mod oci;
mod rootfs;

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::Path;

use crate::unpack::{Limits, Peeked, TarReader};
use crate::{Image, ImageError, ImageName, Pin, Store};

use archive::Archive;

/// How an import is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportOptions {
    /// The image's name. A root file system needs one; an archive brings its own, which this replaces.
    pub name: Option<ImageName>,
    /// For a root file system, which brings no configuration.
    pub config: RootfsConfig,
    /// Bounds.
    pub limits: Limits,
    /// Keeps the images from being removed for want of space.
    pub pin: Option<Pin>,
}

/// The configuration of a plain root file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RootfsConfig {
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Arguments, or the program where there is no entrypoint.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group`, `uid:gid`.
    pub user: Option<String>,
    /// Absolute.
    pub working_dir: Option<String>,
}

/// One image that came into the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The image as it came to be in the store, whatever others do to it afterwards.
    pub image: Image,
    /// The names it has been given.
    pub names: Vec<ImageName>,
    /// Layers that were unpacked.
    pub new_layers: usize,
    /// Layers that were in the store.
    pub known_layers: usize,
}

impl Store {
    /// Keeps an archive that comes as a stream, `name` for people, in a file without a name: for [`Store::import`], which
    /// reads an archive more than once. It is decompressed on the way.
    ///
    /// # Errors
    ///
    /// [`ImageError::Source`] when it cannot be read, [`ImageError::DiskFull`], [`ImageError::Store`].
    pub fn keep_archive(&self, name: &str, stream: impl Read + Send) -> Result<File, ImageError> {
        archive::spool(self, Path::new(name), stream, Limits::default())
    }

    /// Imports what is at `path`: an OCI image layout (directory or tar), a `docker save` archive, or a
    /// plain root file system (directory or tar). Archives may be compressed with gzip or zstd.
    ///
    /// An archive with several images imports all of them. An image of the same content is one image,
    /// however often and under whatever name it comes; a name moves to the latest.
    ///
    /// # Errors
    ///
    /// [`ImageError::Source`] when it cannot be read, [`ImageError::Invalid`] when it is no image,
    /// [`ImageError::Mismatch`], [`ImageError::Layer`], [`ImageError::Unpack`] and
    /// [`ImageError::DiskFull`] for its content. The store is then as it was.
    pub fn import(&self, path: &Path, options: &ImportOptions) -> Result<Vec<Imported>, ImageError> {
        let metadata = fs::metadata(path).map_err(ImageError::source("open", path))?;
        if metadata.is_dir() {
            if path.join("oci-layout").is_file() && path.join("index.json").is_file() {
                return oci::import(self, &mut Archive::directory(path)?, options);
            }
            if path.join("manifest.json").is_file()
                && !path.join("etc").exists()
                && !path.join("bin").exists()
            {
                return docker::import(self, &mut Archive::directory(path)?, options);
            }
            return rootfs::import_directory(self, path, options).map(|image| vec![image]);
        }
        match first_name(path)? {
            Some(first) if may_begin_an_archive(&first) => {}
            Some(_) => return rootfs::import_tar(self, path, options).map(|image| vec![image]),
            None => return Err(ImageError::invalid(path, "it is an empty archive")),
        }
        let mut archive = Archive::tar(self, path, &options.limits)?;
        if archive.has("manifest.json") {
            docker::import(self, &mut archive, options)
        } else if archive.has("oci-layout") && archive.has("index.json") {
            oci::import(self, &mut archive, options)
        } else {
            rootfs::import_tar(self, path, options).map(|image| vec![image])
        }
    }
}

/// The name of the first entry that is not the root itself, empty where there is only the root; `None`
/// for an archive without any entry.
fn first_name(path: &Path) -> Result<Option<Vec<u8>>, ImageError> {
    let file = File::open(path).map_err(ImageError::source("open", path))?;
    let decompressed =
        Peeked::new(file).and_then(Peeked::decompress).map_err(ImageError::source("read", path))?;
    // Whatever it is, the first names stand within the first few MiB: a name has at most one.
    let mut archive = TarReader::new(BufReader::new(decompressed.take(64 << 20)));
    let mut only = None;
    loop {
        let entry = archive.next_entry().map_err(|fault| {
            let problem = match fault {
                crate::unpack::Fault::Malformed(problem) => problem,
                crate::unpack::Fault::Read(error) => error.to_string(),
                other => format!("{other:?}"),
            };
            ImageError::invalid(
                path,
                format!("it is neither a tar archive (plain, gzip or zstd) nor a directory: {problem}"),
            )
        })?;
        match entry {
            None => return Ok(only),
            Some(entry) => {
                let name = archive::normal_name(&entry.path);
                if !name.is_empty() {
                    return Ok(Some(name));
                }
                only = Some(name);
            }
        }
    }
}

/// Whether the first entry is one that image archives have. Only those are searched for more.
fn may_begin_an_archive(first: &[u8]) -> bool {
    let top = first.split(|b| *b == b'/').next().unwrap_or_default();
    let stem = top.strip_suffix(b".json").or(top.strip_suffix(b".tar")).or(top.strip_suffix(b".tar.gz"));
    let is_digest = |text: &[u8]| text.len() == 64 && text.iter().all(u8::is_ascii_hexdigit);
    matches!(top, b"blobs" | b"oci-layout" | b"index.json" | b"manifest.json" | b"repositories")
        || is_digest(stem.unwrap_or(top))
        // Built by other tools: `sha256:<digest>` and layers in directories of their own.
        || top.starts_with(b"sha256")
        || stem.is_some()
}

/// The architecture of this machine, in Go's words.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
