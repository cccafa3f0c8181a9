//! The hook on roots of every kind, hostile ones among them.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use super::*;

struct Container {
    directory: tempfile::TempDir,
}

impl Container {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(directory.path().join("bundle/rootfs/etc")).expect("directories");
        fs::create_dir_all(directory.path().join("host/etc")).expect("directories");
        fs::write(directory.path().join("host/etc/ld.so.cache"), "the host's").expect("a file");
        let it = Self { directory };
        fs::write(it.path("bundle/config.json"), r#"{"ociVersion": "1.2.0", "root": {"path": "rootfs"}}"#)
            .expect("a file");
        it
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn run(&self) -> Result<(), HookError> {
        let state = format!(r#"{{"ociVersion": "1.2.0", "id": "x", "bundle": {:?}}}"#, self.path("bundle"));
        ldconfig(state.as_bytes(), &["libcuda.so.1=/usr/lib64/libcuda.so.1".to_owned()])
    }

    fn cache(&self) -> Cache {
        Cache::parse(&fs::read(self.path("bundle/rootfs/etc/ld.so.cache")).expect("a cache"))
            .expect("a cache")
    }

    fn host_is_untouched(&self) {
        assert_eq!(fs::read_to_string(self.path("host/etc/ld.so.cache")).expect("the host's"), "the host's");
        assert_eq!(fs::read_dir(self.path("host/etc")).expect("the host's").count(), 1);
    }
}

#[test]
fn a_library_is_added_to_those_of_the_image() {
    let container = Container::new();
    let mut image = Cache::default();
    image.put("libc.so.6", "/lib/libc.so.6");
    image.put("libcuda.so.1", "/usr/local/cuda/compat/libcuda.so.1");
    fs::write(container.path("bundle/rootfs/etc/ld.so.cache"), image.to_bytes().expect("a file"))
        .expect("a file");
    fs::create_dir(container.path("bundle/rootfs/etc/ld.so.conf.d")).expect("a directory");
    container.run().expect("done");
    let cache = container.cache();
    assert_eq!(cache.find("libcuda.so.1").collect::<Vec<_>>(), [b"/usr/lib64/libcuda.so.1"]);
    assert_eq!(cache.find("libc.so.6").collect::<Vec<_>>(), [b"/lib/libc.so.6"]);
    let metadata = container.path("bundle/rootfs/etc/ld.so.cache").metadata().expect("a file");
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o644);
    let directories =
        fs::read_to_string(container.path("bundle/rootfs/etc/ld.so.conf.d/00-coracle-nvidia.conf"));
    assert_eq!(directories.expect("a file"), "/usr/lib64\n");
    container.run().expect("again");
    assert_eq!(
        fs::read_dir(container.path("bundle/rootfs/etc")).expect("a directory").count(),
        2,
        "nothing is left over"
    );
}

#[test]
fn an_image_without_a_cache_gets_one() {
    let container = Container::new();
    container.run().expect("done");
    assert_eq!(container.cache().find("libcuda.so.1").count(), 1);
}

#[test]
fn links_lead_nowhere_out_of_the_root() {
    let container = Container::new();
    let etc = container.path("bundle/rootfs/etc");
    fs::remove_dir(&etc).expect("an empty directory");
    // To the host's directory by its path, and by climbing.
    for target in [container.path("host/etc"), PathBuf::from("../../../host/etc")] {
        symlink(&target, &etc).expect("a link");
        container.run().expect("nothing to do");
        container.host_is_untouched();
        fs::remove_file(&etc).expect("a link");
    }
    fs::create_dir(&etc).expect("a directory");
    let cache = etc.join("ld.so.cache");
    symlink(container.path("host/etc/ld.so.cache"), &cache).expect("a link");
    container.run().expect("nothing to do");
    container.host_is_untouched();
    fs::remove_file(&cache).expect("a link");
    symlink(container.path("host/etc"), etc.join("ld.so.conf.d")).expect("a link");
    container.run().expect("done");
    container.host_is_untouched();
}

#[test]
fn a_hard_link_is_not_written_through() {
    let container = Container::new();
    let (own, shared) = (container.path("bundle/rootfs/etc/ld.so.cache"), container.path("host/shared"));
    let bytes = Cache::default().to_bytes().expect("a file");
    fs::write(&shared, &bytes).expect("a file");
    fs::hard_link(&shared, &own).expect("a link");
    container.run().expect("done");
    assert_eq!(fs::read(&shared).expect("a file"), bytes);
    assert_ne!(own.metadata().expect("a file").ino(), shared.metadata().expect("a file").ino());
}

#[test]
fn what_is_no_file_is_left_alone() {
    let container = Container::new();
    let cache = container.path("bundle/rootfs/etc/ld.so.cache");
    rustix::fs::mknodat(rustix::fs::CWD, &cache, FileType::Fifo, Mode::from_raw_mode(0o666), 0)
        .expect("a pipe");
    container.run().expect("nothing to do, and nothing to wait for");
    fs::remove_file(&cache).expect("a pipe");
    fs::create_dir(&cache).expect("a directory");
    container.run().expect("nothing to do");
}

#[test]
fn what_is_no_cache_is_left_as_it_is() {
    let container = Container::new();
    let cache = container.path("bundle/rootfs/etc/ld.so.cache");
    for bytes in [&b"garbage"[..], b"glibc-ld.so.cache1.1", &[0xff; 100]] {
        fs::write(&cache, bytes).expect("a file");
        container.run().expect("a container that starts");
        assert_eq!(fs::read(&cache).expect("a file"), bytes);
    }
    File::create(&cache).and_then(|file| file.set_len(1 << 40)).expect("a sparse file");
    container.run().expect("a container that starts");
    assert_eq!(fs::metadata(&cache).expect("a file").len(), 1 << 40);
}

#[test]
fn an_empty_cache_is_filled() {
    let container = Container::new();
    fs::write(container.path("bundle/rootfs/etc/ld.so.cache"), "").expect("a file");
    container.run().expect("done");
    assert_eq!(container.cache().find("libcuda.so.1").count(), 1);
}

#[test]
fn a_volume_in_the_place_of_etc_is_not_written() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: only root may mount");
    }
    let container = Container::new();
    let (from, to) = (container.path("host/etc"), container.path("bundle/rootfs/etc"));
    // In a mount namespace of this thread's own, so that nothing is left of it.
    std::thread::spawn(move || {
        coracle_linux::unshare_mount_namespace().expect("a mount namespace");
        let private =
            rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).expect("a mount of its own");
        rustix::mount::mount_bind(&from, &to).expect("a mount");
        // A bind mount of the same file system: the kernel knows mounts apart, not devices.
        container.run().expect("nothing to do");
        container.host_is_untouched();
    })
    .join()
    .expect("done");
}

#[test]
fn arguments_and_states_are_checked() {
    let container = Container::new();
    for text in
        ["", "libcuda.so.1", "=/usr/lib/x", "a/b=/usr/lib/x", "a=usr/lib", "a=/usr/../lib", "a=/usr/\nlib"]
    {
        let failed = ldconfig(&b""[..], &[text.to_owned()]);
        assert!(matches!(failed, Err(HookError::Library(_))), "{text:?}");
    }
    for state in ["", "{}", r#"{"bundle": 1}"#] {
        assert!(matches!(ldconfig(state.as_bytes(), &[]), Err(HookError::State(_))), "{state:?}");
    }
    let state = format!(r#"{{"bundle": {:?}}}"#, container.path("bundle"));
    for config in ["", "{}", r#"{"root": {"path": "/"}}"#] {
        fs::write(container.path("bundle/config.json"), config).expect("a file");
        assert!(matches!(ldconfig(state.as_bytes(), &[]), Err(HookError::Bundle { .. })), "{config:?}");
    }
}
