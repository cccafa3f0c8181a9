//! What is copied and where to, as kubectl reads it.

use std::path::PathBuf;

use anyhow::bail;

/// `[[namespace/]pod:]file/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FileSpec {
    Local(PathBuf),
    Remote(RemoteFile),
}

/// A path in a container of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RemoteFile {
    pub(super) namespace: Option<String>,
    pub(super) pod: String,
    pub(super) path: String,
}

/// One side of a copy is here and one in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Copy {
    ToPod(PathBuf, RemoteFile),
    FromPod(RemoteFile, PathBuf),
}

// === impl Copy ===

impl Copy {
    pub(super) fn parse(source: &str, destination: &str) -> anyhow::Result<Self> {
        match (FileSpec::parse(source)?, FileSpec::parse(destination)?) {
            (FileSpec::Local(source), FileSpec::Remote(destination)) => Ok(Self::ToPod(source, destination)),
            (FileSpec::Remote(source), FileSpec::Local(destination)) => {
                Ok(Self::FromPod(source, destination))
            }
            (FileSpec::Remote(_), FileSpec::Remote(_)) => {
                bail!("one of src or dest must be a local file specification")
            }
            (FileSpec::Local(_), FileSpec::Local(_)) => {
                bail!("one of src or dest must be a remote file specification")
            }
        }
    }
}

// === impl FileSpec ===

impl FileSpec {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let (pod, path) = match text.split_once(':') {
            None => (None, text),
            Some((pod, path)) => (Some(pod), path),
        };
        let malformed = "filespec must match the canonical format: [[namespace/]pod:]file/path";
        let spec = match pod.map(|pod| pod.split('/').collect::<Vec<_>>()).as_deref() {
            None => Self::Local(path.into()),
            Some([pod]) if !pod.is_empty() => {
                Self::Remote(RemoteFile { namespace: None, pod: (*pod).to_owned(), path: path.to_owned() })
            }
            Some([namespace, pod]) if !namespace.is_empty() && !pod.is_empty() => {
                let namespace = Some((*namespace).to_owned());
                Self::Remote(RemoteFile { namespace, pod: (*pod).to_owned(), path: path.to_owned() })
            }
            Some(_) => bail!(malformed),
        };
        if path.is_empty() {
            bail!("filepath can not be empty");
        }
        Ok(spec)
    }
}

// === impl RemoteFile ===

impl RemoteFile {
    /// As an argument of a program, which is not to take it for an option.
    pub(super) fn argument(&self) -> String {
        if self.path.starts_with('-') { format!("./{}", self.path) } else { self.path.clone() }
    }

    /// The directory it lies in, and its name there: none where the path is a directory for itself.
    pub(super) fn split(&self) -> (String, Option<&str>) {
        let path = self.path.trim_end_matches('/');
        let (directory, name) = match path.rsplit_once('/') {
            None => (".", path),
            Some(("", name)) => ("/", name),
            Some((directory, name)) => (directory, name),
        };
        match name {
            "" | "." | ".." => (self.path.clone(), None),
            name => (directory.to_owned(), Some(name)),
        }
    }
}

/// The parts of a path without those that mean nothing; `None` when it leads upwards.
pub(super) fn components(path: &[u8]) -> Option<Vec<&[u8]>> {
    let parts: Vec<_> =
        path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    (!parts.contains(&&b".."[..])).then_some(parts)
}

/// The parts of a path that stand before every name in an archive of it: tar leaves out what leads upwards,
/// with all before it.
pub(super) fn archived(path: &str) -> Vec<&[u8]> {
    let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    let parts: Vec<_> = parts.map(str::as_bytes).collect();
    let after = parts.iter().rposition(|part| *part == b"..").map_or(0, |at| at + 1);
    parts[after..].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(namespace: Option<&str>, pod: &str, path: &str) -> RemoteFile {
        RemoteFile { namespace: namespace.map(str::to_owned), pod: pod.to_owned(), path: path.to_owned() }
    }

    #[test]
    fn files_are_named_as_in_kubectl() {
        assert_eq!(
            Copy::parse("a/b", "web:/tmp").unwrap(),
            Copy::ToPod("a/b".into(), remote(None, "web", "/tmp"))
        );
        assert_eq!(
            Copy::parse("ns/web:etc:x", ".").unwrap(),
            Copy::FromPod(remote(Some("ns"), "web", "etc:x"), ".".into())
        );
        let malformed = "filespec must match the canonical format: [[namespace/]pod:]file/path";
        for (source, destination, message) in [
            ("a", "b", "one of src or dest must be a remote file specification"),
            ("a:b", "c:d", "one of src or dest must be a local file specification"),
            (":b", "c", malformed),
            ("x/y/z:b", "c", malformed),
            ("/web:b", "c", malformed),
            ("web:", "c", "filepath can not be empty"),
            ("", "web:c", "filepath can not be empty"),
        ] {
            assert_eq!(Copy::parse(source, destination).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn a_path_is_a_directory_and_a_name() {
        for (path, directory, name) in [
            ("/tmp/x", "/tmp", Some("x")),
            ("/tmp/x/", "/tmp", Some("x")),
            ("/x", "/", Some("x")),
            ("x", ".", Some("x")),
            ("a/../x", "a/..", Some("x")),
            ("/", "/", None),
            (".", ".", None),
            ("a/..", "a/..", None),
        ] {
            assert_eq!(remote(None, "p", path).split(), (directory.to_owned(), name), "{path}");
        }
    }

    #[test]
    fn names_in_an_archive_begin_with_the_path_as_far_as_it_leads_downwards() {
        for (path, parts) in [
            ("/etc/nginx/", &["etc", "nginx"][..]),
            ("./a//b", &["a", "b"]),
            ("../a/../b/c", &["b", "c"]),
            ("/", &[]),
            ("a/..", &[]),
        ] {
            let expected: Vec<_> = parts.iter().map(|part| part.as_bytes()).collect();
            assert_eq!(archived(path), expected, "{path}");
        }
        assert_eq!(components(b"/a/./b//"), Some(vec![&b"a"[..], b"b"]));
        assert_eq!(components(b"a/../b"), None);
        assert_eq!(components(b"..."), Some(vec![&b"..."[..]]));
    }
}
