//! The directory that configurations of networks stand in.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::list::{Listed, ListedPlugin};
use crate::{CniError, ConfigList};

/// The largest file that is read, in bytes.
const MOST_BYTES: u64 = 4 << 20;

/// Why the configuration of the network is not known.
#[derive(Debug, thiserror::Error)]
pub enum ConfigDirectoryError {
    /// A file or directory could not be read.
    #[error("cannot read the network configuration {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// What a file says cannot be used.
    #[error("the network configuration {} cannot be used: {source}", path.display())]
    Invalid {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: CniError,
    },
}

/// Reads the network of this directory: the first by name of the files that end in `.conflist`, `.conf` or `.json`, as
/// other runtimes choose it. None where there is no such file, or no directory.
///
/// Directories and names that begin with a dot are not looked at. A file that cannot be used is an error: to go on to
/// the next one would give pods another network than the one that is configured.
///
/// # Errors
/// What could not be read, or is wrong.
pub fn first_network(directory: &Path) -> Result<Option<(PathBuf, ConfigList)>, ConfigDirectoryError> {
    let Some(file) = files(directory, &["conflist", "conf", "json"])?.into_iter().next() else {
        return Ok(None);
    };
    let list = read(&file)?;
    Ok(Some((file, list)))
}

fn read(file: &Path) -> Result<ConfigList, ConfigDirectoryError> {
    let invalid = |source| ConfigDirectoryError::Invalid { path: file.to_owned(), source };
    let text = text(file)?;
    if file.extension() != Some(OsStr::new("conflist")) {
        return ConfigList::parse_single(&text).map_err(invalid);
    }
    let Listed { mut list, only_inlined } = Listed::parse(&text).map_err(invalid)?;
    if !only_inlined {
        // `<directory>/<name of the network>/*.conf`, after those of the list.
        let beside = file.parent().unwrap_or(Path::new(".")).join(&list.name);
        for path in files(&beside, &["conf"])? {
            let source = |source| ConfigDirectoryError::Invalid { path: path.clone(), source };
            list.plugins.push(ListedPlugin::parse(&self::text(&path)?).map_err(source)?);
        }
    }
    list.whole().map_err(invalid)
}

/// The files of a directory with one of these endings, by name.
fn files(directory: &Path, endings: &[&str]) -> Result<Vec<PathBuf>, ConfigDirectoryError> {
    let failed = |source| ConfigDirectoryError::Io { path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let ending = path.extension().and_then(OsStr::to_str);
        // One that is a link to nothing is no directory, and fails when it is read.
        if !hidden && ending.is_some_and(|ending| endings.contains(&ending)) && !path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn text(path: &Path) -> Result<Vec<u8>, ConfigDirectoryError> {
    let failed = |source| ConfigDirectoryError::Io { path: path.to_owned(), source };
    // A pipe without a writer must hold nobody up.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file =
        File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(|error| failed(error.into()))?);
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("it is not a regular file")));
    }
    let mut text = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > MOST_BYTES {
        return Err(failed(io::Error::other("it is larger than 4 MiB")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn list(name: &str) -> String {
        format!(r#"{{"cniVersion": "1.0.0", "name": "{name}", "plugins": [{{"type": "bridge"}}]}}"#)
    }

    fn single(name: &str) -> String {
        format!(r#"{{"cniVersion": "0.4.0", "name": "{name}", "type": "ptp"}}"#)
    }

    fn directory(files: &[(&str, String)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        directory
    }

    fn found(directory: &tempfile::TempDir) -> (String, String) {
        let (path, list) = first_network(directory.path()).unwrap().unwrap();
        (path.file_name().unwrap().to_str().unwrap().to_owned(), list.name)
    }

    #[test]
    fn the_first_file_by_name_is_the_network_whatever_its_ending() {
        let files = directory(&[
            (".00-hidden.conflist", list("hidden")),
            ("00-old.conflist.bak", list("old")),
            ("00-readme", "text".to_owned()),
            ("00-directory.conf/x", String::new()),
            ("20-b.conflist", list("b")),
            ("10-a.conf", single("a")),
            ("15-c.json", single("c")),
        ]);
        assert_eq!(found(&files), ("10-a.conf".to_owned(), "a".to_owned()));
        symlink(files.path().join("20-b.conflist"), files.path().join("05-link.conflist")).unwrap();
        assert_eq!(found(&files), ("05-link.conflist".to_owned(), "b".to_owned()));
    }

    #[test]
    fn without_a_file_or_directory_there_is_no_network() {
        assert!(first_network(directory(&[]).path()).unwrap().is_none());
        assert!(first_network(Path::new("/nonexistent/cni")).unwrap().is_none());
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_and_not_passed_over() {
        for broken in ["", "{", "{\"name\": \"a\"}", &single("no-list")] {
            let files = directory(&[("10-a.conflist", broken.to_owned()), ("20-b.conflist", list("b"))]);
            let error = first_network(files.path()).unwrap_err();
            assert!(matches!(error, ConfigDirectoryError::Invalid { .. }), "{error}");
            assert!(error.to_string().contains("10-a.conflist"), "{error}");
        }
        let files = directory(&[("20-b.conflist", list("b"))]);
        symlink("/nonexistent", files.path().join("10-a.conflist")).unwrap();
        let error = first_network(files.path()).unwrap_err();
        assert!(matches!(error, ConfigDirectoryError::Io { .. }), "{error}");
        let files = directory(&[("20-b.conflist", list("b"))]);
        let pipe = files.path().join("10-a.conflist");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(first_network(files.path()).unwrap_err().to_string().contains("not a regular file"));
    }

    #[test]
    fn plugins_beside_the_list_follow_its_own_unless_it_says_otherwise() {
        let kinds = |list: String| {
            let files = directory(&[
                ("10-a.conflist", list),
                ("a/20-second.conf", r#"{"type": "second"}"#.to_owned()),
                ("a/10-first.conf", r#"{"type": "first"}"#.to_owned()),
                ("a/00-no.json", r#"{"type": "no"}"#.to_owned()),
            ]);
            first_network(files.path()).map(|found| {
                found.unwrap().1.plugins.into_iter().map(|plugin| plugin.kind).collect::<Vec<_>>()
            })
        };
        assert_eq!(kinds(list("a")).unwrap(), ["bridge", "first", "second"]);
        assert_eq!(kinds(list("b")).unwrap(), ["bridge"]);
        assert_eq!(kinds(r#"{"cniVersion": "1.1.0", "name": "a"}"#.to_owned()).unwrap(), ["first", "second"]);
        let only = r#"{"cniVersion": "1.1.0", "name": "a", "loadOnlyInlinedPlugins": true}"#;
        assert!(kinds(only.to_owned()).is_err());
    }
}
