//! Pods' networks, as the agent has them made and taken back.
//!
//! Plugins block, some of them for as long as they like: every call has a thread of its own, and what is done about one
//! pod is done in turn, to its end, also when nobody waits for it any more.

mod recovery;

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use coracle_cni::Dns;
use coracle_model::{Pod, PodUid};
use coracle_network::{Attach, DefaultNetwork, HostEnd, Network, NetworkError, NetworkSettings};
use coracle_pod::ports::Failure;
use tokio::sync::{OwnedMutexGuard, watch};

use super::addresses::NodeAddresses;
use super::thread::on_own_thread;
use crate::config::Config;

/// The network of a node's pods. Cheap to clone.
#[derive(Clone)]
pub(crate) struct PodNetwork {
    inner: Arc<Inner>,
}

struct Inner {
    driver: Network,
    node: NodeAddresses,
    /// Another agent's pods are attached to the same network.
    beside_others: bool,
    /// Held by whoever changes what a pod has, to the end of that even if nobody waits for it any more: nothing is made
    /// after what was to take it back.
    busy: Mutex<HashMap<PodUid, Arc<tokio::sync::Mutex<()>>>>,
    /// The pods that have the host's.
    of_host: Mutex<BTreeSet<PodUid>>,
    /// The host's ends of what connects pods that are being removed. What is on record of them goes with DEL, and what
    /// comes after that may fail, or be given up, and begin again.
    ending: Mutex<HashMap<PodUid, BTreeSet<HostEnd>>>,
    /// Becomes true once what agents before this one have left is taken back.
    collected: watch::Sender<bool>,
    /// Why no pod can be attached now.
    problem: watch::Sender<Option<String>>,
    /// Somebody sees whether that is still so.
    looking: AtomicBool,
}

/// A pod's turn.
pub(crate) struct Turn {
    network: PodNetwork,
    _busy: OwnedMutexGuard<()>,
}

/// What a sandbox is attached with, beside what its pod says.
pub(crate) struct Attaching {
    pub(crate) pod: Arc<Pod>,
    pub(crate) attempt: u32,
    /// The sandbox's network namespace.
    pub(crate) netns: PathBuf,
    /// How it resolves names.
    pub(crate) dns: Dns,
}

// === impl PodNetwork ===

