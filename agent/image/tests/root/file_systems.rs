//! The store on each file system it may lie on, and where it may not.

use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use coracle_image::{CollectPolicy, ImageError, Limits, Store};

use crate::export::odd;
use crate::incoming::Remote;
use crate::layers::{attributes_are_kept, entries_replace, sparse_files_are_kept, whiteouts_hide};
use crate::support::{Fixture, Tar, gzip, names};

const MIB: u64 = 1 << 20;

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Runs a test on a file system of its own, in a mount namespace of its own: it goes with the thread, however that ends.
fn on(kind: &str, mebibytes: u64, test: impl FnOnce(&Path) + Send) {
    let dir = tempfile::tempdir().unwrap();
    let (image, at) = (dir.path().join("disk"), dir.path().join("mounted"));
    fs::create_dir(&at).unwrap();
    fs::File::create(&image).unwrap().set_len(mebibytes << 20).unwrap();
    let make = format!("mkfs.{kind}");
    let quiet = if kind == "ext4" { "-F" } else { "-f" };
    if let Err(error) = run(&make, &["-q", quiet, image.to_str().unwrap()]) {
        println!("skipped: {kind} cannot be made here: {error}");
        return;
    }
    std::thread::scope(|scope| {
        let done = scope.spawn(|| {
            coracle_linux::unshare_mount_namespace().unwrap();
            run("mount", &["--make-rprivate", "/"]).unwrap();
            let (image, mounted) = (image.to_str().unwrap(), at.to_str().unwrap());
            if let Err(error) = run("mount", &["-t", kind, "-o", "loop", image, mounted]) {
                println!("skipped: {kind} cannot be mounted here: {error}");
                return;
            }
            test(&at);
            // What is flushed then is not flushed by whoever ends the namespace.
            run("umount", &["-l", mounted]).unwrap();
        });
        done.join().unwrap();
    });
}

/// Whatever a layer may have is there for a container, and comes out again.
fn everything_is_kept(at: &Path) {
    attributes_are_kept(&Fixture::within(at));
    sparse_files_are_kept(&Fixture::within(at));
    whiteouts_hide(&Fixture::within(at));
    entries_replace(&Fixture::within(at));
    let f = Fixture::within(at);
    let layers = [odd(), Tar::new().file("d/.wh.first", "").file("lib/.wh..wh..opq", "").build()];
    Remote::new(&layers).pull(&f.store, "odd");
    assert_eq!(f.store.verify_whole().unwrap(), Vec::<String>::new());
    assert_eq!(names(&f.mount("odd").path.join("d")), Vec::<String>::new());
    f.assert_sound();
}

#[test]
fn layers_on_ext4() {
    on("ext4", 128, everything_is_kept);
}

#[test]
fn layers_on_xfs() {
    on("xfs", 512, everything_is_kept);
}

#[test]
fn layers_on_btrfs() {
    on("btrfs", 256, everything_is_kept);
}

#[test]
fn layers_on_tmpfs() {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() {
        everything_is_kept(shm);
    }
}

#[test]
fn a_store_on_overlayfs_says_where_it_should_be() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let done = scope.spawn(|| {
            coracle_linux::unshare_mount_namespace().unwrap();
            run("mount", &["--make-rprivate", "/"]).unwrap();
            let path = |name: &str| {
                let path = dir.path().join(name);
                fs::create_dir(&path).unwrap();
                path.into_os_string().into_string().unwrap()
            };
            let options = format!("lowerdir={},upperdir={},workdir={}", path("l"), path("u"), path("w"));
            let merged = path("merged");
            run("mount", &["-t", "overlay", "-o", &options, "overlay", &merged]).unwrap();
            let error = Store::open(PathBuf::from(merged).join("images")).unwrap_err();
            assert!(matches!(error, ImageError::StoreOnOverlay { .. }), "{error}");
            assert!(error.to_string().contains("put --root-dir on ext4"), "{error}");
        });
        done.join().unwrap();
    });
}

/// Bytes that do not compress.
fn noise(mebibytes: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    fs::File::open("/dev/urandom").unwrap().take(mebibytes << 20).read_to_end(&mut bytes).unwrap();
    bytes
}

/// Does something when it is read, and has nothing.
struct Once<F>(Option<F>);

impl<F: FnOnce()> Read for Once<F> {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        if let Some(act) = self.0.take() {
            act();
        }
        Ok(0)
    }
}

fn free(at: &Path) -> u64 {
    let stat = rustix::fs::statvfs(at).unwrap();
    stat.f_bfree * stat.f_frsize
}

