//! Manifests from files.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::{Decoded, MAX_BYTES, ManifestError, decode};

/// Reads and decodes a file.
///
/// Symbolic links are followed, as the kubelet does: configuration management swaps them. What is not a
/// regular file is refused without being read or waited for, and no more than [`MAX_BYTES`] are read.
///
/// # Errors
/// Every variant of [`ManifestError`].
pub fn decode_file(path: &Path) -> Result<Decoded, ManifestError> {
    let bytes = read_file(path)?;
    decode(&path.to_string_lossy(), &bytes)
}

/// Reads a manifest's bytes under the rules of [`decode_file`].
///
/// # Errors
/// Every variant of [`ManifestError`] but [`ManifestError::Invalid`].
pub fn read_file(path: &Path) -> Result<Vec<u8>, ManifestError> {
    let failed = |error| ManifestError::Read { path: path.to_owned(), error };
    let too_large = || ManifestError::TooLarge { name: path.display().to_string(), limit: MAX_BYTES };
    let file = open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(ManifestError::NotRegular { path: path.to_owned() });
    }
    if metadata.len() > MAX_BYTES {
        return Err(too_large());
    }
    // With room for all of it and a byte, one read takes it and another finds its end.
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default() + 1);
    // One byte more than allowed, for a file that grows meanwhile.
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES { Err(too_large()) } else { Ok(bytes) }
}

/// Without waiting for the writer of a pipe, and without making a terminal the controlling one.
fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}