impl PodNetwork {
    /// What the configuration says, and what is on record.
    pub(crate) fn new(config: &Config, node: NodeAddresses) -> Result<Self, NetworkError> {
        let network = &config.network;
        let settings = NetworkSettings {
            conf_dir: network.cni_conf_dir.clone(),
            bin_dirs: network.cni_bin_dirs.clone(),
            state_dir: config.run_dir.join("network"),
            default: DefaultNetwork {
                name: network.name.clone(),
                bridge: network.bridge_name.clone(),
                pod_cidrs: network.pod_cidrs(),
                data_dir: config.run_dir.join("cni/networks"),
            },
            deadline: network.cni_timeout,
        };
        let inner = Inner {
            driver: Network::new(settings)?,
            node,
            beside_others: network.beside_others,
            busy: Mutex::default(),
            of_host: Mutex::default(),
            ending: Mutex::default(),
            collected: watch::Sender::new(false),
            problem: watch::Sender::new(None),
            looking: AtomicBool::new(false),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Takes note that a pod has the host's network.
    pub(crate) fn is_hosts(&self, pod: &PodUid) {
        self.inner.of_host.lock().unwrap_or_else(PoisonError::into_inner).insert(pod.clone());
    }

    /// The addresses of a sandbox that is attached, at most one of a family, the node's primary family first: none
    /// where it has the host's network. Answers from memory.
    pub(crate) fn attached(&self, pod: &PodUid, attempt: u32) -> Option<Vec<IpAddr>> {
        if self.inner.of_host.lock().unwrap_or_else(PoisonError::into_inner).contains(pod) {
            return Some(Vec::new());
        }
        let ips = self.inner.driver.attached(pod, attempt)?.ips;
        let ipv4_first = self.inner.node.ipv4_first();
        let first = |ipv4: bool| ips.iter().find(|address| address.is_ipv4() == ipv4).copied();
        Some([ipv4_first, !ipv4_first].into_iter().filter_map(first).collect())
    }

    /// Why no pod can be attached now, as far as is known. Answers from memory; that it was asked for is reason to look
    /// again, as nobody else may have meanwhile.
    pub(crate) fn problem(&self) -> Option<String> {
        let problem = self.inner.problem.borrow().clone();
        if problem.is_some() && !self.inner.looking.swap(true, Ordering::Relaxed) {
            let network = self.clone();
            tokio::spawn(async move {
                // Without a thread it is as it was.
                let _ = on_own_thread("network", {
                    let network = network.clone();
                    move || network.look()
                })
                .await;
                network.inner.looking.store(false, Ordering::Relaxed);
            });
        }
        problem
    }

    /// Ends the plugin that an attachment of the pod waits for: nobody wants it any more.
    pub(crate) async fn interrupt(&self, pod: &PodUid) {
        let busy = {
            let all = self.inner.busy.lock().unwrap_or_else(PoisonError::into_inner);
            all.get(pod).is_some_and(|busy| busy.try_lock().is_err())
        };
        if busy {
            let (network, pod) = (self.clone(), pod.clone());
            // Without a thread the plugin's own time has to do.
            let _ = on_own_thread("network", move || network.inner.driver.interrupt(&pod)).await;
        }
    }

    /// Waits for the pod's turn.
    pub(crate) async fn turn(&self, pod: &PodUid) -> Turn {
        let busy = {
            let mut all = self.inner.busy.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(pod.clone()).or_default())
        };
        Turn { network: self.clone(), _busy: busy.lock_owned().await }
    }

    /// Forgets a pod that is gone.
    pub(crate) fn forget(&self, pod: &PodUid) {
        self.inner.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(pod);
        self.inner.of_host.lock().unwrap_or_else(PoisonError::into_inner).remove(pod);
    }

    /// Sees whether pods can be attached now. Blocks.
    fn look(&self) {
        let problem = self.inner.driver.status().err().map(|error| format!("network is not ready: {error}"));
        self.inner.problem.send_if_modified(|before| {
            let changed = *before != problem;
            match &problem {
                Some(problem) if changed => tracing::warn!("{problem}"),
                None if changed => tracing::info!("the pods' network is ready"),
                _ => {}
            }
            *before = problem;
            changed
        });
    }
}

// === impl Turn ===

impl Turn {
    /// Attaches a sandbox, unless it is.
    pub(crate) async fn add(self, attaching: Attaching) -> Result<Self, Failure> {
        let mut collected = self.network.inner.collected.subscribe();
        // The sender lives as long as `self`.
        let _ = collected.wait_for(|collected| *collected).await;
        self.carry_out("FailedCreatePodSandBox", move |network| {
            let Attaching { pod, attempt, netns, dns } = attaching;
            let added = Attach::of_pod(&pod, attempt, &netns).and_then(|mut attach| {
                attach.dns = (!dns.is_empty()).then_some(dns);
                network.inner.driver.add(&attach)
            });
            // Whether it is for all, as long as it is.
            if added.is_err() || network.inner.problem.borrow().is_some() {
                network.look();
            }
            added.map(drop)
        })
        .await
    }

    /// Takes back whatever the pod is attached to. `namespace_ends`: its sandbox ends right after.
    pub(crate) async fn del(self, pod: &PodUid, namespace_ends: bool) -> Result<Self, Failure> {
        let pod = pod.clone();
        if !self.network.inner.driver.on_record().iter().any(|(uid, _)| *uid == pod) {
            return Ok(self);
        }
        self.carry_out("FailedKillPod", move |network| {
            if namespace_ends {
                network.note_ends_of(&pod);
            }
            network.inner.driver.del(&pod, None, namespace_ends)
        })
        .await
    }

    /// Does it on a thread of its own, which has the turn until it is done.
    async fn carry_out(
        self,
        reason: &'static str,
        work: impl FnOnce(&PodNetwork) -> Result<(), NetworkError> + Send + 'static,
    ) -> Result<Self, Failure> {
        let done = on_own_thread("network", move || {
            let done = work(&self.network);
            done.map(|()| self)
        });
        match done.await {
            Ok(done) => done.map_err(|error| Failure::new(reason, error.to_string())),
            Err(error) => Err(Failure::new(reason, format!("no thread to set up the network: {error}"))),
        }
    }
}
