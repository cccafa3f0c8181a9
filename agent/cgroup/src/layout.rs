//! Where the node's cgroups lie, as the kubelet names them: its `cgroupfs` driver makes directories, its `systemd`
//! driver units (`pkg/kubelet/cm/cgroup_manager_linux.go`, `CgroupName.ToSystemd`).

use std::path::{Component, Path, PathBuf};

use coracle_model::{PodUid, QosClass};
use coracle_systemd::UnitName;

use crate::Error;

/// Who makes the cgroups of the node and its pods: `cgroupDriver`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Driver {
    /// The agent, as directories.
    #[default]
    Cgroupfs,
    /// systemd, as slices and scopes.
    Systemd,
}

/// Where the cgroups of the node are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// `<parent>/kubepods[/<class>]/pod<uid>`: the path of `kubepods`, relative to the mounts.
    Directories(PathBuf),
    /// `<parent>-kubepods[-<class>].slice`, each in its parent, and `<slice>-pod<uid>.scope` in them.
    Slices(Slice),
}

/// The path of a slice, by the parts of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slice(Vec<String>);

const KUBEPODS: &str = "kubepods";

// === impl Layout ===

impl Layout {
    /// Below a parent, a path from the root of the hierarchies.
    pub(crate) fn new(driver: Driver, parent: &Path) -> Result<Self, Error> {
        Ok(match driver {
            Driver::Cgroupfs => {
                // A leading slash would make `join` forget the mount it is joined to.
                let mut path: PathBuf = names(parent)?.into_iter().collect();
                path.push(KUBEPODS);
                Self::Directories(path)
            }
            Driver::Systemd => Self::Slices(Slice::below(parent)?),
        })
    }

    /// The path of all pods, relative to the mounts.
    pub(crate) fn path(&self) -> PathBuf {
        match self {
            Self::Directories(path) => path.clone(),
            Self::Slices(slice) => slice.path(),
        }
    }

    /// The path of a class.
    pub(crate) fn class_path(&self, class: QosClass) -> PathBuf {
        match (self, class_name(class)) {
            (Self::Directories(path), Some(name)) => path.join(name),
            (Self::Slices(slice), Some(name)) => slice.child(name).path(),
            (_, None) => self.path(),
        }
    }

    /// The path of a pod.
    pub(crate) fn pod_path(&self, class: QosClass, uid: &PodUid) -> PathBuf {
        match self {
            Self::Directories(_) => self.class_path(class).join(format!("pod{uid}")),
            Self::Slices(slice) => {
                self.class_path(class).join(format!("{}pod{uid}.scope", slice.of(class).scope_prefix()))
            }
        }
    }

    /// Whose a directory in that of a class is, if it is a pod's.
    pub(crate) fn pod_uid(&self, class: QosClass, name: &str) -> Option<PodUid> {
        let uid = match self {
            Self::Directories(_) => name.strip_prefix("pod")?,
            Self::Slices(slice) => {
                let name = name.strip_prefix(slice.of(class).scope_prefix().as_str())?;
                name.strip_prefix("pod")?.strip_suffix(".scope")?
            }
        };
        uid.parse().ok()
    }
}

/// The directory of a class; guaranteed pods have none.
fn class_name(class: QosClass) -> Option<&'static str> {
    match class {
        QosClass::Guaranteed => None,
        QosClass::Burstable => Some("burstable"),
        QosClass::BestEffort => Some("besteffort"),
    }
}

/// The names of a path.
fn names(path: &Path) -> Result<Vec<String>, Error> {
    let refused = || Error::Parent(path.to_owned());
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_str().ok_or_else(refused)?.to_owned()),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(refused()),
        }
    }
    Ok(names)
}

// === impl Slice ===

impl Slice {
    /// `kubepods` below a parent. A name that is a slice's is that slice (`/a.slice/a-b.slice`), any other is made into
    /// one, as by the kubelet: `/a/b-c` is `a-b_c.slice`.
    fn below(parent: &Path) -> Result<Self, Error> {
        let mut parts: Vec<String> = Vec::new();
        for name in names(parent)? {
            match name.strip_suffix(".slice") {
                Some(prefix) => {
                    let named: Vec<String> = prefix.split('-').map(str::to_owned).collect();
                    if !named.starts_with(&parts) || named.len() == parts.len() {
                        return Err(Error::NotASlice { parent: parent.to_owned(), name });
                    }
                    // Every slice lies in the one its name says, so that alone will do.
                    parts = named;
                }
                None => parts.push(UnitName::escape(&name.replace('-', "_"))),
            }
        }
        parts.push(KUBEPODS.to_owned());
        let slice = Self(parts);
        // The longest of the names below it.
        let longest = slice.of(QosClass::BestEffort).scope_prefix() + &"p".repeat("pod.scope".len() + 63);
        if slice.unit().is_err() || longest.len() > 255 {
            return Err(Error::NotASlice { parent: parent.to_owned(), name: slice.name() });
        }
        Ok(slice)
    }

