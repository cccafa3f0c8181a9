//! What the store takes of its disk.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;

use super::{Image, Store, file_names, open_directory};
use crate::{Digest, ImageError};

/// What the store takes of its disk, in bytes as the file system counts them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Every image, in the order of [`Store::list`].
    pub images: Vec<ImageUsage>,
    /// Layers of images, each once.
    pub layers: u64,
    /// Those of them that several images have.
    pub shared: u64,
    /// Layers no image has: of images that were removed while another that has them was on its way; or of images that
    /// cannot be read.
    pub unreferenced: u64,
    /// What is being made, was finished for an image that has not come yet, or is being removed.
    pub in_flight: u64,
    /// What would be free without every image that nobody uses and nobody pinned, and without layers no image has.
    pub reclaimable: u64,
}

/// What an image takes of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageUsage {
    /// The image.
    pub image: Image,
    /// All of its layers.
    pub size: u64,
    /// Those that no other image has.
    pub unique: u64,
    /// Who uses it.
    pub user: Option<String>,
}

impl Store {
    /// What the store takes of its disk. `in_use` says who of the caller's own uses an image; containers and volumes that
    /// hold a lease count besides.
    ///
    /// Each layer is measured once and its size kept beside it, so only the first call after an import reads much.
    ///
    /// # Errors
    ///
    /// As [`Store::list`].
    pub fn df(&self, in_use: impl Fn(&Digest) -> Option<String>) -> Result<Usage, ImageError> {
        let images = self.list()?;
        let users = self.users()?;
        let mut sizes: HashMap<Digest, Shares> = HashMap::new();
        let mut usage = Usage::default();
        let mut described = Vec::new();
        for image in images {
            let leased = users.iter().find(|(_, used)| *used == image.id);
            let user = in_use(&image.id).or(leased.map(|(user, _)| user.clone()));
            let is_kept = user.is_some() || !image.pins.is_empty();
            for layer in &image.layers {
                let shares = match sizes.get_mut(&layer.chain_id) {
                    Some(shares) => shares,
                    None => {
                        let size = self.layer_usage(&self.layer_path(&layer.chain_id))?;
                        sizes.entry(layer.chain_id).or_insert(Shares { size, images: 0, kept: false })
                    }
                };
                shares.images += 1;
                shares.kept |= is_kept;
            }
            described.push((image, user));
        }
        for (image, user) in described {
            let shares = image.layers.iter().filter_map(|layer| sizes.get(&layer.chain_id));
            let size = shares.clone().map(|shares| shares.size).sum();
            let unique = shares.filter(|shares| shares.images == 1).map(|shares| shares.size).sum();
            usage.images.push(ImageUsage { image, size, unique, user });
        }
        for shares in sizes.values() {
            usage.layers += shares.size;
            usage.shared += if shares.images > 1 { shares.size } else { 0 };
            usage.reclaimable += if shares.kept { 0 } else { shares.size };
        }
        let layers = self.root.join("layers");
        for name in file_names(&layers)? {
            let known =
                format!("sha256:{name}").parse().is_ok_and(|chain: Digest| sizes.contains_key(&chain));
            if !known {
                usage.unreferenced += self.layer_usage(&layers.join(name))?;
            }
        }
        // Layers of an image that cannot be read are among them, and stay.
        if usage.images.len() == self.ids()?.len() {
            usage.reclaimable += usage.unreferenced;
        }
        let tmp = self.root.join("tmp");
        for name in file_names(&tmp)? {
            usage.in_flight += disk_usage(&tmp.join(name))?;
        }
        Ok(usage)
    }

    /// What a finished layer's directory takes of the disk. It does not change, so it is measured once.
    pub(super) fn layer_usage(&self, path: &Path) -> Result<u64, ImageError> {
        let kept = path.join("usage");
        if let Some(known) = fs::read_to_string(&kept).ok().and_then(|text| text.trim().parse().ok()) {
            return Ok(known);
        }
        let size = disk_usage(path)?;
        // A copy for the next time: on a full disk it is measured again then. A whole line, or it is no number.
        if let Err(error) = fs::write(&kept, format!("{size}\n")) {
            tracing::debug!(path = %kept.display(), %error, "the size of a layer cannot be kept");
        }
        Ok(size)
    }
}

struct Shares {
    size: u64,
    images: usize,
    kept: bool,
}

/// What a tree, or a file, takes of the disk; nothing when it is not there any more.
pub(super) fn disk_usage(path: &Path) -> Result<u64, ImageError> {
    let failed = |error: Errno| ImageError::store("measure", path)(error.into());
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(ImageError::store("measure", path)(error)),
        Ok(data) if !data.is_dir() => return Ok(data.blocks() * 512),
        Ok(_) => {}
    }
    let root = match open_directory(path) {
        Err(ImageError::Store { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(0),
        opened => opened?,
    };
    let mut total = 0;
    let mut directory = root;
    let mut pending = vec![list(&directory, &mut total).map_err(failed)?];
    // One descriptor however deep the tree is: from a directory it goes up by `..`.
    while let Some(names) = pending.last_mut() {
        let next = match names.pop() {
            Some(name) => {
                let child = openat(&directory, name.as_slice(), FLAGS, Mode::empty());
                match child {
                    // Somebody removes or replaces it meanwhile.
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                    child => child.map_err(failed)?,
                }
            }
            None => {
                pending.pop();
                if pending.is_empty() {
                    break;
                }
                directory = openat(&directory, "..", FLAGS, Mode::empty()).map_err(failed)?;
                continue;
            }
        };
        pending.push(match list(&next, &mut total) {
            Err(Errno::NOENT) => Vec::new(),
            names => names.map_err(failed)?,
        });
        directory = next;
    }
    Ok(total)
}

const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Adds what a directory and the files in it take; its directories.
fn list(directory: &OwnedFd, total: &mut u64) -> Result<Vec<Vec<u8>>, Errno> {
    let mut directories = Vec::new();
    for item in Dir::read_from(directory)? {
        let item = item?;
        let name = item.file_name().to_bytes();
        if name == b".." {
            continue;
        }
        let stat = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            stat => stat?,
        };
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_directory && name != b"." {
            // Counted when it is listed.
            directories.push(name.to_vec());
            continue;
        }
        // A file with several names is counted in parts, one at each: all of them are in this tree.
        let names = if is_directory { 1 } else { u64::max(stat.st_nlink as u64, 1) };
        *total += stat.st_blocks as u64 * 512 / names;
    }
    Ok(directories)
}
