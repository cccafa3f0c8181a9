//! Pods with volumes, in a mount namespace of the test's own.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use coracle_model::{
    Container, EmptyDirMedium, HostPathType, MountPropagation, Name, Pod, PodKey, PodSpec, ProjectedVolume,
    Quantity, Volume, VolumeMount, VolumeSource,
};
use coracle_volume::{Payload, PayloadFile, PreparedMount, Volumes};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

pub(crate) struct Fixture {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) volumes: Volumes,
}

impl Fixture {
    /// The calling thread moves into a mount namespace of its own, where nothing propagates.
    pub(crate) fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests need root");
        coracle_linux::unshare_mount_namespace().unwrap();
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let volumes = Volumes::new(dir.path().join("state"));
        fs::create_dir(dir.path().join("state")).unwrap();
        Self { dir, volumes }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where the pod's emptyDir lies.
    pub(crate) fn empty_dir(&self, name: &str) -> PathBuf {
        self.path(&format!("state/pods/u1/volumes/kubernetes.io~empty-dir/{name}"))
    }
}

pub(crate) fn host_path(name: &str, path: &Path, kind: HostPathType) -> Volume {
    Volume {
        name: Name::label(name).unwrap(),
        source: VolumeSource::HostPath { path: path.to_owned(), kind },
    }
}

pub(crate) fn empty_dir(name: &str, medium: EmptyDirMedium, limit: Option<&str>) -> Volume {
    let size_limit = limit.map(|limit| limit.parse::<Quantity>().unwrap());
    Volume { name: Name::label(name).unwrap(), source: VolumeSource::EmptyDir { medium, size_limit } }
}

pub(crate) fn projected(name: &str) -> Volume {
    let source = ProjectedVolume { default_mode: 0o644, sources: Vec::new() };
    Volume { name: Name::label(name).unwrap(), source: VolumeSource::Projected(source) }
}

/// Files by path, each with content and mode.
pub(crate) fn payload(files: &[(&str, &str, u32)]) -> Payload {
    let mut payload = Payload::default();
    for (path, content, mode) in files {
        payload.insert(path, PayloadFile { content: content.as_bytes().into(), mode: *mode }).unwrap();
    }
    payload
}

pub(crate) fn no_payloads() -> BTreeMap<Name, Payload> {
    BTreeMap::new()
}

pub(crate) fn mount_at(name: &str, sub_path: Option<&str>) -> VolumeMount {
    VolumeMount {
        name: Name::label(name).unwrap(),
        mount_path: "/data".into(),
        sub_path: sub_path.map(PathBuf::from),
        read_only: false,
        propagation: MountPropagation::None,
    }
}

pub(crate) fn pod(volumes: Vec<Volume>) -> Pod {
    let container = Container::new(Name::label("main").unwrap(), "x");
    Pod {
        uid: "u1".parse().unwrap(),
        key: PodKey { namespace: Name::label("default").unwrap(), name: Name::label("web").unwrap() },
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        spec: PodSpec { volumes, ..PodSpec::new(vec![container]) },
        object: String::new(),
    }
}

/// The path of what is mounted, through its descriptor.
pub(crate) fn inside(prepared: &PreparedMount) -> PathBuf {
    through(&prepared.fd)
}

pub(crate) fn through(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/thread-self/fd/{}", fd.as_raw_fd()))
}

pub(crate) fn mount_tmpfs(path: &Path) {
    fs::create_dir_all(path).unwrap();
    mount("tmpfs", path, "tmpfs", MountFlags::empty(), None).unwrap();
}

pub(crate) fn mount_count(below: &Path) -> usize {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    table.lines().filter(|line| line.contains(below.to_str().unwrap())).count()
}
