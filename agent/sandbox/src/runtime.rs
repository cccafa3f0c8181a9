//! The runtime: what it is configured with, and what it knows.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use coracle_cgroup::Kubepods;
use coracle_model::PodUid;
use tokio::sync::mpsc;

use crate::error::Error;
use crate::logs::{LogLimits, SharedLogLimits};
use crate::pod::PodState;
use crate::programs::Programs;
use crate::spec::HostFacts;
use crate::warm::WarmAttach;
use crate::{host, seccomp};

/// Where the runtime keeps things, and what it is allowed.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// Sandboxes live in its `pods/`.
    pub run_dir: PathBuf,
    /// `<namespace>_<name>_<uid>/<container>/<attempt>.log`.
    pub log_dir: PathBuf,
    /// Links `<pod>_<namespace>_<container>-<id>.log` to the current logs, for log shippers.
    pub log_links_dir: PathBuf,
    /// Where `Localhost` seccomp profiles lie.
    pub seccomp_profile_root: PathBuf,
    /// What may become something else.
    pub settings: RuntimeSettings,
}

/// What may change while containers run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeSettings {
    /// Rotation of container logs; of those that are written to as well.
    pub log_limits: LogLimits,
    /// The most tasks a pod may have that is started from now on.
    pub pod_pids_limit: Option<u64>,
    /// What names with a domain end in, in sandboxes that are made from now on; may be empty.
    pub cluster_domain: String,
    /// Containers without a seccomp profile get the default one; those that are made, and programs that are executed,
    /// from now on.
    pub seccomp_default: bool,
}

/// The container runtime of a node. Cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: RuntimeConfig,
    settings: RwLock<RuntimeSettings>,
    pub(crate) log_limits: SharedLogLimits,
    pub(crate) kubepods: Kubepods,
    pub(crate) programs: Programs,
    pub(crate) seccomp: seccomp::Filters,
    pub(crate) facts: HostFacts,
    pub(crate) warm: WarmAttach,
    pods: Mutex<HashMap<PodUid, Arc<PodState>>>,
    changes: mpsc::UnboundedSender<PodUid>,
}

// === impl Runtime ===

impl Runtime {
    /// A runtime that knows no pod yet, and the pods of which something changed without being asked: a
    /// container ended, or pause died.
    ///
    /// # Errors
    /// When the run directory or the cgroups' parent cannot be made, or systemd is to make the latter and there is none.
    pub async fn new(
        config: RuntimeConfig,
        kubepods: Kubepods,
    ) -> Result<(Self, mpsc::UnboundedReceiver<PodUid>), Error> {
        host::private_dir(&config.run_dir.join("pods"))?;
        let facts = host::facts(kubepods.host())?;
        kubepods.ensure(host::milli_cpus()).await?;
        let (changes, receiver) = mpsc::unbounded_channel();
        let programs = Programs::load()?;
        let seccomp = seccomp::Filters::new(config.seccomp_profile_root.clone())?;
        let warm = WarmAttach::new(kubepods.host());
        let pods = Mutex::default();
        let (settings, log_limits) =
            (RwLock::new(config.settings.clone()), SharedLogLimits::from(config.settings.log_limits));
        let inner =
            Inner { config, settings, log_limits, kubepods, programs, seccomp, facts, warm, pods, changes };
        Ok((Self { inner: Arc::new(inner) }, receiver))
    }

    /// Goes by other settings from now on.
    pub fn change(&self, settings: RuntimeSettings) {
        self.inner.log_limits.set(settings.log_limits);
        *self.inner.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }
}

// === impl Inner ===

impl Inner {
    /// The settings, now.
    pub(crate) fn settings(&self) -> RuntimeSettings {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The state of a pod, if there is any.
    pub(crate) fn pod(&self, uid: &PodUid) -> Option<Arc<PodState>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).get(uid).cloned()
    }

    /// The state of a pod, made when there is none.
    pub(crate) fn pod_or_new(&self, uid: &PodUid) -> Arc<PodState> {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = self.pod_dir(uid);
        Arc::clone(pods.entry(uid.clone()).or_insert_with(|| Arc::new(PodState::new(uid.clone(), dir))))
    }

    /// Forgets a pod.
    pub(crate) fn forget(&self, uid: &PodUid) {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// Says that something of the pod changed.
    pub(crate) fn changed(&self, uid: &PodUid) {
        // Nobody listens while the agent ends.
        let _ = self.changes.send(uid.clone());
    }

    /// The sandbox directory of a pod.
    pub(crate) fn pod_dir(&self, uid: &PodUid) -> PathBuf {
        self.pods_dir().join(uid.as_str())
    }

    /// The directory of all sandboxes.
    pub(crate) fn pods_dir(&self) -> PathBuf {
        self.config.run_dir.join("pods")
    }
}

/// The log directory that the log of a container lies in, by [`pod_log_dir`]. It is not [`RuntimeConfig::log_dir`]
/// of a container that was created under another configuration.
pub(crate) fn log_dir_of(log: &Path) -> &Path {
    log.ancestors().nth(3).unwrap_or(log)
}

/// The directory of a pod's logs.
pub(crate) fn pod_log_dir(log_dir: &Path, pod: &coracle_model::Pod) -> PathBuf {
    log_dir.join(format!("{}_{}_{}", pod.key.namespace, pod.key.name, pod.uid))
}
