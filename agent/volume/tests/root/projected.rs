//! Volumes of configuration: written, changed under readers, through restarts and removal.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use coracle_model::{Name, Pod};
use coracle_volume::{Payload, VolumeError, Volumes};
use rustix::fs::statvfs;

use crate::support::{
    Fixture, empty_dir, inside, mount_at, mount_count, no_payloads, payload, pod, projected, through,
};

const NAME: &str = "config";

fn name() -> Name {
    Name::label(NAME).unwrap()
}

/// A pod with one such volume, made.
fn made(f: &Fixture, payload: Payload) -> Pod {
    let pod = pod(vec![projected(NAME)]);
    f.volumes.ensure(&pod, &BTreeMap::from([(name(), payload)]), || None).unwrap();
    pod
}

fn root(f: &Fixture) -> PathBuf {
    f.path("state/pods/u1/volumes/kubernetes.io~projected/config")
}

/// What is in a directory, by name.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn files_links_and_modes_are_kubernetes() {
    let f = Fixture::new();
    let pod = made(&f, payload(&[("a", "1", 0o644), ("run.sh", "2", 0o755), ("d/e/f", "3", 0o400)]));
    let mounted = f.volumes.mount(&pod, &mount_at(NAME, None)).unwrap();
    let seen = inside(&mounted);
    let data = fs::read_link(seen.join("..data")).unwrap();
    assert!(data.to_str().unwrap().starts_with("..20"), "{data:?}");
    assert_eq!(names(&seen), [data.to_str().unwrap(), "..data", "a", "d", "run.sh"]);
    assert_eq!(fs::read_link(seen.join("d")).unwrap(), Path::new("..data/d"));
    for (path, content, bits) in [("a", "1", 0o644), ("run.sh", "2", 0o755), ("d/e/f", "3", 0o400)] {
        assert_eq!(fs::read_to_string(seen.join(path)).unwrap(), content);
        assert_eq!(mode(&seen.join("..data/").join(path)), bits, "{path}");
    }
    for directory in ["..data/.", "..data/d", "..data/d/e"] {
        assert_eq!(mode(&seen.join(directory)), 0o755, "{directory}");
    }
    assert!(mounted.is_directory);
    for path in ["a", "..data/new", "new"] {
        let refused = fs::write(seen.join(path), "x").unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{path}");
    }
    f.volumes.release(&pod.uid).unwrap();
}

#[test]
fn everything_lies_in_memory_within_limits() {
    let f = Fixture::new();
    let large = "x".repeat(3 << 20);
    let pod = made(&f, payload(&[("large", &large, 0o644)]));
    assert_eq!(rustix::fs::statfs(root(&f)).unwrap().f_type, 0x0102_1994, "a tmpfs");
    for round in 0..3 {
        let content = format!("{round}{large}");
        assert!(f.volumes.update(&pod, &name(), &payload(&[("large", &content, 0o644)])).unwrap());
        let stat = statvfs(root(&f)).unwrap();
        let size = stat.f_blocks * stat.f_frsize;
        assert!(size < 7 << 20, "room for old and new, not for more: {size}");
        assert!(stat.f_files < 1000, "{}", stat.f_files);
    }
    assert_eq!(fs::read_to_string(root(&f).join("large")).unwrap().len(), large.len() + 1);
    f.volumes.release(&pod.uid).unwrap();
}

#[test]
fn a_directory_in_memory_is_made_once_and_is_nobody_elses() {
    let f = Fixture::new();
    let path = f.path("state/configs");
    coracle_volume::directory_in_memory(&path).unwrap();
    fs::write(path.join("kept"), "").unwrap();
    let found = rustix::fs::statfs(&path).unwrap().f_type;
    assert_eq!((found, mode(&path) & 0o777), (0x0102_1994, 0o700), "a tmpfs");
    coracle_volume::directory_in_memory(&path).unwrap();
    assert!(path.join("kept").exists(), "what is there stays");
    assert!(coracle_volume::directory_in_memory(&f.path("absent/configs")).is_err());
}

