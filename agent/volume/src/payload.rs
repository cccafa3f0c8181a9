//! What is to be in a volume made of configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Component, Path};
use std::sync::Arc;

use crate::VolumeError;

/// The longest path and the longest name in it, as Kubernetes' own writer has them.
const MAX_PATH: usize = 4096;
const MAX_NAME: usize = 255;

/// The files of a volume made of configuration, by their paths in it. Its `Debug` shows no content.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Payload {
    files: BTreeMap<String, PayloadFile>,
}

/// One file.
#[derive(Clone, PartialEq, Eq)]
pub struct PayloadFile {
    /// What it holds.
    pub content: Arc<[u8]>,
    /// Its permissions, at most 0777.
    pub mode: u32,
}

// === impl Payload ===

impl Payload {
    /// Adds a file. Of two with one path the later counts.
    ///
    /// # Errors
    ///
    /// [`VolumeError::PayloadPath`] when the path is not one of a file in a volume: absolute, empty, with
    /// `..` or beginning with it, too long, or with a file where another path has a directory.
    pub fn insert(&mut self, path: &str, file: PayloadFile) -> Result<(), VolumeError> {
        let refused = |problem: String| VolumeError::PayloadPath { path: path.to_owned(), problem };
        let mut names = Vec::new();
        for component in Path::new(path).components() {
            match component {
                Component::Normal(name) => names.push(name.to_str().unwrap_or_default()),
                Component::CurDir => {}
                Component::RootDir | Component::Prefix(_) => {
                    return Err(refused("must be relative path".to_owned()));
                }
                Component::ParentDir => return Err(refused("must not contain '..'".to_owned())),
            }
        }
        let clean = names.join("/");
        if clean.is_empty() || path.contains('\0') {
            return Err(refused("must name a file".to_owned()));
        }
        // Names that begin so are the writer's own.
        if clean.starts_with("..") {
            return Err(refused("must not start with '..'".to_owned()));
        }
        if clean.len() > MAX_PATH {
            return Err(refused(format!("must be less than or equal to {MAX_PATH} characters")));
        }
        if names.iter().any(|name| name.len() > MAX_NAME) {
            return Err(refused(format!("filenames must be less than or equal to {MAX_NAME} characters")));
        }
        if let Some(other) = self.in_the_way(&clean) {
            return Err(refused(format!(
                "{other} is there, too, and one of them would have to be a directory"
            )));
        }
        self.files.insert(clean, file);
        Ok(())
    }

    /// How many files there are.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The files by path, in order.
    pub fn files(&self) -> impl Iterator<Item = (&str, &PayloadFile)> {
        self.files.iter().map(|(path, file)| (path.as_str(), file))
    }

    /// A file there is, if any.
    pub fn get(&self, path: &str) -> Option<&PayloadFile> {
        self.files.get(path)
    }

    /// The first component of every path: what is seen in the volume's root.
    pub(crate) fn visible(&self) -> BTreeSet<&str> {
        self.files.keys().map(|path| path.split('/').next().unwrap_or(path)).collect()
    }

    /// The directories the files lie in, parents first.
    pub(crate) fn directories(&self) -> BTreeSet<&str> {
        self.files.keys().flat_map(|path| parents(path)).collect()
    }

    /// A path that is a directory of this one, or has it as a directory.
    fn in_the_way(&self, path: &str) -> Option<&str> {
        let above = parents(path).find_map(|parent| self.files.get_key_value(parent));
        let prefix = format!("{path}/");
        let below =
            || self.files.range(prefix.clone()..).next().filter(|(other, _)| other.starts_with(&prefix));
        above.or_else(below).map(|(other, _)| other.as_str())
    }
}

/// `a` and `a/b` of `a/b/c`.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.files.iter().map(|(path, file)| (path, file.content.len()))).finish()
    }
}

impl fmt::Debug for PayloadFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.content.len();
        f.debug_struct("PayloadFile").field("bytes", &bytes).field("mode", &self.mode).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &str) -> PayloadFile {
        PayloadFile { content: Arc::from(content.as_bytes()), mode: 0o644 }
    }

    #[test]
    fn paths_that_are_none_of_a_volume() {
        let long = format!("a/{}", "x".repeat(256));
        let longer = "x/".repeat(2100) + "y";
        for bad in ["", ".", "/a", "..", "../a", "a/../b", "..data", "..a/b", "./..a", "a\0b", &long, &longer]
        {
            let refused = Payload::default().insert(bad, file(""));
            assert!(matches!(refused, Err(VolumeError::PayloadPath { .. })), "{bad}: {refused:?}");
        }
        let mut payload = Payload::default();
        for good in ["a", "b/c", "b//d", "./e", ".hidden", "a..b", "b/..c"] {
            payload.insert(good, file("")).unwrap();
        }
        let paths: Vec<_> = payload.files().map(|(path, _)| path).collect();
        assert_eq!(paths, [".hidden", "a", "a..b", "b/..c", "b/c", "b/d", "e"]);
        assert_eq!(payload.visible().into_iter().collect::<Vec<_>>(), [".hidden", "a", "a..b", "b", "e"]);
    }

    #[test]
    fn a_file_cannot_be_a_directory() {
        for (first, second) in [("a", "a/b"), ("a/b", "a"), ("x/a/b/c", "x/a"), ("x/a", "x/a/b/c")] {
            let mut payload = Payload::default();
            payload.insert("a.b", file("")).unwrap();
            payload.insert(first, file("")).unwrap();
            let error = payload.insert(second, file("")).unwrap_err().to_string();
            assert!(error.contains(first) && error.contains(second), "{error}");
        }
    }

    #[test]
    fn the_later_file_counts_and_nothing_shows_content() {
        let mut payload = Payload::default();
        payload.insert("a/b/c", file("first")).unwrap();
        payload.insert("a/b/c", file("second")).unwrap();
        assert_eq!(&*payload.get("a/b/c").unwrap().content, b"second");
        assert_eq!(payload.directories().into_iter().collect::<Vec<_>>(), ["a", "a/b"]);
        let shown = format!("{payload:?} {:?}", payload.get("a/b/c"));
        assert!(!shown.contains("second"), "{shown}");
    }
}
