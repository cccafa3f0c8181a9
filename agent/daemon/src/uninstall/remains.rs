//! What a node leaves on its host when its pods are gone.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, bail};
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::config::{Config, DEFAULT_CONFIG_FILE};

/// Where a node's own directory of persistent state is, unless it is configured elsewhere: all in it is Coracle's.
const ROOT_DIR: &str = "/var/lib/coracle";

/// Where device plugins look for a kubelet, and what is above that.
const PLUGIN_DIR: &str = "/var/lib/kubelet/device-plugins";
const KUBELET_DIR: &str = "/var/lib/kubelet";

/// What is made in a root directory, wherever it is.
const IN_ROOT_DIR: [&str; 9] = [
    "archives",
    "archives.json",
    "checkpoints",
    "config.json",
    "events",
    "image_manager",
    "images",
    "pods",
    "seccomp",
];

/// Removes what would not outlast a reboot, and what the node has set on its host.
pub(super) fn remove_until_reboot(config: &Config) -> anyhow::Result<()> {
    // The accepted ConfigMaps and Secrets, in memory.
    let configs = config.run_dir.join("configs");
    match rustix::mount::unmount(&configs, UnmountFlags::DETACH) {
        Ok(()) | Err(Errno::NOENT | Errno::INVAL) => {}
        Err(error) => return Err(error).with_context(|| format!("cannot unmount {}", configs.display())),
    }
    remove_device_sockets(config)?;
    remove_tree(&config.run_dir)?;
    println!("removed {}", config.run_dir.display());
    if coracle_shutdown::remove_drop_in().context("cannot remove the configuration of logind")? {
        println!("removed the delay of the machine's shutdown from logind's configuration");
    }
    Ok(())
}

/// Removes the sockets at which device plugins registered and monitoring asked, unless another program listens there by
/// now, what the node's own plugin has left, and their directories where nobody has anything in them.
fn remove_device_sockets(config: &Config) -> anyhow::Result<()> {
    let places = &config.devices;
    let served = places.pod_resources_socket();
    for socket in [&places.plugin_dir.join("kubelet.sock"), &served] {
        let is_socket = fs::symlink_metadata(socket).is_ok_and(|found| found.file_type().is_socket());
        if is_socket && UnixStream::connect(socket).is_err() {
            fs::remove_file(socket).with_context(|| format!("cannot remove {}", socket.display()))?;
        }
    }
    coracle_device_plugin::remove_remains(&places.plugin_dir, places.own_cdi_dir())?;
    remove_if_empty(places.own_cdi_dir())?;
    let directories = [Some(&*places.plugin_dir), Some(&*places.registry_dir()), served.parent()];
    for directory in directories.into_iter().flatten() {
        remove_if_empty(directory)?;
    }
    // Above them is what a kubelet would have, and nothing else of the node.
    if places.plugin_dir == Path::new(PLUGIN_DIR) {
        remove_if_empty(Path::new(KUBELET_DIR))?;
    }
    Ok(())
}

/// Removes images, configuration, manifests, and directories of logs that nobody else uses.
pub(super) fn remove_data(config: &Config, keep_etc: bool) -> anyhow::Result<()> {
    if config.root_dir == Path::new(ROOT_DIR) {
        remove_tree(&config.root_dir)?;
    } else {
        for name in IN_ROOT_DIR {
            remove_tree(&config.root_dir.join(name))?;
        }
    }
    if remove_if_empty(&config.root_dir)? {
        println!("removed {}", config.root_dir.display());
    } else {
        println!("{} stays: it holds what is not coracle's", config.root_dir.display());
    }
    for directory in [&config.log_dir, &config.log_dir.with_file_name("containers")] {
        if !remove_if_empty(directory)? {
            println!("{} stays: it holds logs of others", directory.display());
        }
    }
    let Some(etc) = Path::new(DEFAULT_CONFIG_FILE).parent().filter(|_| !keep_etc) else { return Ok(()) };
    remove_tree(etc)?;
    println!("removed {}", etc.display());
    Ok(())
}

/// Removes it with all that is in it. Follows no link, and leaves what is mounted in it alone. Of a file system of its own
/// the mount stays, which is the administrator's.
fn remove_tree(path: &Path) -> anyhow::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        bail!("{} is not removed: it is a root directory", path.display());
    };
    let remove = || {
        let is_mount = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty())?;
        if is_mount.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            return coracle_linux::empty_directory(File::open(path)?.as_fd());
        }
        coracle_linux::remove_tree(File::open(parent)?.as_fd(), name)
    };
    let mounted = [Errno::XDEV, Errno::BUSY].map(|errno| Some(errno.raw_os_error()));
    match remove() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if mounted.contains(&error.raw_os_error()) => {
            bail!("something is mounted in {}: unmount it, and try again", path.display())
        }
        removed => removed.with_context(|| format!("cannot remove {}", path.display())),
    }
}

/// Whether it is gone.
fn remove_if_empty(directory: &Path) -> anyhow::Result<bool> {
    match fs::remove_dir(directory) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::ResourceBusy) =>
        {
            Ok(false)
        }
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", directory.display())),
    }
}
