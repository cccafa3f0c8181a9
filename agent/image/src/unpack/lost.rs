//! Content that a later entry of the same layer replaces. No container sees it, but the layer's archive has it, so it is
//! kept for the day the archive is wanted again.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, Stat, mkdirat, renameat, statat, unlinkat};
use rustix::io::Errno;

use super::lower::open_directory;
use super::split::LOST;

/// Directories taken out of one in a pass.
const MOST_AT_ONCE: usize = 1024;

/// The directory `lost` of a layer, made when it is needed.
pub(super) struct Lost<'a> {
    layer: BorrowedFd<'a>,
    directory: Option<OwnedFd>,
    trees: u64,
}

impl<'a> Lost<'a> {
    pub(super) fn new(layer: BorrowedFd<'a>) -> Self {
        Self { layer, directory: None, trees: 0 }
    }

    pub(super) fn layer(&self) -> BorrowedFd<'a> {
        self.layer
    }

    /// Takes a node, and all below it, out of the layer.
    pub(super) fn take(&mut self, parent: BorrowedFd<'_>, name: &[u8], stat: &Stat) -> Result<(), Errno> {
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return self.take_file(parent, name, stat);
        }
        // Emptied where nothing else is, and directories within are moved up: so depth never matters.
        let mut trees = vec![self.take_tree(parent, name)?];
        while let Some(tree) = trees.last() {
            let directory = open_directory(self.directory()?, tree.as_bytes())?;
            let mut found = false;
            let mut inner = Vec::new();
            for item in Dir::read_from(&directory)? {
                let item = item?;
                let name = item.file_name().to_bytes();
                if matches!(name, b"." | b"..") {
                    continue;
                }
                found = true;
                let stat = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                    self.take_file(directory.as_fd(), name, &stat)?;
                } else if unlinkat(&directory, name, AtFlags::REMOVEDIR).is_err() {
                    inner.push(self.take_tree(directory.as_fd(), name)?);
                    if inner.len() == MOST_AT_ONCE {
                        break;
                    }
                }
            }
            // A listing may miss entries while others go.
            if !found {
                unlinkat(self.directory()?, tree.as_str(), AtFlags::REMOVEDIR)?;
                trees.pop();
            }
            trees.append(&mut inner);
        }
        Ok(())
    }

    fn take_file(&mut self, parent: BorrowedFd<'_>, name: &[u8], stat: &Stat) -> Result<(), Errno> {
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_size > 0 {
            renameat(parent, name, self.directory()?, stat.st_ino.to_string())?;
        }
        match unlinkat(parent, name, AtFlags::empty()) {
            // Renamed. Only a further name of a file that is kept already stays where it is.
            Err(Errno::NOENT) => Ok(()),
            done => done,
        }
    }

    fn take_tree(&mut self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<String, Errno> {
        self.trees += 1;
        let tree = format!("tree-{}", self.trees);
        renameat(parent, name, self.directory()?, tree.as_str())?;
        Ok(tree)
    }

    fn directory(&mut self) -> Result<&OwnedFd, Errno> {
        if self.directory.is_none() {
            mkdirat(self.layer, LOST, Mode::from_raw_mode(0o700))?;
            self.directory = Some(open_directory(self.layer, LOST.as_bytes())?);
        }
        self.directory.as_ref().ok_or(Errno::NOENT)
    }
}
