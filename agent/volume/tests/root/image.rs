//! Volumes of images. That a mount of layers is read-only is the image store's; here any tree serves.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, symlink};
use std::path::Path;

use coracle_linux::{MountAttributes, mount_setattr};
use coracle_model::{ImagePullPolicy, Name, Volume, VolumeSource};
use coracle_volume::VolumeError;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::io::Errno;
use rustix::mount::MoveMountFlags;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen, move_mount,
};

use crate::support::{Fixture, inside, mount_at, mount_count, no_payloads, pod, through};

/// A tree with links and a device that is mounted nowhere.
fn tree() -> OwnedFd {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    fsconfig_create(&context).unwrap();
    let root = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
    let path = through(&root);
    fs::create_dir_all(path.join("usr/share/data")).unwrap();
    fs::write(path.join("usr/share/data/file"), "content").unwrap();
    symlink("/usr/share", path.join("absolute")).unwrap();
    symlink("../../../usr/share", path.join("up")).unwrap();
    symlink("/proc/self/root", path.join("host")).unwrap();
    let device = makedev(1, 3);
    mknodat(CWD, path.join("null"), FileType::CharacterDevice, Mode::from_raw_mode(0o666), device).unwrap();
    root
}

fn volume() -> Volume {
    let source =
        VolumeSource::Image { reference: "x".to_owned(), pull_policy: ImagePullPolicy::IfNotPresent };
    Volume { name: Name::label("v").unwrap(), source }
}

#[test]
fn nothing_can_be_written_and_no_device_opened() {
    let f = Fixture::new();
    let pod = pod(vec![volume()]);
    f.volumes.ensure(&pod, &no_payloads(), || None).unwrap();
    for sub_path in [None, Some("")] {
        let mounted = f.volumes.mount_image(&mount_at("v", sub_path), tree()).unwrap();
        assert!(mounted.is_directory);
        let root = inside(&mounted);
        assert_eq!(fs::read_to_string(root.join("usr/share/data/file")).unwrap(), "content");
        let refused = |path: &str| fs::write(root.join(path), "").unwrap_err().raw_os_error();
        assert_eq!(refused("new"), Some(Errno::ROFS.raw_os_error()));
        assert_eq!(refused("usr/share/data/file"), Some(Errno::ROFS.raw_os_error()));
        assert!(fs::metadata(root.join("null")).unwrap().file_type().is_char_device());
        assert_eq!(
            fs::read(root.join("null")).unwrap_err().raw_os_error(),
            Some(Errno::ACCESS.raw_os_error())
        );
    }
    assert_eq!(mount_count(f.dir.path()), 0, "a mount became visible");
}

#[test]
fn a_part_of_it_is_mounted_and_links_lead_nowhere_else() {
    let f = Fixture::new();
    let mount = |sub_path: &str| f.volumes.mount_image(&mount_at("v", Some(sub_path)), tree());
    for sub_path in ["usr/share/data", "absolute/data", "up/data", "./usr//share/data/"] {
        let mounted = mount(sub_path).unwrap();
        assert_eq!(fs::read_to_string(inside(&mounted).join("file")).unwrap(), "content", "{sub_path}");
        assert!(fs::write(inside(&mounted).join("new"), "").is_err());
    }
    let file = mount("usr/share/data/file").unwrap();
    assert!(!file.is_directory);
    assert_eq!(fs::read_to_string(inside(&file)).unwrap(), "content");
    for missing in ["usr/none", "host", "host/etc", "usr/share/data/file/x"] {
        let error = mount(missing).unwrap_err();
        assert!(matches!(error, VolumeError::SubPath { step: "open", .. }), "{missing}: {error}");
        let prefix = format!("failed to prepare subPath for volumeMount \"v\": open {missing}: ");
        assert!(error.to_string().starts_with(&prefix), "{error}");
    }
}

#[test]
fn what_was_given_can_be_mounted_in_a_container() {
    let f = Fixture::new();
    let target = f.path("target");
    fs::create_dir(&target).unwrap();
    for sub_path in [None, Some("usr/share/data")] {
        let mounted = f.volumes.mount_image(&mount_at("v", sub_path), tree()).unwrap();
        move_mount(&mounted.fd, "", CWD, &target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).unwrap();
        // Also by one who may change mounts: the file system itself can be written, the mount says no.
        let made = fs::write(target.join("new"), "");
        assert_eq!(made.unwrap_err().raw_os_error(), Some(Errno::ROFS.raw_os_error()));
        let writable = MountAttributes { clear: MountAttrFlags::MOUNT_ATTR_RDONLY, ..Default::default() };
        mount_setattr(&mounted.fd, writable).unwrap();
        assert!(Path::new(&target).join("new").metadata().is_err());
    }
}
