//! Writing a specification.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use coracle_document::Faults;
use coracle_linux::{PowerLoss, remove_if_there, replace_file};

use crate::error::{CdiError, file};
use crate::spec::Spec;
use crate::validate::validate;
use crate::version::needed_version;

/// Writes a specification as `<directory>/<name>.json`, in place of the one that is there, and makes the directory where
/// it is missing. Whoever reads meanwhile sees the one or the other. Its version becomes the lowest that has its fields, so
/// that as many runtimes as can be read it. What is there already is not written again.
///
/// # Errors
/// [`CdiError::Invalid`] when nobody could read it, [`CdiError::File`] when it cannot be written; then nothing has changed.
pub fn write(directory: &Path, name: &str, mut spec: Spec) -> Result<PathBuf, CdiError> {
    let path = place(directory, name)?;
    needed_version(&spec).as_str().clone_into(&mut spec.cdi_version);
    let mut faults = Faults::default();
    validate(&spec, &mut faults);
    if !faults.is_empty() {
        return Err(CdiError::Invalid(faults.in_file(&path.display().to_string())));
    }
    let mut bytes = serde_json::to_vec_pretty(&spec)
        .map_err(|error| file("write the CDI specification", &path)(error.into()))?;
    bytes.push(b'\n');
    if fs::read(&path).is_ok_and(|there| there == bytes) {
        return Ok(path);
    }
    fs::create_dir_all(directory).map_err(file("make the directory of CDI specifications", directory))?;
    // What is written first ends in no way that a reader looks for.
    replace_file(&path, 0o644, PowerLoss::OldOrNew, &bytes)
        .map_err(|error| file("write the CDI specification", &path)(error.into()))?;
    Ok(path)
}

/// Removes what [`write()`] has written. What is not there is removed.
///
/// # Errors
/// When it cannot be removed.
pub fn remove(directory: &Path, name: &str) -> Result<(), CdiError> {
    let path = place(directory, name)?;
    remove_if_there(&path).map(drop).map_err(file("remove the CDI specification", path))
}

fn place(directory: &Path, name: &str) -> Result<PathBuf, CdiError> {
    let path = directory.join(format!("{name}.json"));
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
        let why = io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no name of a file"));
        return Err(file("write the CDI specification", path)(why));
    }
    Ok(path)
}
