//! What a layer hides of those below it, in overlayfs' marks.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, XattrFlags, fsetxattr, mknodat, readlinkat, statat, unlinkat,
};
use rustix::io::Errno;

use super::entry::Fault;
use super::layer::{LayerWriter, WHITEOUT, open_beneath};
use super::lower::{Below, OPAQUE, is_opaque, is_whiteout, open_directory};

const OPAQUE_WHITEOUT: &[u8] = b".wh..wh..opq";

impl LayerWriter<'_> {
    /// `.wh.NAME` hides NAME of the layers below, never what this layer itself has.
    pub(super) fn whiteout(
        &mut self,
        parent: &OwnedFd,
        in_root: bool,
        name: &[u8],
        hidden: &[u8],
        path: &[u8],
    ) -> Result<(), Fault> {
        let failed = |step| Fault::write::<Errno>(step, path);
        if name == OPAQUE_WHITEOUT {
            if in_root {
                // overlayfs merges the roots of its layers whatever they are marked with.
                self.root_is_opaque = true;
                return Ok(());
            }
            let directory = open_directory(parent, b".").map_err(failed("open the directory of"))?;
            return fsetxattr(&directory, OPAQUE, b"y", XattrFlags::empty())
                .map_err(failed("mark as opaque the directory of"));
        }
        // Other names of this form are aufs' own bookkeeping.
        if hidden.starts_with(WHITEOUT) {
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(Fault::malformed(path, "is a whiteout of no file"));
        }
        self.hide(parent, hidden, path)
    }

    fn hide(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), Fault> {
        match mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => match open_directory(parent, name) {
                Ok(own) => fsetxattr(&own, OPAQUE, b"y", XattrFlags::empty())
                    .map_err(Fault::write("mark as opaque", path)),
                // The layer's own file hides what is below already.
                Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
                Err(error) => Err(Fault::write("open", path)(error)),
            },
            Err(error) => Err(Fault::write("create", path)(error)),
        }
    }

    /// Hides every entry of the layers' roots below that this layer does not have itself.
    pub(super) fn hide_lower_roots(&mut self) -> Result<(), Fault> {
        let root = self.root.try_clone().map_err(Fault::write("open", b"/"))?;
        for lower in self.lowers.iter() {
            let lower = open_directory(&*lower?, b".").map_err(Fault::write("open", b"/"))?;
            for item in Dir::read_from(&lower).map_err(Fault::write("list the layer below", b"/"))? {
                let item = item.map_err(Fault::write("list the layer below", b"/"))?;
                let name = item.file_name().to_bytes();
                if !matches!(name, b"." | b"..") {
                    self.hide(&root, name, name)?;
                }
            }
        }
        Ok(())
    }

    /// Removes a whiteout that hides nothing. In a directory that only one layer has, or that is opaque, overlayfs does
    /// not take it for a mark: it would be listed, and not be found.
    pub(super) fn drop_idle(&mut self, path: &[u8]) -> Result<(), Fault> {
        let (parent, name) = match path.iter().rposition(|b| *b == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&path[..0], path),
        };
        let mut place: Vec<Vec<u8>> = components(parent);
        let parent = match open_beneath(&self.root, parent) {
            Ok(parent) => parent,
            // A later entry put something else there.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            Err(error) => return Err(Fault::write("open the directory of", path)(error)),
        };
        match statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if is_whiteout(stat.st_mode, stat.st_rdev) => {}
            Ok(_) | Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(Fault::write("look at", path)(error)),
        }
        if !self.is_below_opaque(&place).map_err(Fault::write("look at the directories of", path))? {
            place.push(name.to_vec());
            if !matches!(self.lowers.look_up(&place, path)?, Below::Nothing) {
                return Ok(());
            }
        }
        unlinkat(&parent, name, AtFlags::empty()).map_err(Fault::write("remove", path))
    }

    /// The names that lead from the layer's root to a directory, without links. One that is deeper than the kernel can
    /// name, which takes links to make, has none.
    pub(super) fn place(&self, directory: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
        let path = |fd: &OwnedFd| readlinkat(CWD, format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new());
        let (root, directory) = (path(&self.root)?, path(directory)?);
        Ok(components(directory.as_bytes().strip_prefix(root.as_bytes()).unwrap_or_default()))
    }

    fn is_below_opaque(&self, place: &[Vec<u8>]) -> Result<bool, Errno> {
        let mut at = open_directory(&self.root, b".")?;
        for name in place {
            at = open_directory(&at, name)?;
            if is_opaque(&at) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|b| *b == b'/').filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()
}
