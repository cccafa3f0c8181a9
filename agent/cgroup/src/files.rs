//! Reading and writing the files of a cgroup.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use crate::Error;

/// Reads a file whole.
pub(crate) fn read(path: &Path) -> Result<String, Error> {
    let mut text = String::new();
    File::open(path)
        .and_then(|mut file| file.read_to_string(&mut text))
        .map_err(|source| Error::Read { path: path.to_owned(), source })?;
    Ok(text)
}

/// Reads a file that holds one number.
pub(crate) fn read_number(path: &Path) -> Result<u64, Error> {
    let text = read(path)?;
    text.trim().parse().map_err(|_| Error::Parse { path: path.to_owned(), text })
}

/// Reads the number after `key` in a file of `key number` lines.
pub(crate) fn read_keyed(path: &Path, key: &str) -> Result<u64, Error> {
    let text = read(path)?;
    keyed(&text, key).ok_or_else(|| Error::Parse { path: path.to_owned(), text })
}

/// The number after `key` in lines of `key number`.
pub(crate) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Writes a value with one `write(2)`, as the kernel's cgroup files want it. Never creates a file.
pub(crate) fn write(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

/// Turns "it is not there" into `None`: a cgroup that was removed, or a file the kernel lacks.
pub(crate) fn if_there<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::Read { source, .. } | Error::Create { source, .. }) if is_gone(&source) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the error says that a cgroup is not there: files of a removed one, opened before, give ENODEV.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_matched_whole() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(keyed(text, "oom_kill"), Some(3));
        assert_eq!(keyed(text, "oom"), None);
        assert_eq!(keyed("populated x\n", "populated"), None);
    }
}
