//! What no watch tells of: changes behind links, and what other machines do on a network file system.
//!
//! A directory where there is none of it is never looked at for its own sake.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use coracle_linux::Stamp;
use rustix::fs::statfs;
use rustix::io::Errno;

use crate::directory::manifests_in;

/// How often such a directory is looked at: what a kubelet does with any, unless it is told otherwise.
pub(crate) const EVERY: Duration = Duration::from_secs(20);

/// File systems that others write to (`statfs(2)`, <linux/magic.h>): NFS, SMB (three), 9P, FUSE and with it virtiofs,
/// Ceph, AFS, Coda, OCFS2, GFS2, Lustre, VirtualBox's.
const SHARED: [u64; 13] = [
    0x6969,
    0x517b,
    0xff53_4d42,
    0xfe53_4d42,
    0x0102_1997,
    0x6573_5546,
    0x00c3_6400,
    0x5346_414f,
    0x7375_7245,
    0x7461_636f,
    0x0116_1970,
    0x0bd0_0bd0,
    0x786f_4256,
];

/// What a look finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Look {
    directory: Option<Stamp>,
    /// By path, as far as links lead to anything.
    manifests: Vec<(PathBuf, Option<Stamp>)>,
}

// === impl Look ===

impl Look {
    /// Looks, where watches do not tell of everything; `None` where they do. May wait for another machine.
    pub(crate) fn at(directory: &Path) -> Option<Self> {
        let manifests = manifests_in(directory).unwrap_or_default();
        if !is_behind_a_link(directory) && !is_shared(directory) && !manifests.iter().any(|it| leads_away(it))
        {
            return None;
        }
        let seen = |path: PathBuf| {
            let seen = fs::metadata(&path).ok().map(|found| Stamp::of(&found));
            (path, seen)
        };
        Some(Self {
            directory: fs::metadata(directory).ok().map(|found| Stamp::of(&found)),
            manifests: manifests.into_iter().map(seen).collect(),
        })
    }
}

/// Whether a link is on the way to the directory, or it is one: what is around the end of that way is watched, and not what
/// is around a link in the middle.
fn is_behind_a_link(directory: &Path) -> bool {
    let there = directory.ancestors().find_map(|path| Some((path, path.canonicalize().ok()?)));
    there.is_some_and(|(path, real)| real != path)
}

/// Whether other machines write to the file system it is on, or would be.
fn is_shared(directory: &Path) -> bool {
    for path in directory.ancestors() {
        match statfs(path) {
            // The type is a number of 32 bits, whatever the field has.
            Ok(found) => return SHARED.contains(&(found.f_type.cast_unsigned() & 0xffff_ffff)),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            // Its server does not answer now: that it does again nobody tells either.
            Err(_) => return true,
        }
    }
    false
}

/// Whether it is a link to something that is not swapped in the directory itself, as `..data` is.
fn leads_away(manifest: &Path) -> bool {
    let Ok(target) = fs::read_link(manifest) else { return false };
    let first = target.components().find(|part| *part != Component::CurDir);
    !matches!(first, Some(Component::Normal(name)) if name.as_encoded_bytes().starts_with(b".."))
}