#[test]
fn containers_see_an_update_and_what_is_gone() {
    let f = Fixture::new();
    let pod = made(&f, payload(&[("a", "1", 0o644), ("b", "1", 0o644), ("d/e", "1", 0o644)]));
    let mounted = f.volumes.mount(&pod, &mount_at(NAME, None)).unwrap();
    let sub_path = f.volumes.mount(&pod, &mount_at(NAME, Some("a"))).unwrap();
    assert!(!sub_path.is_directory);
    let before = fs::read_link(inside(&mounted).join("..data")).unwrap();

    let next = payload(&[("a", "2", 0o644), ("c", "2", 0o644), ("d/g", "2", 0o600)]);
    assert!(f.volumes.update(&pod, &name(), &next).unwrap());
    let data = fs::read_link(inside(&mounted).join("..data")).unwrap();
    assert_ne!(data, before);
    assert_eq!(names(&inside(&mounted)), [data.to_str().unwrap(), "..data", "a", "c", "d"]);
    assert_eq!(names(&inside(&mounted).join("d")), ["g"]);
    assert_eq!(fs::read_to_string(inside(&mounted).join("a")).unwrap(), "2");
    assert_eq!(fs::read_to_string(through(&sub_path.fd)).unwrap(), "1", "a subPath does not follow");

    assert!(!f.volumes.update(&pod, &name(), &next).unwrap(), "the same is not written again");
    assert_eq!(fs::read_link(inside(&mounted).join("..data")).unwrap(), data);
    for changed in [
        payload(&[("a", "3", 0o644), ("c", "2", 0o644), ("d/g", "2", 0o600)]),
        payload(&[("a", "3", 0o644), ("c", "2", 0o644), ("d/g", "2", 0o644)]),
        payload(&[("a", "3", 0o644), ("c", "2", 0o644)]),
        payload(&[("a", "3", 0o644), ("c", "2", 0o644), ("d", "2", 0o644)]),
        Payload::default(),
    ] {
        assert!(f.volumes.update(&pod, &name(), &changed).unwrap(), "{changed:?}");
    }
    assert_eq!(names(&inside(&mounted)).len(), 2, "an empty directory and its link");
    f.volumes.release(&pod.uid).unwrap();
}

#[test]
fn a_reader_never_sees_a_mix() {
    let f = Fixture::new();
    let content = |round: u32| {
        let text = round.to_string();
        payload(&[("first", &text, 0o644), ("z/last", &text, 0o644)])
    };
    let pod = made(&f, content(0));
    let (done, mounted) = (AtomicBool::new(false), f.volumes.mount(&pod, &mount_at(NAME, None)).unwrap());
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        // Threads share descriptors, and a descriptor reaches the mount from any mount namespace.
        scope.spawn(|| {
            use rustix::fs::{Mode, OFlags, openat, readlinkat};
            let read = |at: &std::os::fd::OwnedFd, path: &str| -> Option<String> {
                let file = openat(at, path, OFlags::RDONLY, Mode::empty()).ok()?;
                std::io::read_to_string(fs::File::from(file)).ok()
            };
            let mut whole = 0;
            while !done.load(Ordering::Relaxed) {
                let data = openat(&mounted.fd, "..data", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
                assert!(readlinkat(&mounted.fd, "first", Vec::new()).is_ok(), "a file is there all along");
                // One that was replaced meanwhile is being removed: what is gone is not mixed.
                let Ok(data) = data else { continue };
                if let (Some(first), Some(last)) = (read(&data, "first"), read(&data, "z/last")) {
                    assert_eq!(first, last);
                    whole += 1;
                    if whole == 50 {
                        tell.send(()).unwrap();
                    }
                }
            }
        });
        for round in 1..500 {
            f.volumes.update(&pod, &name(), &content(round)).unwrap();
        }
        told.recv_timeout(std::time::Duration::from_secs(30)).unwrap();
        done.store(true, Ordering::Relaxed);
    });
    f.volumes.release(&pod.uid).unwrap();
}