    /// The slice of a class.
    pub(crate) fn of(&self, class: QosClass) -> Self {
        class_name(class).map_or_else(|| self.clone(), |name| self.child(name))
    }

    fn child(&self, name: &str) -> Self {
        Self(self.0.iter().cloned().chain([name.to_owned()]).collect())
    }

    /// The slice it lies in, but for that of everything.
    pub(crate) fn parent(&self) -> Option<Self> {
        match self.0.as_slice() {
            [] | [_] => None,
            [above @ .., _] => Some(Self(above.to_vec())),
        }
    }

    fn name(&self) -> String {
        format!("{}.slice", self.0.join("-"))
    }

    /// What the names of the scopes in it begin with.
    fn scope_prefix(&self) -> String {
        format!("{}-", self.0.join("-"))
    }

    /// Its unit.
    pub(crate) fn unit(&self) -> Result<UnitName, Error> {
        Ok(self.name().parse()?)
    }

    /// Its cgroup, relative to the mounts.
    pub(crate) fn path(&self) -> PathBuf {
        (1..=self.0.len()).map(|count| Self(self.0[..count].to_vec()).name()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slices(parent: &str) -> Result<Layout, Error> {
        Layout::new(Driver::Systemd, parent.as_ref())
    }

    #[test]
    fn directories_are_the_kubelets() {
        let uid: PodUid = "1.2-3_4".parse().unwrap();
        let layout = Layout::new(Driver::Cgroupfs, "/a/./b".as_ref()).unwrap();
        assert_eq!(layout.path(), Path::new("a/b/kubepods"));
        let path = layout.pod_path(QosClass::BestEffort, &uid);
        assert_eq!(path, Path::new("a/b/kubepods/besteffort/pod1.2-3_4"));
        assert_eq!(layout.pod_uid(QosClass::BestEffort, "pod1.2-3_4"), Some(uid));
        assert_eq!(layout.pod_uid(QosClass::BestEffort, "besteffort"), None);
        assert!(Layout::new(Driver::Cgroupfs, "/a/..".as_ref()).is_err());
    }

    #[test]
    fn slices_nest_by_their_names() {
        for (parent, kubepods) in [
            ("/", "kubepods.slice"),
            ("/foo.slice", "foo.slice/foo-kubepods.slice"),
            ("foo.slice/", "foo.slice/foo-kubepods.slice"),
            ("/foo", "foo.slice/foo-kubepods.slice"),
            ("/a.slice/a-b.slice", "a.slice/a-b.slice/a-b-kubepods.slice"),
            ("/a-b.slice", "a.slice/a-b.slice/a-b-kubepods.slice"),
            ("/a/b-c", "a.slice/a-b_c.slice/a-b_c-kubepods.slice"),
            ("/a.slice/b", "a.slice/a-b.slice/a-b-kubepods.slice"),
            ("/a b", r"a\x20b.slice/a\x20b-kubepods.slice"),
        ] {
            assert_eq!(slices(parent).unwrap().path(), Path::new(kubepods), "{parent}");
        }
        let long = format!("/{}", "x".repeat(200));
        for parent in
            ["/a/../b", "/a.slice/b.slice", "/a.slice/a.slice", "/a--b.slice", "/-a.slice", "/.slice", &long]
        {
            assert!(slices(parent).is_err(), "{parent}");
        }
    }

    #[test]
    fn scopes_are_named_after_their_pods() {
        let uid: PodUid = "1.2-3_4".parse().unwrap();
        let layout = slices("/foo.slice").unwrap();
        for (class, path, name) in [
            (QosClass::Guaranteed, "foo.slice/foo-kubepods.slice", "foo-kubepods-pod1.2-3_4.scope"),
            (
                QosClass::Burstable,
                "foo.slice/foo-kubepods.slice/foo-kubepods-burstable.slice",
                "foo-kubepods-burstable-pod1.2-3_4.scope",
            ),
        ] {
            assert_eq!(layout.pod_path(class, &uid), Path::new(path).join(name));
            assert_eq!(layout.pod_uid(class, name), Some(uid.clone()));
            name.parse::<UnitName>().unwrap();
        }
        for other in ["foo-kubepods-burstable.slice", "foo-kubepods-pod.scope", "pod1", "kubepods-pod1.scope"]
        {
            assert_eq!(layout.pod_uid(QosClass::Guaranteed, other), None, "{other}");
        }
    }
}
