//! What tests share.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Writes a shell script that can be executed.
pub(crate) fn program(directory: &Path, name: &str, script: &str) {
    let path = directory.join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}
