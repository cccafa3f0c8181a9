//! What plugins listen on.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Whether there is a socket, or a link to one: as to the kubelet, both are the same.
pub(crate) fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.file_type().is_socket())
}
