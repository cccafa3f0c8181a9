//! What a VM is booted from, and the snapshot of a booted one that most tests start from.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::directory::Directory;
use super::qemu::{self, Disk, PAYLOAD_SIZE, Parts, Qemu};
use super::{BOOT, patience};
use crate::images::project;

/// A release of Debian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// Debian 13.
    Trixie,
    /// Debian 12.
    Bookworm,
}

// === impl Suite ===

impl Suite {
    /// The one that `$CORACLE_VM_SUITE` names; trixie where it names none.
    pub fn chosen() -> Self {
        match std::env::var("CORACLE_VM_SUITE").unwrap_or_default().as_str() {
            "" | "trixie" => Self::Trixie,
            "bookworm" => Self::Bookworm,
            other => panic!("CORACLE_VM_SUITE: {other:?} is none of trixie, bookworm"),
        }
    }

    /// As Debian calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trixie => "trixie",
            Self::Bookworm => "bookworm",
        }
    }
}

/// A built image, in the cache.
pub(super) struct Image {
    directory: PathBuf,
}

/// A saved VM: its disk, which others are laid over, and its memory.
pub(super) struct Snapshot {
    /// A qcow2.
    pub(super) disk: PathBuf,
    /// The memory, and the state of the devices.
    pub(super) memory: PathBuf,
}

// === impl Image ===

impl Image {
    /// Built by `tests/vm/build`, unless it is in the cache.
    pub(super) fn of(suite: Suite) -> Self {
        let script = project().join("tests/vm/build");
        let output = Command::new(&script)
            .arg(suite.name())
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .unwrap_or_else(|error| panic!("{}: {error}", script.display()));
        assert!(output.status.success(), "{}: {}", script.display(), output.status);
        Self { directory: PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()) }
    }

    /// Where `kernel` and `initrd` are.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The disk of a machine that was never booted.
    pub(super) fn disk(&self) -> PathBuf {
        self.directory.join("disk")
    }

    /// The image booted once and saved, unless that is in the cache: systemd is up, and nothing else has happened.
    pub(super) fn snapshot(&self) -> Snapshot {
        let version = Command::new("qemu-system-x86_64").arg("--version").output();
        let version = version.expect("qemu is installed (scripts/install-missing vm)").stdout;
        let mut hasher = DefaultHasher::new();
        (version, qemu::arguments(), PAYLOAD_SIZE).hash(&mut hasher);
        let result = self.directory.join(format!("snapshot-{:016x}", hasher.finish()));
        let lock = File::create(self.directory.join("lock")).expect("the cache is writable");
        lock.lock().expect("files can be locked");
        if !result.exists() {
            self.make_snapshot(&result);
        }
        Snapshot { disk: result.join("disk"), memory: result.join("memory") }
    }

    fn make_snapshot(&self, result: &Path) {
        println!("booting the VM once");
        let started = Instant::now();
        for entry in fs::read_dir(&self.directory).expect("the cache is readable").flatten() {
            if entry.file_name().to_string_lossy().starts_with("snapshot-") {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        // Its final name is in the disk that is laid over it.
        let half = result.with_extension("half");
        let _ = fs::remove_dir_all(&half);
        fs::create_dir(&half).expect("the cache is writable");
        let work = Directory::new();
        let parts = Parts {
            image: self.directory.clone(),
            disk: Disk::Overlay(half.join("disk")),
            payload: work.join("payload"),
            clock: None,
        };
        lay_over(&self.disk(), &half.join("disk"));
        // Nothing may be read of it before the payload of a test takes its place.
        let payload = File::create(&parts.payload).and_then(|file| file.set_len(PAYLOAD_SIZE));
        payload.expect("the VM's directory is writable");
        let mut qemu = Qemu::start(&parts, &work, false);
        let serial = || fs::read_to_string(work.join("serial")).unwrap_or_default();
        let ready = qemu.guest.wait_ready(BOOT * patience());
        ready.unwrap_or_else(|error| panic!("the VM does not boot: {error}\n{}", serial()));
        let settle = "systemctl is-system-running --wait; sync; echo 3 > /proc/sys/vm/drop_caches";
        let settled = qemu.guest.run(settle, b"", Duration::from_secs(120), false);
        settled.unwrap_or_else(|error| panic!("the VM does not come up: {error}\n{}", serial()));
        qemu.save(&half.join("memory"));
        fs::rename(&half, result).expect("the cache is writable");
        println!("booted and saved in {:.1} s", started.elapsed().as_secs_f64());
    }
}

/// Makes a disk that holds what is written to it, over another that stays as it is.
pub(super) fn lay_over(below: &Path, disk: &Path) {
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
        .args([below, disk])
        .status()
        .expect("qemu-utils is installed (scripts/install-missing vm)");
    assert!(made.success(), "qemu-img create {}: {made}", disk.display());
}

/// Makes a file that holds what a disk does, and is written to without it.
pub(super) fn copy(disk: &Path, file: &Path) {
    let made = Command::new("qemu-img")
        .args(["convert", "-q", "-O", "raw", "-t", "unsafe"])
        .args([disk, file])
        .status()
        .expect("qemu-utils is installed (scripts/install-missing vm)");
    assert!(made.success(), "qemu-img convert {}: {made}", disk.display());
}
