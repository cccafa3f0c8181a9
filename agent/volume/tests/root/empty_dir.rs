//! emptyDir: on disk and in memory, through restarts and removal.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};

use coracle_model::{Container, EmptyDirMedium, MountPropagation, Name, Pod, RestartPolicy, VolumeMount};
use coracle_volume::{VolumeError, Volumes};
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat, statvfs};
use rustix::mount::{MountPropagationFlags, MoveMountFlags, mount_change, move_mount};

use crate::support::{Fixture, empty_dir, inside, mount_at, mount_count, mount_tmpfs, no_payloads, pod};

#[test]
fn content_outlives_the_agent_and_goes_with_the_pod() {
    let f = Fixture::new();
    let pod = pod(vec![
        empty_dir("disk", EmptyDirMedium::Default, None),
        empty_dir("memory", EmptyDirMedium::Memory, Some("8Mi")),
    ]);
    assert_eq!(f.volumes.leftovers().unwrap(), []);
    for name in ["disk", "memory"] {
        let early = f.volumes.mount(&pod, &mount_at(name, None));
        assert!(matches!(early, Err(VolumeError::NotReady { .. })), "{early:?}");
    }
    f.volumes.ensure(&pod, &no_payloads(), || None).unwrap();
    for name in ["disk", "memory"] {
        let mounted = f.volumes.mount(&pod, &mount_at(name, None)).unwrap();
        fs::write(inside(&mounted).join("file"), name).unwrap();
        assert_eq!(fs::metadata(inside(&mounted)).unwrap().permissions().mode() & 0o7777, 0o777);
    }
    let size = statvfs(f.empty_dir("memory")).unwrap();
    assert_eq!(size.f_blocks * size.f_frsize, 8 << 20);
    assert!(fs::write(f.empty_dir("memory").join("large"), vec![1; 9 << 20]).is_err());

    let restarted = Volumes::new(f.path("state"));
    restarted.ensure(&pod, &no_payloads(), || None).unwrap();
    restarted.ensure(&pod, &no_payloads(), || None).unwrap();
    for name in ["disk", "memory"] {
        let mounted = restarted.mount(&pod, &mount_at(name, None)).unwrap();
        assert_eq!(fs::read_to_string(inside(&mounted).join("file")).unwrap(), name);
    }
    assert_eq!(mount_count(f.dir.path()), 1);
    assert_eq!(restarted.leftovers().unwrap(), std::slice::from_ref(&pod.uid));

    restarted.release(&pod.uid).unwrap();
    restarted.release(&pod.uid).unwrap();
    assert_eq!((mount_count(f.dir.path()), f.path("state/pods/u1").exists()), (0, false));
    assert_eq!(restarted.leftovers().unwrap(), []);
}

#[test]
fn memory_lost_from_its_mount_is_not_replaced_by_disk() {
    let f = Fixture::new();
    let pod = pod(vec![empty_dir("memory", EmptyDirMedium::Memory, None)]);
    f.volumes.ensure(&pod, &no_payloads(), || None).unwrap();
    rustix::mount::unmount(f.empty_dir("memory"), rustix::mount::UnmountFlags::empty()).unwrap();
    let error = f.volumes.mount(&pod, &mount_at("memory", None)).unwrap_err();
    assert!(error.to_string().contains("its memory is not mounted"), "{error}");
}

