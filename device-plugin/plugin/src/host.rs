//! What the host shows of itself in /dev, /proc and /sys, below a root.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use coracle_linux::list_directory;

/// No file of /proc or /sys that is read here is longer.
const MOST: u64 = 1024 * 1024;

/// How many links may lead to a node.
const LINKS: usize = 16;

/// The host's tree: `/`, or where a copy of one stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    root: PathBuf,
}

// === impl Host ===

impl Host {
    /// The tree below this directory.
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Whether it is this machine's own.
    pub(crate) fn is_own(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where the tree stands.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where an absolute path of the host is.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The text of a file without white space around it; `None` where there is none that can be read.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        let file = File::open(self.at(&self.resolve(path)?)).ok()?;
        let mut text = String::new();
        file.take(MOST).read_to_string(&mut text).ok()?;
        Some(text.trim().to_owned())
    }

    /// The names in a directory, in order.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let entries = self.resolve(path).and_then(|path| list_directory(&self.at(&path)).ok());
        entries.into_iter().flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Whether something is there.
    pub(crate) fn exists(&self, path: &str) -> bool {
        self.resolve(path).is_some()
    }

    /// The path without links, as the host would say it.
    pub(crate) fn resolve(&self, path: &str) -> Option<String> {
        if self.is_own() {
            return fs::canonicalize(path).ok()?.into_os_string().into_string().ok();
        }
        let mut parts: Vec<String> =
            path.split('/').rev().filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let mut done: Vec<String> = Vec::new();
        let mut links = 0;
        while let Some(part) = parts.pop() {
            match part.as_str() {
                "." => continue,
                ".." => drop(done.pop()),
                _ => {
                    done.push(part);
                    let here = self.at(&done.join("/"));
                    let kind = here.symlink_metadata().ok()?.file_type();
                    if kind.is_symlink() {
                        links += 1;
                        if links > LINKS {
                            return None;
                        }
                        let target = fs::read_link(&here).ok()?.into_os_string().into_string().ok()?;
                        done.pop();
                        if target.starts_with('/') {
                            done.clear();
                        }
                        parts.extend(
                            target.split('/').rev().filter(|part| !part.is_empty()).map(str::to_owned),
                        );
                    }
                }
            }
        }
        Some(format!("/{}", done.join("/")))
    }

    /// The device node a path leads to. In a copy of a tree any file stands for one.
    pub(crate) fn node(&self, path: &str) -> Option<String> {
        let resolved = self.resolve(path)?;
        let kind = self.at(&resolved).symlink_metadata().ok()?.file_type();
        let is_node = kind.is_char_device() || kind.is_block_device() || !self.is_own() && kind.is_file();
        is_node.then_some(resolved)
    }

    /// The NUMA node of a device of sysfs.
    pub(crate) fn numa(&self, device: &str) -> Option<u32> {
        // -1 where the firmware does not say.
        self.text(&format!("{device}/numa_node"))?.parse().ok()
    }

    /// Where a device of sysfs is in the tree of busses.
    pub(crate) fn place(&self, device: &str) -> Vec<String> {
        let path = self.resolve(device).unwrap_or_default();
        path.split('/').skip_while(|part| *part != "devices").skip(1).map(str::to_owned).collect()
    }

    /// The name of the driver of a device of sysfs.
    pub(crate) fn driver(&self, device: &str) -> Option<String> {
        let path = self.resolve(&format!("{device}/driver"))?;
        path.rsplit('/').next().map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_of_a_copied_tree_stay_in_it() {
        let root = tempfile::tempdir().expect("a directory");
        let make = |path: &str| fs::create_dir_all(root.path().join(path)).expect("directories");
        make("sys/devices/pci0000:00/0000:00:02.0/drm/card0");
        make("sys/class/drm");
        make("sys/bus/pci/drivers/i915");
        symlink("../../devices/pci0000:00/0000:00:02.0/drm/card0", root.path().join("sys/class/drm/card0"))
            .expect("a link");
        symlink(
            "../../../0000:00:02.0",
            root.path().join("sys/devices/pci0000:00/0000:00:02.0/drm/card0/device"),
        )
        .expect("a link");
        symlink("/sys/bus/pci/drivers/i915", root.path().join("sys/devices/pci0000:00/0000:00:02.0/driver"))
            .expect("a link");
        symlink("loop", root.path().join("loop")).expect("a link");
        fs::write(root.path().join("sys/devices/pci0000:00/0000:00:02.0/numa_node"), "1\n").expect("a file");
        let host = Host::new(root.path());
        assert_eq!(
            host.resolve("/sys/class/drm/card0/device").as_deref(),
            Some("/sys/devices/pci0000:00/0000:00:02.0")
        );
        assert_eq!(host.driver("/sys/class/drm/card0/device").as_deref(), Some("i915"));
        assert_eq!(host.numa("/sys/class/drm/card0/device"), Some(1));
        assert_eq!(host.place("/sys/class/drm/card0/device"), ["pci0000:00", "0000:00:02.0"]);
        assert_eq!(host.resolve("/loop"), None);
        assert_eq!(host.resolve("/none"), None);
    }
}