#[test]
fn a_restarted_agent_finds_the_volume_and_a_missing_payload_keeps_it() {
    let f = Fixture::new();
    let pod = made(&f, payload(&[("a", "1", 0o644)]));
    let data = fs::read_link(root(&f).join("..data")).unwrap();
    let restarted = Volumes::new(f.path("state"));
    restarted.ensure(&pod, &BTreeMap::from([(name(), payload(&[("a", "1", 0o644)]))]), || None).unwrap();
    restarted.ensure(&pod, &no_payloads(), || None).unwrap();
    assert_eq!(fs::read_link(root(&f).join("..data")).unwrap(), data, "readers notice nothing");
    assert_eq!(mount_count(f.dir.path()), 1);
    restarted.release(&pod.uid).unwrap();
    assert_eq!((mount_count(f.dir.path()), f.path("state/pods/u1").exists()), (0, false));

    let missing = restarted.ensure(&pod, &no_payloads(), || None).unwrap_err();
    assert!(matches!(missing, VolumeError::NotReady { .. }), "{missing}");
    assert!(!restarted.is_written(&pod, &pod.spec.volumes[0]));
    let late = restarted.update(&pod, &name(), &payload(&[("a", "1", 0o644)])).unwrap_err();
    assert!(matches!(late, VolumeError::NotReady { .. }), "{late}");
    assert!(!f.path("state/pods/u1").exists(), "nothing comes back after removal");
}

#[test]
fn what_an_interrupted_update_left_is_put_in_order() {
    let f = Fixture::new();
    let pod = made(&f, payload(&[("a", "1", 0o644), ("b", "1", 0o644)]));
    let root = root(&f);
    fs::create_dir_all(root.join("..2020_01_01_00_00_00.1/x/y")).unwrap();
    symlink("..2020_01_01_00_00_00.1", root.join("..data_tmp")).unwrap();
    symlink("..data/old", root.join("old")).unwrap();
    fs::remove_file(root.join("b")).unwrap();
    fs::remove_file(root.join("a")).unwrap();
    symlink("/etc/passwd", root.join("a")).unwrap();
    assert!(!f.volumes.update(&pod, &name(), &payload(&[("a", "1", 0o644), ("b", "1", 0o644)])).unwrap());
    let data = fs::read_link(root.join("..data")).unwrap();
    assert_eq!(names(&root), [data.to_str().unwrap(), "..data", "a", "b"]);
    assert_eq!(fs::read_to_string(root.join("a")).unwrap(), "1");
    f.volumes.release(&pod.uid).unwrap();
}

#[test]
fn a_subpath_that_is_missing_is_a_directory_until_there_is_a_file() {
    let f = Fixture::new();
    let pod = made(&f, payload(&[("a", "1", 0o644)]));
    let early = f.volumes.mount(&pod, &mount_at(NAME, Some("b/c"))).unwrap();
    assert!(early.is_directory);
    assert!(!f.volumes.update(&pod, &name(), &payload(&[("a", "1", 0o644)])).unwrap());
    assert!(root(&f).join("b/c").is_dir(), "it is in use");
    f.volumes.update(&pod, &name(), &payload(&[("a", "1", 0o644), ("b/c", "2", 0o644)])).unwrap();
    assert_eq!(fs::read_to_string(root(&f).join("b/c")).unwrap(), "2");
    drop(early);
    f.volumes.release(&pod.uid).unwrap();
}

