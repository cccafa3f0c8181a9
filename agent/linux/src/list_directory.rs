//! A directory's entries, in an order that does not depend on the file system.

use std::fs::{self, DirEntry};
use std::io;
use std::path::Path;

/// What is in a directory, by name.
///
/// # Errors
/// It cannot be opened, or not be read to its end.
pub fn list_directory(path: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_cached_key(DirEntry::file_name);
    Ok(entries)
}

/// As [`list_directory`]; a directory that is not there has nothing in it.
///
/// # Errors
/// As [`list_directory`].
pub fn list_if_there(path: &Path) -> io::Result<Vec<DirEntry>> {
    match list_directory(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_in_order_of_their_names_and_what_is_not_there_has_none() {
        let directory = std::env::temp_dir().join(format!("coracle-list-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        assert!(list_if_there(&directory.join("gone")).unwrap().is_empty());
        assert_eq!(list_directory(&directory.join("gone")).unwrap_err().kind(), io::ErrorKind::NotFound);
        let mut names: Vec<std::ffi::OsString> =
            (0..100).map(|number| format!("{:02}", number * 37 % 100).into()).collect();
        names.iter().for_each(|name| fs::write(directory.join(name), "").unwrap());
        let listed = list_if_there(&directory).unwrap();
        names.sort();
        assert_eq!(listed.iter().map(DirEntry::file_name).collect::<Vec<_>>(), names);
        // What is no directory is not taken for one that is not there.
        assert!(list_if_there(&directory.join("00")).is_err());
        fs::remove_dir_all(&directory).unwrap();
    }
}
