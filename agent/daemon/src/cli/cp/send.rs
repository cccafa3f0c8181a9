//! Files of this machine as an archive for a container.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use coracle_linux::list_directory;
use rustix::fs::OFlags;
use tar::{Builder, Header};

/// Writes an archive of `source`, whatever it is, in which it has the name `name`; with an empty one the
/// archive has what is in it. As kubectl's, it lists no directory but empty ones: those that are there in the
/// container stay as they are. `warn` is told what is left out.
pub(super) fn pack(
    source: &Path,
    name: &Path,
    output: impl Write,
    mut warn: impl FnMut(&Path),
) -> anyhow::Result<()> {
    let mut archive = Builder::new(output);
    let mut left = vec![(source.to_owned(), name.to_owned())];
    while let Some((path, name)) = left.pop() {
        let here = || format!("cannot read {}", path.display());
        let kind = fs::symlink_metadata(&path).with_context(here)?.file_type();
        if kind.is_dir() {
            let below = list(&path, &name).with_context(here)?;
            if below.is_empty() && !name.as_os_str().is_empty() {
                let mut header = Header::new_gnu();
                header.set_metadata(&fs::symlink_metadata(&path).with_context(here)?);
                archive.append_data(&mut header, &name, io::empty())?;
            }
            left.extend(below.into_iter().rev());
        } else if kind.is_symlink() {
            let mut header = Header::new_gnu();
            header.set_metadata(&fs::symlink_metadata(&path).with_context(here)?);
            let target = fs::read_link(&path).with_context(here)?;
            archive.append_link(&mut header, &name, target)?;
        } else if kind.is_file() {
            append(&mut archive, &path, &name).with_context(here)?;
        } else {
            warn(&path);
        }
    }
    archive.into_inner()?.flush()?;
    Ok(())
}

/// What is in a directory, and the names it has in the archive.
fn list(path: &Path, name: &Path) -> io::Result<Vec<(PathBuf, PathBuf)>> {
    let entries = list_directory(path)?.into_iter();
    Ok(entries.map(|entry| (entry.path(), name.join(entry.file_name()))).collect())
}

fn append(archive: &mut Builder<impl Write>, path: &Path, name: &Path) -> anyhow::Result<()> {
    // It was a regular file a moment ago; if it is a link or a pipe now, it is not followed or waited for.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        bail!("it is no regular file any more");
    }
    let mut header = Header::new_gnu();
    header.set_metadata(&metadata);
    Ok(archive.append_data(&mut header, name, Exact { file, left: metadata.len() })?)
}

/// So much of a file, neither more nor less: its length is in the archive before its data.
struct Exact {
    file: File,
    left: u64,
}

impl Read for Exact {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let most = out.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.file.read(&mut out[..most])?;
        if count == 0 && most > 0 {
            return Err(io::Error::other("it became shorter while it was read"));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_tree_is_archived_under_its_new_name() {
        let here = tempfile::tempdir().unwrap();
        let tree = here.path().join("tree");
        fs::create_dir_all(tree.join("empty")).unwrap();
        fs::create_dir_all(tree.join("sub")).unwrap();
        fs::write(tree.join("sub/file"), "content").unwrap();
        fs::set_permissions(tree.join("sub/file"), fs::Permissions::from_mode(0o751)).unwrap();
        symlink("sub/file", tree.join("link")).unwrap();
        let long = "n".repeat(200);
        fs::write(tree.join(&long), "").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();
        let (mut bytes, mut skipped) = (Vec::new(), Vec::new());
        pack(&tree, Path::new("new"), &mut bytes, |path| skipped.push(path.to_owned())).unwrap();
        assert_eq!(skipped, [tree.join("socket")]);
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            let link = entry.link_name().unwrap().map(|link| link.display().to_string()).unwrap_or_default();
            (
                entry.path().unwrap().display().to_string(),
                entry.header().mode().unwrap() & 0o777,
                text + &link,
            )
        });
        let entries: Vec<_> = entries.collect();
        let names: Vec<_> = entries.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["new/empty", "new/link", &format!("new/{long}"), "new/sub/file"]);
        assert_eq!(entries[1].2, "sub/file");
        assert_eq!((entries[3].1, entries[3].2.as_str()), (0o751, "content"));
    }

    #[test]
    fn a_file_that_shrinks_is_told() {
        let here = tempfile::tempdir().unwrap();
        let path = here.path().join("file");
        fs::write(&path, "12345").unwrap();
        let mut exact = Exact { file: File::open(&path).unwrap(), left: 6 };
        let error = io::copy(&mut exact, &mut io::sink()).unwrap_err();
        assert_eq!(error.to_string(), "it became shorter while it was read");
    }
}
