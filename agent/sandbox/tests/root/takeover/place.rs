//! A place for one pod: directories, cgroups and an image, the same for each agent in turn.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use coracle_cgroup::{Driver, Host, Kubepods, Mode, PodCgroup};
use coracle_model::{
    Container, ContainerEdits, ContainerId, Name, Pod, PodKey, PodSpec, PodUid, RestartPolicy, qos_class,
};
use coracle_sandbox::{
    Adoption, ContainerRequest, ContainerStage, Error, ExecUser, LogLimits, PodSnapshot, RequestMount,
    Runtime, RuntimeConfig, RuntimeSettings, SandboxStage,
};
use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedReceiver;

/// Far more than anything here takes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// What of a pod decides by which way its container is born.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    Plain,
    /// With a terminal, whose master is held as well.
    Terminal,
    /// Born by `CLONE_PARENT`, and registered.
    SharedPid,
    /// On a host without a v2 hierarchy, where init enters its cgroup itself.
    Legacy,
}

/// Where the pod is, for another process to find.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Place {
    dir: PathBuf,
    cgroup_parent: PathBuf,
    pub(crate) kind: Kind,
    /// What the container runs.
    pub(crate) args: Vec<String>,
    pub(crate) user: ExecUser,
    pub(crate) privileged: bool,
    /// What devices bring.
    pub(crate) edits: ContainerEdits,
}

/// An agent's runtime.
pub(crate) struct Agent {
    pub(crate) runtime: Runtime,
    changes: UnboundedReceiver<PodUid>,
}

/// A place that goes with the test.
pub(crate) struct Owned {
    pub(crate) place: Place,
    _dir: tempfile::TempDir,
}

// === impl Owned ===

impl Owned {
    /// A place for a program that says `ran` in a file of the host and in its log; `None` where the host cannot
    /// be of that kind.
    pub(crate) fn new(kind: Kind) -> Option<Self> {
        Self::with_args(kind, &["/bin/sh", "-c", "echo ran >> /out/runs; echo ran"])
    }

    pub(crate) fn with_args(kind: Kind, args: &[&str]) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(rustix::process::geteuid().is_root(), "these tests need root");
        // pauses whose agent was killed become this process's, and are reaped by it.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
        host(kind)?;
        let dir = tempfile::tempdir().unwrap();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let place = Place {
            dir: dir.path().to_owned(),
            cgroup_parent: format!("/coracle-test-{}-{count}", std::process::id()).into(),
            kind,
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            user: ExecUser::default(),
            privileged: false,
            edits: ContainerEdits::default(),
        };
        let bin = place.dir.join("image/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir(place.dir.join("out")).unwrap();
        let found = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        fs::copy(found.expect("busybox-static must be installed"), bin.join("busybox")).unwrap();
        symlink("busybox", bin.join("sh")).unwrap();
        Some(Self { place, _dir: dir })
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let kubepods = self.place.kubepods();
        for (class, uid) in kubepods.list_pods().unwrap_or_default() {
            let pod = kubepods.pod(class, &uid);
            let _ = pod.cgroup().kill();
            let _ = pod.cgroup().wait_empty_for(DEADLINE);
            let _ = pod.cgroup().remove();
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        // In a thread of its own: a test may be asynchronous.
        let removed = std::thread::spawn(move || runtime.block_on(kubepods.remove())).join().unwrap();
        if !std::thread::panicking() {
            removed.expect("nothing of the pod is left in its cgroups");
        }
    }
}

/// The host, or what of it makes the kind.
fn host(kind: Kind) -> Option<Host> {
    let native = Host::detect().expect("a cgroup file system is mounted");
    if kind != Kind::Legacy {
        return Some(native);
    }
    if native.mode() != Mode::Hybrid {
        return None;
    }
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let legacy: Vec<&str> = text.lines().filter(|line| !line.contains(" - cgroup2 ")).collect();
    Some(Host::from_mountinfo(&legacy.join("\n")).unwrap())
}

// === impl Place ===

impl Place {
    fn kubepods(&self) -> Kubepods {
        let host = host(self.kind).expect("looked at when the place was made");
        Kubepods::new(Arc::new(host), &self.cgroup_parent, Driver::Cgroupfs).unwrap()
    }

    /// An agent that knows nothing yet.
    pub(crate) async fn agent(&self) -> Agent {
        let config = RuntimeConfig {
            run_dir: self.dir.join("run"),
            log_dir: self.dir.join("log/pods"),
            log_links_dir: self.dir.join("log/containers"),
            seccomp_profile_root: self.dir.join("seccomp"),
            settings: RuntimeSettings {
                log_limits: LogLimits::default(),
                pod_pids_limit: None,
                cluster_domain: String::new(),
                seccomp_default: false,
            },
        };
        let (runtime, changes) = Runtime::new(config, self.kubepods()).await.unwrap();
        Agent { runtime, changes }
    }

