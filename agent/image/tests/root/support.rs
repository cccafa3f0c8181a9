//! Stores, archives and mounts for the tests.

use std::fs;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use coracle_image::{Access, Image, ImageError, ImportOptions, Imported, Store};
use coracle_model::ContainerId;
use tar::{Builder, EntryType, Header};

/// A store in a directory of its own, with a canary beside it that nothing may touch.
pub(crate) struct Fixture {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: Store,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::within(&std::env::temp_dir())
    }

    pub(crate) fn within(parent: &Path) -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests need root");
        let dir = tempfile::tempdir_in(parent).unwrap();
        let store = Store::open(dir.path().join("images")).unwrap();
        fs::write(dir.path().join("canary"), "untouched").unwrap();
        Self { dir, store }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn import(&self, path: &Path, name: &str) -> Result<Vec<Imported>, ImageError> {
        let options = ImportOptions { name: Some(name.parse().unwrap()), ..Default::default() };
        self.store.import(path, &options)
    }

    /// Imports a layer's archive as a root file system.
    pub(crate) fn import_tar(&self, tar: &[u8], name: &str) -> Result<Vec<Imported>, ImageError> {
        let path = self.path("layer.tar");
        fs::write(&path, tar).unwrap();
        self.import(&path, name)
    }

    pub(crate) fn image(&self, name: &str) -> Image {
        self.store.resolve(&name.parse().unwrap()).unwrap().unwrap()
    }

    /// A container's root file system; its path goes through the descriptor.
    pub(crate) fn mount(&self, name: &str) -> Mounted {
        let container = ContainerId::random();
        let dir = self.path(&format!("containers/{container}"));
        let fd = self.store.snapshot(&self.image(name), container, &dir, Access::Writable).unwrap();
        Mounted { path: PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())), _fd: fd, container, dir }
    }

    /// Nothing is left of an attempt that failed, and nothing outside was touched.
    pub(crate) fn assert_sound(&self) {
        assert_eq!(self.store.verify().unwrap(), Vec::<String>::new());
        assert_eq!(names(&self.path("images/tmp")), Vec::<String>::new(), "temporary files were left");
        assert_eq!(fs::read_to_string(self.path("canary")).unwrap(), "untouched");
    }
}

pub(crate) struct Mounted {
    pub(crate) path: PathBuf,
    pub(crate) container: ContainerId,
    pub(crate) dir: PathBuf,
    _fd: OwnedFd,
}

impl Mounted {
    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path.join(path)).unwrap()
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.path.join(path).symlink_metadata().is_ok()
    }
}

pub(crate) fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// An archive under construction. Names are written as they are, however hostile.
pub(crate) struct Tar(Builder<Vec<u8>>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    pub(crate) fn header(kind: EntryType, name: &str, size: u64, mode: u32) -> Header {
        let mut header = Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_cksum();
        header
    }

    pub(crate) fn file(mut self, name: &str, content: &str) -> Self {
        let header = Self::header(EntryType::Regular, name, content.len() as u64, 0o644);
        self.0.append(&header, content.as_bytes()).unwrap();
        self
    }

    pub(crate) fn dir(self, name: &str, mode: u32) -> Self {
        let header = Self::header(EntryType::Directory, name, 0, mode);
        self.raw(&header, b"")
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.link(EntryType::Symlink, name, target)
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.link(EntryType::Link, name, target)
    }

    fn link(self, kind: EntryType, name: &str, target: &str) -> Self {
        let mut header = Self::header(kind, name, 0, 0o777);
        header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        self.raw(&header, b"")
    }

    pub(crate) fn device(self, kind: EntryType, name: &str, major: u32, minor: u32) -> Self {
        let mut header = Self::header(kind, name, 0, 0o640);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        header.set_cksum();
        self.raw(&header, b"")
    }

    pub(crate) fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    pub(crate) fn raw(mut self, header: &Header, data: &[u8]) -> Self {
        self.0.append(header, data).unwrap();
        self
    }

    pub(crate) fn build(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    flate2::read::GzEncoder::new(data, flate2::Compression::fast()).read_to_end(&mut out).unwrap();
    out
}
