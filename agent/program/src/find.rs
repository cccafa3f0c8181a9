//! Where a program is.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The first file of this name in one of the directories that can be executed. The name must be no path.
pub fn find<P: AsRef<Path>>(name: &str, directories: impl IntoIterator<Item = P>) -> Option<PathBuf> {
    if name.is_empty() || name.contains('/') || matches!(name, "." | "..") {
        return None;
    }
    let executable = |program: &PathBuf| {
        program
            .metadata()
            .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    directories.into_iter().map(|directory| directory.as_ref().join(name)).find(executable)
}
