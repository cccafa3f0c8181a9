//! Removing logs.
//!
//! A pod may have had the log directory mounted: nothing here follows a link out of it.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, unlinkat};
use rustix::io::Errno;

use super::beneath::open_beneath;
use crate::error::{Error, file};

/// Removes a container's log and the files rotated aside from it. `log` lies beneath `log_dir`.
pub(crate) fn remove(log_dir: &Path, log: &Path) -> Result<(), Error> {
    let failed = |errno: Errno| file("remove the container log", log)(errno.into());
    let (Some(parent), Some(name)) = (log.parent(), log.file_name()) else { return Ok(()) };
    let Some(dir) = open_beneath(log_dir, parent).map_err(failed)? else { return Ok(()) };
    let name = name.as_encoded_bytes();
    for entry in Dir::read_from(&dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let found = entry.file_name().to_bytes();
        let own = found.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"."));
        if own {
            match unlinkat(&dir, entry.file_name(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
    }
    Ok(())
}

/// Removes the directory of a pod's logs, which lies in `log_dir`.
pub(crate) fn remove_all(log_dir: &Path, dir: &Path) -> Result<(), Error> {
    let failed = |error| file("remove the logs in", dir)(error);
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else { return Ok(()) };
    match open_beneath(log_dir, parent).map_err(|errno| failed(errno.into()))? {
        Some(parent) => coracle_linux::remove_tree(parent.as_fd(), name).map_err(failed),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_log_goes_with_its_rotations_and_nothing_else() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("ns_pod_uid/main");
        fs::create_dir_all(&dir).unwrap();
        for name in
            ["0.log", "0.log.20261122-010203", "0.log.20261122-010203-001", "1.log", "10.log", "0.logx"]
        {
            fs::write(dir.join(name), "").unwrap();
        }
        remove(base.path(), &dir.join("0.log")).unwrap();
        remove(base.path(), &dir.join("0.log")).unwrap();
        let mut left: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["0.logx", "1.log", "10.log"]);
        remove_all(base.path(), dir.parent().unwrap()).unwrap();
        remove_all(base.path(), dir.parent().unwrap()).unwrap();
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_link_in_place_of_a_directory_leads_nowhere() {
        let base = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("0.log"), "").unwrap();
        fs::create_dir(base.path().join("pod")).unwrap();
        symlink(elsewhere.path(), base.path().join("pod/main")).unwrap();
        assert!(remove(base.path(), &base.path().join("pod/main/0.log")).is_err());
        remove_all(base.path(), &base.path().join("pod")).unwrap();
        assert!(elsewhere.path().join("0.log").exists());
    }
}