    pub(crate) fn pod(&self) -> Arc<Pod> {
        let mut container = Container {
            tty: self.kind == Kind::Terminal,
            ..Container::new(Name::label("c").unwrap(), "busybox")
        };
        container.security.privileged = self.privileged;
        Arc::new(Pod {
            uid: "11111111-2222-3333-4444-555555555555".parse().unwrap(),
            key: PodKey { namespace: Name::label("default").unwrap(), name: Name::label("once").unwrap() },
            labels: Default::default(),
            annotations: Default::default(),
            spec: PodSpec {
                restart_policy: RestartPolicy::Never,
                share_process_namespace: self.kind == Kind::SharedPid,
                ..PodSpec::new(vec![container])
            },
            object: "{}".to_owned(),
        })
    }

    pub(crate) fn request(&self) -> ContainerRequest {
        self.request_for(ContainerId::random())
    }

    pub(crate) fn request_for(&self, id: ContainerId) -> ContainerRequest {
        let pod = self.pod();
        let state_dir = self.dir.join("state").join(id.to_string());
        fs::create_dir_all(&state_dir).unwrap();
        ContainerRequest {
            id,
            state_dir,
            container: pod.spec.containers[0].clone(),
            pod,
            attempt: 0,
            image_id: "sha256:0".to_owned(),
            volume_images: BTreeMap::new(),
            args: self.args.clone(),
            env: vec![("PATH".to_owned(), "/bin".to_owned())],
            cwd: "/".to_owned(),
            user: self.user.clone(),
            stop_signal: 15,
            rootfs: detached(&self.dir.join("image")),
            mounts: vec![RequestMount {
                destination: "/out".to_owned(),
                mount: detached(&self.dir.join("out")),
            }],
            edits: self.edits.clone(),
        }
    }

    /// Of the host; `/out` in the container.
    pub(crate) fn out(&self) -> PathBuf {
        self.dir.join("out")
    }

    /// The pod's directory: its sandbox.
    pub(crate) fn sandbox(&self) -> PathBuf {
        self.dir.join("run/pods").join(self.pod().uid.as_str())
    }

    /// Lets a program go on that waits for it.
    pub(crate) fn go(&self) {
        fs::write(self.dir.join("out/go"), "").unwrap();
    }

    /// How often the program ran, by what it noted itself.
    pub(crate) fn runs(&self) -> usize {
        fs::read_to_string(self.dir.join("out/runs")).unwrap_or_default().lines().count()
    }

    /// What the log has of the container, without times.
    pub(crate) fn log(&self) -> Vec<String> {
        let pod = self.pod();
        let name = format!("log/pods/{}_{}_{}/c/0.log", pod.key.namespace, pod.key.name, pod.uid);
        let text = fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        text.lines().map(|line| line.split_once(' ').unwrap().1.trim_end().to_owned()).collect()
    }

    /// Where the links for log shippers lead.
    pub(crate) fn log_links(&self) -> Vec<PathBuf> {
        let Ok(links) = fs::read_dir(self.dir.join("log/containers")) else { return Vec::new() };
        links.map(|link| fs::read_link(link.unwrap().path()).unwrap()).collect()
    }

    pub(crate) fn cgroup(&self) -> PodCgroup {
        let pod = self.pod();
        self.kubepods().pod(qos_class(&pod.spec), &pod.uid)
    }
}

fn detached(path: &Path) -> OwnedFd {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, path, flags).unwrap()
}

// === impl Agent ===

impl Agent {
    pub(crate) fn see(&self, place: &Place) -> PodSnapshot {
        self.runtime.observe(&place.pod().uid)
    }

    /// Takes over what there is of the pod, however busy the host is.
    pub(crate) async fn take_over(&mut self, place: &Place) {
        if self.runtime.adopt(&place.pod()).await.unwrap() == Adoption::Pending {
            self.change().await;
        }
    }

    /// Does what a worker does for a pod that is never restarted, until its container has ended: creates it
    /// when there is none, starts it when it is created, and waits. How it ended.
    pub(crate) async fn run(&mut self, place: &Place) -> ContainerStage {
        let pod = place.pod();
        loop {
            let seen = self.see(place);
            assert_ne!(seen.sandbox, SandboxStage::Dead, "the sandbox is the same all the time");
            match seen.containers.as_slice() {
                [] => {
                    self.runtime.ensure_sandbox(&pod).await.unwrap();
                    self.runtime.create_container(place.request()).await.unwrap();
                }
                [one] => match &one.stage {
                    ContainerStage::Created => match self.runtime.start_container(&pod.uid, one.id).await {
                        Ok(()) | Err(Error::Init(_)) => {}
                        Err(error) => panic!("{error}"),
                    },
                    ContainerStage::Running { .. } => self.change().await,
                    ended @ ContainerStage::Exited { .. } => return ended.clone(),
                },
                more => panic!("{more:#?}"),
            }
        }
    }

    /// Waits until something happened by itself.
    pub(crate) async fn change(&mut self) {
        let changed = tokio::time::timeout(DEADLINE, self.changes.recv()).await;
        changed.expect("something happens in time").expect("the runtime lives");
    }

    /// Removes the pod; nothing of it is left.
    pub(crate) async fn remove(self, place: &Place) {
        self.runtime.remove_sandbox(&place.pod().uid).await.unwrap();
        assert_eq!(fs::read_dir(place.dir.join("run/pods")).unwrap().count(), 0);
        assert!(!place.cgroup().cgroup().exists());
    }
}