/// The disk is full in the middle of a layer: once by our own bound, once by the kernel's word.
#[test]
fn a_full_disk_takes_nothing_and_the_next_attempt_completes() {
    for keep_free in [None, Some(0)] {
        on("ext4", 96, |at| {
            let f = Fixture::within(at);
            let layer = |name: &str, mebibytes| {
                let header = Tar::header(tar::EntryType::Regular, name, mebibytes * MIB, 0o644);
                Tar::new().raw(&header, &noise(mebibytes)).build()
            };
            let remote = Remote::new(&[layer("base", 10), layer("big", 30)]);
            let before = free(at);
            let filler = f.path("filler");
            let incoming = f
                .store
                .incoming(&remote.manifest, &remote.config, Limits { keep_free, ..Limits::default() })
                .unwrap();
            remote.unpack(&incoming, 0).unwrap();
            let fill = || {
                let mut file = fs::File::create(&filler).unwrap();
                while std::io::Write::write_all(&mut file, &noise(1)).is_ok() {}
            };
            let error = match keep_free {
                None => {
                    fill();
                    remote.unpack(&incoming, 1).unwrap_err()
                }
                // Somebody else fills it once the layer has begun.
                Some(_) => {
                    let (first, rest) = remote.blobs[1].split_at(8 << 20);
                    let source = first.chain(Once(Some(fill))).chain(rest);
                    incoming.unpack(1, source, remote.blob(1)).unwrap_err()
                }
            };
            match keep_free {
                None => assert!(matches!(error, ImageError::DiskFull { .. }), "{error}"),
                Some(_) => assert!(error.to_string().contains("No space left on device"), "{error}"),
            }
            drop(incoming);
            assert_eq!(f.store.verify_whole().unwrap(), Vec::<String>::new());
            fs::remove_file(&filler).unwrap();
            rustix::fs::sync();
            assert!(free(at).abs_diff(before - 10 * MIB) < MIB, "more than the finished layer stays on disk");
            let incoming = remote.begin(&f.store);
            assert!(incoming.layers()[0].have, "what was finished is taken up");
            remote.unpack(&incoming, 1).unwrap();
            incoming.commit(&["app".parse().unwrap()], None).unwrap();
            drop(incoming);
            f.assert_sound();
            let all = CollectPolicy { wanted: u64::MAX, ..Default::default() };
            let freed = f.store.collect(&all, |_| None).unwrap().freed;
            assert!((40 * MIB..41 * MIB).contains(&freed), "{freed}");
            rustix::fs::sync();
            assert!(free(at).abs_diff(before) < MIB, "{} bytes stay", before - free(at));
        });
    }
}

#[test]
fn an_archive_that_comes_as_a_stream_does_not_fill_the_disk() {
    on("ext4", 64, |at| {
        let f = Fixture::within(at);
        let before = free(at);
        let endless = std::io::repeat(b'x').take(1 << 40);
        let error = f.store.keep_archive("standard input", endless).unwrap_err();
        assert!(matches!(error, ImageError::DiskFull { reserve: 1.., .. }), "{error}");
        assert!(error.to_string().starts_with("standard input: unpacking needs"), "{error}");
        rustix::fs::sync();
        assert!(free(at).abs_diff(before) < MIB, "{} bytes stay", before - free(at));
        let tar = Tar::new().file("f", "kept").build();
        let kept = f.store.keep_archive("standard input", &gzip(&tar)[..]).unwrap();
        f.import(&PathBuf::from(format!("/proc/self/fd/{}", kept.as_raw_fd())), "app").unwrap();
        assert_eq!(f.mount("app").read("f"), "kept");
    });
}

/// Whether files of `at` can be brought to the disk, asked as another program would.
fn flush(at: &Path) -> rustix::io::Result<()> {
    rustix::fs::syncfs(fs::File::open(at).unwrap())
}

/// A disk that takes no more in the middle of what is written back, as one that breaks does or a thin one: writing has
/// succeeded before, and the kernel keeps for good what only seemed to be written.
#[test]
fn what_cannot_be_flushed_is_no_image_whoever_was_told_of_it_first() {
    let dir = tempfile::tempdir().unwrap();
    let (thin, at) = (dir.path().join("thin"), dir.path().join("mounted"));
    fs::create_dir(&thin).unwrap();
    fs::create_dir(&at).unwrap();
    std::thread::scope(|scope| {
        let done = scope.spawn(|| {
            coracle_linux::unshare_mount_namespace().unwrap();
            run("mount", &["--make-rprivate", "/"]).unwrap();
            let (under, mounted) = (thin.to_str().unwrap(), at.to_str().unwrap());
            run("mount", &["-t", "tmpfs", "-o", "size=44m", "tmpfs", under]).unwrap();
            let disk = thin.join("disk");
            // What the file system keeps of itself lies in its first part, for which there is room from the beginning.
            let file = fs::File::create(&disk).unwrap();
            file.set_len(192 << 20).unwrap();
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 40 << 20).unwrap();
            let disk = disk.to_str().unwrap();
            let options = "nodiscard,lazy_itable_init=0";
            run(
                "mkfs.ext4",
                &["-q", "-F", "-O", "^has_journal", "-g", "8192", "-m", "0", "-E", options, disk],
            )
            .unwrap();
            let mount = || run("mount", &["-t", "ext4", "-o", "loop", disk, mounted]);
            mount().unwrap();

            let f = Fixture::within(&at);
            let header = |name: &str| Tar::header(tar::EntryType::Regular, name, 4 * MIB, 0o644);
            let layer = |number: usize| {
                let files = (0..6).map(|file| header(&format!("{number}-{file}")));
                files.fold(Tar::new(), |tar, header| tar.raw(&header, &noise(4))).build()
            };
            let remote = Remote::new(&[layer(0), layer(1)]);
            let incoming = remote.begin(&f.store);
            (0..2).for_each(|index| remote.unpack(&incoming, index).unwrap());
            flush(&at).unwrap_err();
            run("mount", &["-o", "remount,size=400m", under]).unwrap();
            flush(&at).expect("it is told once");
            let error = incoming.commit(&["app".parse().unwrap()], None).unwrap_err().to_string();
            assert!(error.starts_with("flush "), "{error}");
            // It is told once here, too.
            incoming.commit(&["app".parse().unwrap()], None).unwrap_err();
            drop(incoming);
            assert!(f.store.list().unwrap().is_empty());
            f.assert_sound();

            remote.pull(&f.store, "app");
            f.assert_sound();
            // What memory has of it is not asked.
            let kept = f.dir.keep();
            run("umount", &[mounted]).unwrap();
            mount().unwrap();
            let store = Store::open(kept.join("images")).unwrap();
            assert_eq!(store.verify_whole().unwrap(), Vec::<String>::new());
            assert_eq!(store.list().unwrap().len(), 1);
            run("umount", &["-l", mounted]).unwrap();
            run("umount", &["-l", under]).unwrap();
        });
        done.join().unwrap();
    });
}
