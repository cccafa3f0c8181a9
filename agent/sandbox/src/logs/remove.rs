//! Removing logs.
//!
//! A pod may have had the log directory mounted: nothing here follows a link out of it.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
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

/// Removes, of every container in the directory of a pod's logs, those of all runs but the last.
pub(crate) fn remove_older(log_dir: &Path, dir: &Path) -> Result<(), Error> {
    let failed = |errno: Errno| file("remove old logs in", dir)(errno.into());
    let Some(pod) = open_beneath(log_dir, dir).map_err(failed)? else { return Ok(()) };
    for container in entries(&pod).map_err(failed)? {
        let path = dir.join(OsStr::from_bytes(container.to_bytes()));
        match open_beneath(log_dir, &path) {
            Ok(Some(container)) => keep_last(&container).map_err(failed)?,
            // Only directories are containers'.
            Ok(None) | Err(Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    Ok(())
}

fn keep_last(container: &OwnedFd) -> Result<(), Errno> {
    let names = entries(container)?;
    let last = names.iter().filter_map(|name| run_of(name)).max();
    for old in names.iter().filter(|name| run_of(name).is_some() && run_of(name) < last) {
        match unlinkat(container, old, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Which run's log a file is, or was rotated aside from: `<n>.log[.<time>]`.
fn run_of(name: &CStr) -> Option<u32> {
    let (number, rest) = name.to_str().ok()?.split_once(".log")?;
    (rest.is_empty() || rest.starts_with('.')).then(|| number.parse().ok()).flatten()
}

fn entries(dir: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let names = Dir::read_from(dir)?.map(|entry| Ok(entry?.file_name().to_owned()));
    names.filter(|name| !matches!(name, Ok(name) if [c".", c".."].contains(&name.as_c_str()))).collect()
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
    fn of_each_container_the_last_log_is_kept() {
        let base = tempfile::tempdir().unwrap();
        let pod = base.path().join("ns_pod_uid");
        let elsewhere = tempfile::tempdir().unwrap();
        for dir in [pod.join("main"), pod.join("other"), elsewhere.path().to_owned()] {
            fs::create_dir_all(&dir).unwrap();
            for name in
                ["0.log", "9.log", "9.log.20261122-010203", "10.log", "10.log.20261122-010203", "x.log"]
            {
                fs::write(dir.join(name), "").unwrap();
            }
        }
        fs::remove_file(pod.join("other/10.log")).unwrap();
        fs::remove_file(pod.join("other/10.log.20261122-010203")).unwrap();
        symlink(elsewhere.path(), pod.join("link")).unwrap();
        fs::write(pod.join("file"), "").unwrap();
        let left = |dir: &Path| {
            let mut left: Vec<_> =
                fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            left.sort();
            left
        };
        for _ in 0..2 {
            remove_older(base.path(), &pod).unwrap();
            assert_eq!(left(&pod.join("main")), ["10.log", "10.log.20261122-010203", "x.log"]);
            assert_eq!(left(&pod.join("other")), ["9.log", "9.log.20261122-010203", "x.log"]);
            assert_eq!(left(elsewhere.path()).len(), 6);
        }
        remove_older(base.path(), &base.path().join("no_such_pod")).unwrap();
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
