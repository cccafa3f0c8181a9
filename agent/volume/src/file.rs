//! Reading a file that containers have written into a volume.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

use coracle_model::Name;
use rustix::fs::{FileType, OFlags, fstat};
use rustix::io::Errno;

use crate::VolumeError;
use crate::sub_path::beneath;

/// The content of a regular file of at most `limit` bytes, resolved beneath the volume; `None` when
/// nothing is there.
pub(crate) fn read(
    volume: &OwnedFd,
    name: &Name,
    path: &Path,
    limit: u64,
) -> Result<Option<Vec<u8>>, VolumeError> {
    let refused =
        |problem: String| VolumeError::File { volume: name.to_string(), path: path.to_owned(), problem };
    // What is not a regular file must not be waited for.
    let file = match beneath(volume, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(Errno::XDEV) => return Err(refused("it leads out of the volume".to_owned())),
        Err(error) => return Err(refused(error.to_string())),
    };
    let stat = fstat(&file).map_err(|error| refused(error.to_string()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(refused("it is not a regular file".to_owned()));
    }
    let mut content = Vec::new();
    let read = File::from(file).take(limit.saturating_add(1)).read_to_end(&mut content);
    read.map_err(|error| refused(error.to_string()))?;
    if content.len() as u64 > limit {
        return Err(refused(format!("it is larger than {limit} bytes")));
    }
    Ok(Some(content))
}
