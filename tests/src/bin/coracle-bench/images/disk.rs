//! The disk that a tool pulls to.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::command;

/// As large as what is unpacked, and what some keep beside it, never is.
const SIZE: u64 = 8 << 30;

/// An empty file system in a file, which ends with this.
///
/// Each pull has one of its own. In one that all share, each would wait for what others have left to write, and look for
/// its inodes among those that were freed before: ext4 gives none away for some minutes (`recently_deleted`), and looks at
/// one after another, which for thousands of files takes longer than all else.
pub(super) struct Disk {
    path: PathBuf,
    file: PathBuf,
}

impl Disk {
    /// Makes one in `work`, of the file system that Debian installs on.
    pub(super) fn new(work: &Path) -> Self {
        let (path, file) = (work.join("disk"), work.join("disk.img"));
        fs::create_dir_all(&path).expect("a directory to mount on");
        File::create(&file).and_then(|file| file.set_len(SIZE)).expect("a file for the disk");
        // What is written later than at once would be written while somebody is measured.
        let lazy = ["-q", "-m0", "-E", "lazy_itable_init=1,lazy_journal_init=1"];
        command(Command::new("mkfs.ext4").args(lazy).arg(&file));
        command(Command::new("mount").args(["-o", "loop,noinit_itable"]).args([&file, &path]));
        let disk = Self { path, file };
        command(Command::new("sync").arg("-f").arg(&disk.path));
        disk
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The loop device ends with the mount. A mount that stays ends with the namespace.
        let _ = Command::new("umount").arg(&self.path).status();
        let _ = fs::remove_file(&self.file);
    }
}
