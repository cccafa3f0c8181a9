//! subPath, also while a container changes the volume.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use coracle_model::{EmptyDirMedium, HostPathType};
use coracle_volume::VolumeError;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::support::{Fixture, empty_dir, host_path, inside, mount_at, no_payloads, pod};

#[test]
fn a_missing_path_becomes_a_directory_with_the_volumes_mode() {
    let f = Fixture::new();
    let pod = pod(vec![empty_dir("v", EmptyDirMedium::Default, None)]);
    f.volumes.ensure(&pod, &no_payloads(), || None).unwrap();
    let volume = f.empty_dir("v");
    let mounted = f.volumes.mount(&pod, &mount_at("v", Some("a/b/c"))).unwrap();
    assert!(mounted.is_directory);
    for made in ["a", "a/b", "a/b/c"] {
        assert_eq!(fs::metadata(volume.join(made)).unwrap().permissions().mode() & 0o7777, 0o777, "{made}");
    }
    fs::write(inside(&mounted).join("x"), "1").unwrap();
    assert_eq!(fs::read_to_string(volume.join("a/b/c/x")).unwrap(), "1");
    let file = f.volumes.mount(&pod, &mount_at("v", Some("a/b/c/x"))).unwrap();
    assert!(!file.is_directory);
    assert_eq!(fs::read_to_string(inside(&file)).unwrap(), "1");
}

#[test]
fn links_stay_in_the_volume() {
    let f = Fixture::new();
    let volume = f.path("volume");
    fs::create_dir_all(volume.join("real/dir")).unwrap();
    fs::create_dir(f.path("outside")).unwrap();
    fs::write(f.path("outside/secret"), "s").unwrap();
    symlink("real/dir", volume.join("inside")).unwrap();
    symlink("../inside", volume.join("real/up")).unwrap();
    for (name, target) in [
        ("absolute", "/"),
        ("up", "../outside"),
        ("file", "../outside/secret"),
        ("proc", "/proc/self/root"),
        ("self", "self"),
    ] {
        symlink(target, volume.join(name)).unwrap();
    }
    symlink("nowhere", volume.join("dangling")).unwrap();
    symlink(volume.join("real/dir"), volume.join("whole")).unwrap();
    symlink(&volume, volume.join("root")).unwrap();
    fs::write(volume.join("plain"), "").unwrap();
    let pod = pod(vec![host_path("v", &volume, HostPathType::Directory)]);
    let mount = |sub: &str| f.volumes.mount(&pod, &mount_at("v", Some(sub)));
    let ino = |path: std::path::PathBuf| fs::metadata(path).unwrap().ino();
    for good in ["inside", "real/up", "./real/dir", "whole", "root/inside", "root/whole"] {
        assert_eq!(ino(inside(&mount(good).unwrap())), ino(volume.join("real/dir")), "{good}");
    }
    for bad in [
        "absolute",
        "up",
        "file",
        "proc",
        "up/made",
        "absolute/tmp",
        "..",
        "../outside",
        "real/../../outside",
        "/",
    ] {
        let error = mount(bad).unwrap_err();
        assert!(matches!(error, VolumeError::SubPathEscapes { .. }), "{bad}: {error}");
    }
    for bad in ["self", "dangling", "dangling/x", "plain/x"] {
        let error = mount(bad).unwrap_err();
        assert!(matches!(error, VolumeError::SubPath { .. }), "{bad}: {error}");
    }
    assert_eq!(ino(inside(&mount("root").unwrap())), ino(volume.clone()));
    assert_eq!(fs::read_dir(f.path("outside")).unwrap().count(), 1);
    assert!(!volume.join("nowhere").exists());
    // What containers write leads from their root, not the host's.
    let own = self::pod(vec![empty_dir("own", EmptyDirMedium::Default, None)]);
    f.volumes.ensure(&own, &no_payloads(), || None).unwrap();
    fs::create_dir(f.empty_dir("own").join("real")).unwrap();
    symlink(f.empty_dir("own").join("real"), f.empty_dir("own").join("whole")).unwrap();
    let error = f.volumes.mount(&own, &mount_at("own", Some("whole"))).unwrap_err();
    assert!(matches!(error, VolumeError::SubPathEscapes { .. }), "{error}");
}

/// A container that shares the volume swaps a directory with a link out of it, as fast as it can.
#[test]
fn a_swap_race_never_leads_out() {
    let f = Fixture::new();
    let volume = f.path("volume");
    let outside = f.path("outside");
    fs::create_dir_all(volume.join("dir/sub")).unwrap();
    fs::create_dir_all(outside.join("sub")).unwrap();
    symlink(&outside, volume.join("link")).unwrap();
    symlink("../outside", volume.join("relative")).unwrap();
    let forbidden =
        [&outside, &outside.join("sub"), &f.path("")].map(|path| fs::metadata(path).unwrap().ino());
    let pod = pod(vec![host_path("v", &volume, HostPathType::Directory)]);

    let done = AtomicBool::new(false);
    let (mut mounted, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            let mut swaps = 0u64;
            while !done.load(Ordering::Relaxed) {
                for link in ["link", "relative"] {
                    let exchange = || {
                        renameat_with(CWD, volume.join("dir"), CWD, volume.join(link), RenameFlags::EXCHANGE)
                            .unwrap();
                    };
                    exchange();
                    exchange();
                    swaps += 2;
                }
            }
            swaps
        });
        // On a busy machine the swapper may stand still on one side for a while.
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut round = 0;
        while round < 300 || ((mounted == 0 || refused == 0) && Instant::now() < deadline) {
            round += 1;
            // One path that is there, and one that has to be made.
            for sub in ["dir/sub", &format!("dir/made-{round}/deep")] {
                match f.volumes.mount(&pod, &mount_at("v", Some(sub))) {
                    Ok(prepared) => {
                        mounted += 1;
                        assert!(
                            !forbidden.contains(&fs::metadata(inside(&prepared)).unwrap().ino()),
                            "{sub}"
                        );
                    }
                    Err(VolumeError::SubPathEscapes { .. } | VolumeError::SubPath { .. }) => refused += 1,
                    Err(error) => panic!("{sub}: {error}"),
                }
            }
        }
        done.store(true, Ordering::Relaxed);
        let swaps = swapper.join().unwrap();
        println!("{swaps} swaps: {mounted} mounted, {refused} refused");
    });
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "something was made outside");
    assert_eq!(fs::read_dir(outside.join("sub")).unwrap().count(), 0, "something was made outside");
    assert!(mounted > 0 && refused > 0, "the race was not run: {mounted} mounted, {refused} refused");
}
