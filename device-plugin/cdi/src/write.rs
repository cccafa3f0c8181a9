//! Writing a specification.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use coracle_document::Faults;

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
    // Its name ends in no way that a reader looks for.
    let temporary = directory.join(format!(".{name}.json.tmp"));
    let written = replace(&temporary, &path, &bytes);
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(file("write the CDI specification", &path))?;
    Ok(path)
}

/// Removes what [`write()`] has written. What is not there is removed.
///
/// # Errors
/// When it cannot be removed.
pub fn remove(directory: &Path, name: &str) -> Result<(), CdiError> {
    let path = place(directory, name)?;
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(file("remove the CDI specification", path)(error))
        }
        _ => Ok(()),
    }
}

fn place(directory: &Path, name: &str) -> Result<PathBuf, CdiError> {
    let path = directory.join(format!("{name}.json"));
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
        let why = io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no name of a file"));
        return Err(file("write the CDI specification", path)(why));
    }
    Ok(path)
}

fn replace(temporary: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut out = File::options().write(true).create(true).truncate(true).mode(0o644).open(temporary)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    fs::rename(temporary, path)
}
