//! Where state is kept: file systems, and the room on them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{statfs, statvfs};
use rustix::mount::{FsOpenFlags, fsconfig_create, fsconfig_set_string, fsopen};

use super::Finding;
use crate::config::Config;

/// Less than this is soon full.
const FREE: u64 = 2 << 30;

/// `f_type` of the file systems that matter here (linux/magic.h).
const OVERLAYFS: u64 = 0x794c_7630;
const TMPFS: u64 = 0x0102_1994;

/// A directory for a try, removed with all in it.
struct Scratch(PathBuf);

pub(super) fn check(config: &Config) -> Vec<Finding> {
    let root = existing(&config.root_dir);
    let run = existing(&config.run_dir);
    vec![overlay(&root), free(&root), volatile(&config.run_dir, &run)]
}

/// The directory itself, or the nearest above it that is there: the file system it will be on.
fn existing(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

fn overlay(root: &Path) -> Finding {
    let name = "overlayfs";
    match try_overlay(root) {
        Ok(()) => Finding::ok(name, format!("works on {}", root.display())),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => {
            Finding::missing(name, "the kernel does not have it", "modprobe overlay")
        }
        Err(error) => {
            let mut found = format!("does not work on {}: {error}", root.display());
            if file_system(root) == Some(OVERLAYFS) {
                found.push_str(" (it is on an overlay itself, as the root of a container is)");
            }
            let remedy = "choose a --root-dir on ext4, xfs or btrfs, or on a volume of its own";
            Finding::missing(name, found, remedy)
        }
    }
}

/// Mounts an overlay whose layers are where containers' will be. It is never attached anywhere.
fn try_overlay(root: &Path) -> io::Result<()> {
    let scratch = Scratch(root.join(format!(".coracle-check-{}", std::process::id())));
    fs::create_dir(&scratch.0)?;
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, name) in [("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work")] {
        let directory = scratch.0.join(name);
        fs::create_dir(&directory)?;
        fsconfig_set_string(&context, key, &directory)?;
    }
    Ok(fsconfig_create(&context)?)
}

fn free(root: &Path) -> Finding {
    let name = "free space";
    match statvfs(root) {
        Ok(found) => {
            let bytes = found.f_bavail.saturating_mul(found.f_frsize);
            let text = format!(
                "{:.1} GiB on the file system of {}",
                bytes as f64 / f64::from(1u32 << 30),
                root.display()
            );
            if bytes >= FREE && found.f_favail > 10_000 {
                Finding::ok(name, text)
            } else {
                Finding::weaker(
                    name,
                    text,
                    "images and writable layers soon fill it",
                    "make room, or choose another --root-dir",
                )
            }
        }
        Err(errno) => {
            Finding::weaker(name, io::Error::from(errno).to_string(), "it is not known", "look at the disk")
        }
    }
}

fn volatile(path: &Path, run: &Path) -> Finding {
    let name = "volatile state";
    let found = format!("{} would be on {}", path.display(), run.display());
    match file_system(run) {
        Some(TMPFS) => Finding::ok(name, format!("{} is in memory", path.display())),
        _ => Finding::weaker(
            name,
            format!("{found}, which is not in memory"),
            "what is true until reboot only is still there after it, and every start of a container writes to a disk",
            "choose a --run-dir on a tmpfs, such as /run",
        ),
    }
}

fn file_system(path: &Path) -> Option<u64> {
    u64::try_from(statfs(path).ok()?.f_type).ok()
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left after a failure here is an empty directory with a name that explains it.
        let _ = fs::remove_dir_all(&self.0);
    }
}
