//! How much disk a volume takes.

use std::collections::HashSet;
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fstat, openat, statat};
use rustix::io::Errno;

use crate::VolumeError;

/// Descriptors one measurement may hold. What lies deeper is measured after the rest, from its own root.
const MAX_DEPTH: usize = 256;

/// Directories one measurement may remember the names of, which are on the way to what lies deeper: containers make them,
/// and the memory is the agent's.
const MAX_NAMES: usize = 1 << 14;

/// Bytes of the blocks allocated to what is in a directory, each file once; any number above `limit` for more than that.
/// Follows no link and enters no mount. The volume is in use: what vanishes meanwhile counts nothing.
pub(crate) fn usage(path: &Path, limit: u64) -> Result<u64, VolumeError> {
    let failed = |error: Errno| VolumeError::io("measure", path)(error);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let volume = openat(CWD, path, flags, Mode::empty()).map_err(failed)?;
    let device = fstat(&volume).map_err(failed)?.st_dev;
    let root = openat(&volume, c".", DIRECTORY, Mode::empty()).map_err(failed)?;
    let mut usage =
        Usage { device, limit, linked: HashSet::new(), bytes: 0, names: Vec::new(), deeper: Vec::new() };
    let mut walked = usage.walk(root, None);
    // Those of one parent follow one another: it is opened once for all of them.
    let mut parent: Option<(Option<usize>, OwnedFd)> = None;
    while usage.bytes <= limit
        && walked.is_ok()
        && let Some(at) = usage.deeper.pop()
    {
        let Some((above, name)) = usage.names.get(at) else { break };
        if parent.as_ref().is_none_or(|(known, _)| known != above) {
            parent = match usage.descend(&volume, *above) {
                Ok(opened) => Some((*above, opened)),
                Err(error) if is_gone(error) => continue,
                Err(error) => return Err(failed(error)),
            };
        }
        let Some((_, above)) = &parent else { continue };
        match openat(above, &**name, DIRECTORY, Mode::empty()) {
            Ok(root) => walked = usage.walk(root, Some(at)),
            Err(error) if is_gone(error) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    match walked {
        _ if usage.bytes > limit => Ok(usage.bytes),
        Ok(()) => Ok(usage.bytes),
        Err(Errno::OVERFLOW) => {
            let problem = format!(
                "more than {MAX_NAMES} directories are nested {MAX_DEPTH} deep, or lead to such that are"
            );
            Err(VolumeError::io("measure", path)(std::io::Error::other(problem)))
        }
        Err(error) => Err(failed(error)),
    }
}

/// What was measured so far.
struct Usage {
    device: u64,
    /// Nobody asks further.
    limit: u64,
    /// Files with several names.
    linked: HashSet<u64>,
    bytes: u64,
    /// Directories on the way to those that are to be walked: the position of the one above, `None` for the volume's
    /// root, and the name.
    names: Vec<(Option<usize>, Box<CStr>)>,
    /// Those that are still to be walked.
    deeper: Vec<usize>,
}

/// A directory that is being walked.
struct Level {
    directory: Dir,
    name: Box<CStr>,
    /// Its position among the names, once it is there.
    known: Option<usize>,
}

// === impl Usage ===

impl Usage {
    /// Adds what is in a directory, whose position among the names is `at`. [`Errno::OVERFLOW`] where more names than
    /// may be would have to be remembered.
    fn walk(&mut self, root: OwnedFd, at: Option<usize>) -> Result<(), Errno> {
        let mut levels = vec![Level { directory: Dir::new(root)?, name: c"".into(), known: at }];
        loop {
            let depth = levels.len();
            let Some(level) = levels.last_mut() else { return Ok(()) };
            let Some(entry) = level.directory.next() else {
                levels.pop();
                continue;
            };
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = match statat(level.directory.fd()?, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error),
            };
            if stat.st_dev != self.device || (stat.st_nlink > 1 && !self.linked.insert(stat.st_ino)) {
                continue;
            }
            let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
            self.bytes = self.bytes.saturating_add(blocks.saturating_mul(512));
            if self.bytes > self.limit {
                return Ok(());
            }
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                continue;
            }
            if depth == MAX_DEPTH {
                self.put_off(&mut levels, at, name)?;
                continue;
            }
            match openat(level.directory.fd()?, name, DIRECTORY, Mode::empty()) {
                Ok(child) => {
                    levels.push(Level { directory: Dir::new(child)?, name: name.into(), known: None });
                }
                Err(error) if is_gone(error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Leaves a directory beneath the last of the levels for later.
    fn put_off(&mut self, levels: &mut [Level], at: Option<usize>, name: &CStr) -> Result<(), Errno> {
        let mut above = at;
        for level in levels.iter_mut().skip(1) {
            above = match level.known {
                None => Some(self.remember(above, &level.name)?),
                known => known,
            };
            level.known = above;
        }
        let at = self.remember(above, name)?;
        self.deeper.push(at);
        Ok(())
    }

    fn remember(&mut self, above: Option<usize>, name: &CStr) -> Result<usize, Errno> {
        if self.names.len() == MAX_NAMES {
            return Err(Errno::OVERFLOW);
        }
        self.names.push((above, name.into()));
        Ok(self.names.len() - 1)
    }

    /// Opens a directory of the volume, name by name: the whole may be longer than a path can be.
    fn descend(&self, volume: &OwnedFd, at: Option<usize>) -> Result<OwnedFd, Errno> {
        let step = |at: &Option<usize>| at.and_then(|at| self.names.get(at)).map(|(above, _)| *above);
        let mut way: Vec<_> = std::iter::successors(Some(at), step).flatten().collect();
        way.reverse();
        let root = openat(volume, c".", DIRECTORY, Mode::empty());
        way.into_iter()
            .filter_map(|at| self.names.get(at))
            .fold(root, |at, (_, name)| openat(at?.as_fd(), &**name, DIRECTORY, Mode::empty()))
    }
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Whether a container has removed or replaced what was just there.
fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}