#[test]
fn memory_is_bounded_by_what_the_pod_may_use() {
    let f = Fixture::new();
    let mut pod = pod(vec![
        empty_dir("small", EmptyDirMedium::Memory, Some("1Mi")),
        empty_dir("open", EmptyDirMedium::Memory, None),
    ]);
    let sizes = |pod: &Pod, node: Option<u64>| {
        f.volumes.ensure(pod, &no_payloads(), || node).unwrap();
        let sizes = ["small", "open"].map(|name| {
            let stat = statvfs(f.empty_dir(name)).unwrap();
            stat.f_blocks * stat.f_frsize
        });
        f.volumes.release(&pod.uid).unwrap();
        sizes.map(|size| size >> 20)
    };
    assert_eq!(sizes(&pod, Some(8 << 20)), [1, 8], "a pod without a limit may have what the node has");
    pod.spec.containers[0].resources.limits.memory = Some("4Mi".parse().unwrap());
    assert_eq!(sizes(&pod, None), [1, 4]);
    assert_eq!(sizes(&pod, Some(2 << 20)), [1, 2]);
    let mut sidecar = Container::new(Name::label("sidecar").unwrap(), "x");
    sidecar.restart_policy = Some(RestartPolicy::Always);
    sidecar.resources.limits.memory = Some("12Mi".parse().unwrap());
    pod.spec.init_containers.push(sidecar);
    assert_eq!(sizes(&pod, Some(32 << 20)), [1, 16], "sidecars have their part");
    pod.spec.init_containers[0].resources.limits.memory = None;
    assert_eq!(sizes(&pod, Some(32 << 20)), [1, 32], "and one without a limit leaves the pod without");
}

#[test]
fn what_one_container_mounts_in_memory_another_has() {
    let f = Fixture::new();
    mount_tmpfs(&f.path("state"));
    mount_change(f.path("state"), MountPropagationFlags::SHARED).unwrap();
    let pod = pod(vec![empty_dir("v", EmptyDirMedium::Memory, None)]);
    f.volumes.ensure(&pod, &no_payloads(), || None).unwrap();
    let attach = |name: &str, propagation| {
        let target = f.path(name);
        fs::create_dir(&target).unwrap();
        let mount = VolumeMount { propagation, ..mount_at("v", None) };
        let prepared = f.volumes.mount(&pod, &mount).unwrap();
        move_mount(&prepared.fd, "", CWD, &target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).unwrap();
        target
    };
    let both = attach("both", MountPropagation::Bidirectional);
    let slave = attach("slave", MountPropagation::HostToContainer);
    let none = attach("none", MountPropagation::None);
    mount_tmpfs(&both.join("nested"));
    fs::write(both.join("nested/seen"), "").unwrap();
    assert!(slave.join("nested/seen").exists() && !none.join("nested/seen").exists());
    f.volumes.release(&pod.uid).unwrap();
    assert_eq!(mount_count(&f.path("state/pods")), 0);
}

#[test]
fn removal_follows_no_link_and_undoes_every_mount() {
    let f = Fixture::new();
    let pod = pod(vec![
        empty_dir("disk", EmptyDirMedium::Default, None),
        empty_dir("memory", EmptyDirMedium::Memory, None),
    ]);
    f.volumes.ensure(&pod, &no_payloads(), || None).unwrap();
    fs::create_dir_all(f.path("outside/kept")).unwrap();
    let disk = f.empty_dir("disk");
    symlink(f.path("outside"), disk.join("link")).unwrap();
    symlink(f.path("outside"), f.empty_dir("memory").join("link")).unwrap();
    // What a container with Bidirectional propagation may leave: stacked, nested, oddly named.
    mount_tmpfs(&disk.join("a b\\c"));
    mount_tmpfs(&disk.join("a b\\c"));
    mount_tmpfs(&disk.join("a b\\c/nested"));
    mount_tmpfs(&f.empty_dir("memory").join("nested"));
    let mounted = f.volumes.mount(&pod, &mount_at("memory", None)).unwrap();
    f.volumes.release(&pod.uid).unwrap();
    drop(mounted);
    assert_eq!(mount_count(f.dir.path()), 0);
    assert!(!f.path("state/pods/u1").exists());
    assert!(f.path("outside/kept").exists());
}

#[test]
fn a_container_directory_stays_for_its_owner() {
    let f = Fixture::new();
    let pod = pod(vec![empty_dir("disk", EmptyDirMedium::Default, None)]);
    f.volumes.ensure(&pod, &no_payloads(), || None).unwrap();
    fs::create_dir(f.path("state/pods/u1/containers")).unwrap();
    f.volumes.release(&pod.uid).unwrap();
    assert!(f.path("state/pods/u1/containers").exists());
    assert_eq!(f.volumes.leftovers().unwrap(), []);
}