#[test]
fn the_group_of_the_pod_owns_its_volumes() {
    let f = Fixture::new();
    let (disk, memory) = (coracle_model::EmptyDirMedium::Default, coracle_model::EmptyDirMedium::Memory);
    let host = f.path("host");
    fs::create_dir(&host).unwrap();
    let mut pod = pod(vec![
        projected(NAME),
        empty_dir("disk", disk, None),
        empty_dir("memory", memory, None),
        crate::support::host_path("host", &host, coracle_model::HostPathType::Directory),
    ]);
    pod.spec.security.fs_group = Some(4321);
    let files = payload(&[("a", "1", 0o600), ("d/run.sh", "1", 0o500)]);
    f.volumes.ensure(&pod, &BTreeMap::from([(name(), files.clone())]), || None).unwrap();
    let root = root(&f);
    for (path, bits) in [
        (root.clone(), 0o2777),
        (root.join("..data/."), 0o2755),
        (root.join("..data/d"), 0o2755),
        (root.join("..data/a"), 0o640),
        (root.join("..data/d/run.sh"), 0o540),
        (f.empty_dir("disk"), 0o2777),
        (f.empty_dir("memory"), 0o2777),
    ] {
        assert_eq!((mode(&path), fs::metadata(&path).unwrap().gid()), (bits, 4321), "{}", path.display());
    }
    assert_eq!((mode(&host), fs::metadata(&host).unwrap().gid()), (0o755, 0), "a hostPath is the host's");
    assert!(!f.volumes.update(&pod, &name(), &files).unwrap(), "modes with the group's bits are as wanted");
    let made = f.volumes.mount(&pod, &mount_at("disk", Some("new/sub"))).unwrap();
    assert_eq!(
        (mode(&through(&made.fd).join(".")), f.empty_dir("disk/new").metadata().unwrap().gid()),
        (0o2777, 4321)
    );

    // What containers make of an emptyDir is theirs.
    fs::set_permissions(f.empty_dir("disk"), Permissions::from_mode(0o700)).unwrap();
    f.volumes.ensure(&pod, &BTreeMap::from([(name(), files)]), || None).unwrap();
    assert_eq!(mode(&f.empty_dir("disk")), 0o700);
    drop(made);
    f.volumes.release(&pod.uid).unwrap();
}

#[test]
fn a_file_that_containers_wrote_is_read_beneath_the_volume() {
    let f = Fixture::new();
    let pod = pod(vec![empty_dir("disk", coracle_model::EmptyDirMedium::Default, None), projected(NAME)]);
    let volumes = &f.volumes;
    volumes.ensure(&pod, &BTreeMap::from([(name(), Payload::default())]), || None).unwrap();
    let disk = Name::label("disk").unwrap();
    let read = |path: &str| volumes.read_file(&pod, &disk, Path::new(path), 16);
    fs::create_dir(f.empty_dir("disk/sub")).unwrap();
    fs::write(f.empty_dir("disk/sub/env"), "A='b'").unwrap();
    fs::write(f.empty_dir("disk/large"), "x".repeat(17)).unwrap();
    fs::write(f.path("outside"), "secret").unwrap();
    symlink(f.path("outside"), f.empty_dir("disk/absolute")).unwrap();
    symlink("../../../../../../outside", f.empty_dir("disk/relative")).unwrap();
    symlink("sub/env", f.empty_dir("disk/within")).unwrap();
    let fifo = f.empty_dir("disk/fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert_eq!(read("sub/env").unwrap().unwrap(), b"A='b'");
    assert_eq!(read("within").unwrap().unwrap(), b"A='b'");
    for absent in ["none", "none/env", "sub/env/x"] {
        assert_eq!(read(absent).unwrap(), None, "{absent}");
    }
    for (path, problem) in [
        ("large", "larger than 16 bytes"),
        ("absolute", "leads out"),
        ("relative", "leads out"),
        ("fifo", "not a regular file"),
        ("sub", "not a regular file"),
    ] {
        let error = read(path).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
    let error = volumes.read_file(&pod, &name(), Path::new("a"), 16).unwrap_err().to_string();
    assert!(error.contains("no emptyDir"), "{error}");
    volumes.release(&pod.uid).unwrap();
}
