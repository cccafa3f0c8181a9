//! The files, kept one set for a sandbox, and mounted into its containers.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use coracle_linux::{MountAttributes, mount_setattr};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{MountAttrFlags, MountPropagationFlags, OpenTreeFlags, open_tree};

use crate::NetworkError;

/// What the files of a sandbox hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// /etc/hostname, without the end of the line.
    pub hostname: String,
    /// /etc/hosts.
    pub hosts: String,
    /// /etc/resolv.conf.
    pub resolv_conf: String,
}

/// One of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameFile {
    /// /etc/hostname.
    Hostname,
    /// /etc/hosts.
    Hosts,
    /// /etc/resolv.conf.
    ResolvConf,
}

/// The files of one pod, in a directory of theirs. Each sandbox has a set of its own, which its containers
/// share: what one writes into /etc/hosts, the others read.
#[derive(Clone, Debug)]
pub struct NameFiles {
    directory: PathBuf,
}

// === impl NameFile ===

impl NameFile {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Hostname, Self::Hosts, Self::ResolvConf];

    /// Where containers expect it.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Hostname => "/etc/hostname",
            Self::Hosts => "/etc/hosts",
            Self::ResolvConf => "/etc/resolv.conf",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Hostname => "hostname",
            Self::Hosts => "hosts",
            Self::ResolvConf => "resolv.conf",
        }
    }
}

// === impl NameFiles ===

impl NameFiles {
    /// Those in this directory, which need not be there.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// Whether the set of a sandbox is there.
    pub fn has(&self, sandbox: u32) -> bool {
        self.set(sandbox).exists()
    }

    /// Writes the set of a sandbox, unless somebody else was faster; those of sandboxes before it go. All of a
    /// set is there, or nothing.
    ///
    /// # Errors
    ///
    /// [`NetworkError::Io`]; it can be called again.
    pub fn write(&self, sandbox: u32, content: &Content) -> Result<(), NetworkError> {
        let set = &self.set(sandbox);
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let new = self.directory.join(format!("new-{}-{count}", std::process::id()));
        // What is there of that name is of a process before this one.
        remove(&new)?;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&new);
        made.map_err(NetworkError::io("make", &new))?;
        for file in NameFile::ALL {
            let path = new.join(file.name());
            let line;
            let text = match file {
                NameFile::Hostname => {
                    line = format!("{}\n", content.hostname);
                    &line
                }
                NameFile::Hosts => &content.hosts,
                NameFile::ResolvConf => &content.resolv_conf,
            };
            // Read by whoever a container's processes run as.
            let created = File::options().write(true).create_new(true).mode(0o644).open(&path);
            let written = created.and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                rustix::fs::fchmod(&file, Mode::from_raw_mode(0o644)).map_err(io::Error::from)
            });
            written.map_err(NetworkError::io("write", &path))?;
        }
        match fs::rename(&new, set) {
            Ok(()) => self.remove_others(set),
            // Somebody else was faster.
            Err(_) if set.exists() => remove(&new),
            Err(error) => Err(NetworkError::io("rename", &new)(error)),
        }
    }

    fn remove_others(&self, set: &Path) -> Result<(), NetworkError> {
        let entries = fs::read_dir(&self.directory).map_err(NetworkError::io("list", &self.directory))?;
        let is_set = |path: &PathBuf| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.parse::<u32>().is_ok())
        };
        let mut sets = entries.flatten().map(|entry| entry.path()).filter(is_set);
        sets.try_for_each(|path| if path == set { Ok(()) } else { remove(&path) })
    }

    /// A file of a sandbox as a detached mount, for one container.
    ///
    /// # Errors
    ///
    /// [`NetworkError::Io`].
    pub fn mount(&self, sandbox: u32, file: NameFile, read_only: bool) -> Result<OwnedFd, NetworkError> {
        let path = self.set(sandbox).join(file.name());
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let source = openat(CWD, &path, flags, Mode::empty()).map_err(NetworkError::io("open", &path))?;
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let mount = open_tree(&source, "", flags).map_err(NetworkError::io("clone the mount of", &path))?;
        let mut attributes =
            MountAttributes { propagation: Some(MountPropagationFlags::PRIVATE), ..Default::default() };
        if read_only {
            attributes.set = MountAttrFlags::MOUNT_ATTR_RDONLY;
        }
        mount_setattr(&mount, attributes).map_err(NetworkError::io("set the attributes of", &path))?;
        Ok(mount)
    }

    /// Removes all there is of them; absent is done. No container may have them any more.
    ///
    /// # Errors
    ///
    /// [`NetworkError::Io`]; it can be called again.
    pub fn remove(&self) -> Result<(), NetworkError> {
        remove(&self.directory)
    }

    fn set(&self, sandbox: u32) -> PathBuf {
        self.directory.join(sandbox.to_string())
    }
}

fn remove(path: &Path) -> Result<(), NetworkError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(NetworkError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn content(hostname: &str) -> Content {
        Content { hostname: hostname.into(), hosts: "hosts\n".into(), resolv_conf: String::new() }
    }

    #[test]
    fn each_sandbox_has_a_set_which_is_written_once() {
        let directory = tempfile::tempdir().unwrap();
        let files = NameFiles::new(directory.path().join("etc"));
        let read = |path: &str| fs::read_to_string(directory.path().join("etc").join(path)).unwrap();
        let ensure = |sandbox, hostname: &str| {
            files.write(sandbox, &content(hostname)).unwrap();
        };
        ensure(0, "web");
        assert_eq!(
            (read("0/hostname"), read("0/hosts"), read("0/resolv.conf")),
            ("web\n".into(), "hosts\n".into(), String::new())
        );
        let mode = fs::metadata(directory.path().join("etc/0/hosts")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o644);
        fs::write(directory.path().join("etc/0/hosts"), "a container's").unwrap();
        ensure(0, "too late");
        assert_eq!(read("0/hostname"), "web\n");
        assert_eq!(read("0/hosts"), "a container's");

        ensure(1, "other");
        assert_eq!(read("1/hostname"), "other\n");
        assert!(!directory.path().join("etc/0").exists());
        files.remove().unwrap();
        files.remove().unwrap();
        assert!(!directory.path().join("etc").exists());
    }

    #[test]
    fn many_at_once_make_one_set() {
        let directory = tempfile::tempdir().unwrap();
        let files = NameFiles::new(directory.path());
        std::thread::scope(|scope| {
            for n in 0..16 {
                let files = &files;
                scope.spawn(move || {
                    files.write(3, &content(&format!("h{n}"))).unwrap();
                });
            }
        });
        let names: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(names, ["3"]);
    }

    #[test]
    fn a_set_is_there_once_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let files = NameFiles::new(directory.path());
        assert!(!files.has(0));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        files.write(0, &content("web")).unwrap();
        assert!(files.has(0) && !files.has(1));
    }
}