#[test]
fn a_limit_on_disk_is_measured() {
    let f = Fixture::new();
    let pod = pod(vec![empty_dir("disk", EmptyDirMedium::Default, Some("1Mi"))]);
    f.volumes.ensure(&pod, &no_payloads(), || None).unwrap();
    let disk = f.empty_dir("disk");
    fs::write(f.path("large"), vec![1; 4 << 20]).unwrap();
    symlink(f.path("large"), disk.join("link")).unwrap();
    fs::File::create(disk.join("sparse")).unwrap().set_len(1 << 30).unwrap();
    fs::create_dir(disk.join("sub")).unwrap();
    fs::write(disk.join("sub/file"), vec![1; 600 << 10]).unwrap();
    fs::hard_link(disk.join("sub/file"), disk.join("same")).unwrap();
    f.volumes.check_limits(&pod).unwrap();
    fs::write(disk.join("more"), vec![1; 500 << 10]).unwrap();
    let error = f.volumes.check_limits(&pod).unwrap_err().to_string();
    assert_eq!(error, "Usage of EmptyDir volume \"disk\" exceeds the limit \"1Mi\". ");
    f.volumes.release(&pod.uid).unwrap();
}

#[test]
fn what_lies_deep_is_measured_like_the_rest() {
    let f = Fixture::new();
    let pod = pod(vec![empty_dir("deep", EmptyDirMedium::Default, Some("8Mi"))]);
    f.volumes.ensure(&pod, &no_payloads(), || None).unwrap();
    // Deeper than a path is long and than a process has descriptors.
    let mut at = fs::File::open(f.empty_dir("deep")).unwrap();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    for level in 0..3000 {
        mkdirat(&at, "d", Mode::RWXU).unwrap();
        at = openat(&at, "d", flags, Mode::empty()).unwrap().into();
        if level % 1000 == 999 {
            let file = openat(&at, "file", OFlags::WRONLY | OFlags::CREATE, Mode::RWXU).unwrap();
            fs::File::from(file).write_all(&vec![1; 1 << 20]).unwrap();
        }
    }
    // Each directory has a block on some file systems, and none on others.
    let measured = |limit: &str| {
        let mut pod = pod.clone();
        pod.spec.volumes = vec![empty_dir("deep", EmptyDirMedium::Default, Some(limit))];
        f.volumes.check_limits(&pod)
    };
    measured("64Mi").unwrap();
    let error = measured("2900Ki").unwrap_err();
    assert!(matches!(error, VolumeError::OverLimit { .. }), "{error}");
    f.volumes.release(&pod.uid).unwrap();
}

#[test]
fn what_is_both_deep_and_many_costs_the_agent_no_memory_without_bound() {
    let f = Fixture::new();
    // On memory, where a directory takes no block: no limit ends the measurement before its time.
    mount_tmpfs(&f.path("state"));
    let pod = pod(vec![empty_dir("deep", EmptyDirMedium::Default, Some("1Gi"))]);
    f.volumes.ensure(&pod, &no_payloads(), || None).unwrap();
    let mut at = fs::File::open(f.empty_dir("deep")).unwrap();
    let name = "d".repeat(255);
    for _ in 0..255 {
        mkdirat(&at, &name, Mode::RWXU).unwrap();
        at = openat(&at, &name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap().into();
    }
    for number in 0..16_000 {
        mkdirat(&at, format!("{number}"), Mode::RWXU).unwrap();
    }
    f.volumes.check_limits(&pod).unwrap();
    for number in 16_000..17_000 {
        mkdirat(&at, format!("{number}"), Mode::RWXU).unwrap();
    }
    let error = f.volumes.check_limits(&pod).unwrap_err().to_string();
    assert!(error.contains("more than 16384 directories are nested 256 deep"), "{error}");
    f.volumes.release(&pod.uid).unwrap();
}
