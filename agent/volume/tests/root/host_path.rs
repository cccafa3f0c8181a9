//! hostPath: types, read-only, propagation.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use coracle_model::{HostPathType, MountPropagation, VolumeMount};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::mount::{MountPropagationFlags, MoveMountFlags, mount_change, move_mount};

use crate::support::{Fixture, host_path, inside, mount_at, mount_tmpfs, no_payloads, pod};

#[test]
fn each_type_takes_what_it_names() {
    let f = Fixture::new();
    fs::create_dir(f.path("directory")).unwrap();
    fs::write(f.path("file"), "x").unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(f.path("socket")).unwrap();
    let node = |name: &str, kind, device| {
        mknodat(CWD, f.path(name), kind, Mode::from_raw_mode(0o600), device).unwrap();
    };
    node("char", FileType::CharacterDevice, makedev(1, 3));
    node("block", FileType::BlockDevice, makedev(7, 0));
    node("fifo", FileType::Fifo, 0);
    symlink("directory", f.path("link")).unwrap();

    let all = ["directory", "file", "socket", "char", "block", "fifo", "link"];
    for (kind, fits, word) in [
        (HostPathType::Unset, &all[..], ""),
        (HostPathType::Directory, &["directory", "link"], "directory"),
        (HostPathType::DirectoryOrCreate, &["directory", "link"], "directory"),
        (HostPathType::File, &["file"], "file"),
        (HostPathType::FileOrCreate, &["file"], "file"),
        (HostPathType::Socket, &["socket"], "socket file"),
        (HostPathType::CharDevice, &["char"], "character device"),
        (HostPathType::BlockDevice, &["block"], "block device"),
    ] {
        for name in all {
            let path = f.path(name);
            let pod = pod(vec![host_path("v", &path, kind)]);
            let found = f.volumes.ensure(&pod, &no_payloads(), || None).map_err(|error| error.to_string());
            let expected = if fits.contains(&name) {
                Ok(())
            } else {
                let path = path.display();
                Err(format!(
                    "MountVolume.SetUp failed for volume \"v\" : hostPath type check failed: {path} is not a {word}"
                ))
            };
            assert_eq!(found, expected, "{kind:?} {name}");
            let mounted = f.volumes.mount(&pod, &mount_at("v", None));
            assert_eq!(mounted.is_ok(), expected.is_ok(), "{kind:?} {name}: {mounted:?}");
            if let Ok(mounted) = mounted {
                assert_eq!(mounted.is_directory, matches!(name, "directory" | "link"));
            }
        }
    }
}

#[test]
fn what_is_missing_is_made_or_refused() {
    let f = Fixture::new();
    let mode = |name: &str| fs::metadata(f.path(name)).unwrap().permissions().mode() & 0o7777;
    let ensure = |name: &str, kind| {
        f.volumes.ensure(&pod(vec![host_path("v", &f.path(name), kind)]), &no_payloads(), || None)
    };
    ensure("a/b", HostPathType::DirectoryOrCreate).unwrap();
    assert_eq!(mode("a/b"), 0o755);
    ensure("unset/x", HostPathType::Unset).unwrap();
    assert_eq!(mode("unset/x"), 0o755);
    ensure("file", HostPathType::FileOrCreate).unwrap();
    assert_eq!(mode("file"), 0o644);
    assert!(ensure("no/such/file", HostPathType::FileOrCreate).is_err(), "its directory must be there");
    for kind in [
        HostPathType::Directory,
        HostPathType::File,
        HostPathType::Socket,
        HostPathType::CharDevice,
        HostPathType::BlockDevice,
    ] {
        let error = ensure("absent", kind).unwrap_err().to_string();
        assert!(error.contains("hostPath type check failed"), "{error}");
        assert!(!f.path("absent").exists());
    }
}

#[test]
fn read_only_concerns_the_volume_and_not_mounts_below() {
    let f = Fixture::new();
    mount_tmpfs(&f.path("host/below"));
    let pod = pod(vec![host_path("v", &f.path("host"), HostPathType::Directory)]);
    let mounted = f.volumes.mount(&pod, &VolumeMount { read_only: true, ..mount_at("v", None) }).unwrap();
    let error = fs::write(inside(&mounted).join("x"), "x").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    fs::write(inside(&mounted).join("below/x"), "x").unwrap();
    assert_eq!(fs::read_to_string(f.path("host/below/x")).unwrap(), "x");
    fs::write(f.path("host/y"), "the host still writes").unwrap();
}

#[test]
fn propagation_needs_a_mount_that_propagates() {
    let f = Fixture::new();
    let host = f.path("host");
    mount_tmpfs(&host);
    let pod = pod(vec![host_path("v", &host, HostPathType::Directory)]);
    let mount = |propagation| f.volumes.mount(&pod, &VolumeMount { propagation, ..mount_at("v", None) });
    for (propagation, word) in [
        (MountPropagation::Bidirectional, "shared mount"),
        (MountPropagation::HostToContainer, "shared or slave mount"),
    ] {
        let error = mount(propagation).unwrap_err().to_string();
        let path = host.display();
        assert!(
            error.contains(&format!("path \"{path}\" is mounted on \"{path}\" but it is not a {word};")),
            "{error}"
        );
    }
    mount_change(&host, MountPropagationFlags::SHARED).unwrap();

    // What is mounted on either side is, or is not, seen on the other.
    let attach = |name: &str, propagation| {
        let target = f.path(name);
        fs::create_dir(&target).unwrap();
        let prepared = mount(propagation).unwrap();
        move_mount(&prepared.fd, "", CWD, &target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).unwrap();
        target
    };
    let none = attach("none", MountPropagation::None);
    let slave = attach("slave", MountPropagation::HostToContainer);
    let both = attach("both", MountPropagation::Bidirectional);
    mount_tmpfs(&host.join("from-host"));
    fs::write(host.join("from-host/seen"), "").unwrap();
    assert!(!none.join("from-host/seen").exists());
    assert!(slave.join("from-host/seen").exists());
    assert!(both.join("from-host/seen").exists());
    for (target, reaches_host) in [(&none, false), (&slave, false), (&both, true)] {
        let name = format!("from-{}", target.file_name().unwrap().to_str().unwrap());
        mount_tmpfs(&target.join(&name));
        fs::write(target.join(&name).join("seen"), "").unwrap();
        assert_eq!(host.join(&name).join("seen").exists(), reaches_host, "{name}");
    }
}
