//! Putting the parts together.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail};
use coracle_cgroup::{Driver, Host, Kubepods};
use coracle_controller::ConfigStore;
use coracle_events::EventLog;
use coracle_image::Store;
use coracle_model::PodUid;
use coracle_pod::ports::{Ports, Runtime as _, Volumes as _};
use coracle_pod::{Found, PodRecord, Pods, RecordDir};
use coracle_sandbox::{Adoption, Runtime, SandboxStage};
use coracle_server::{Problem, Socket};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::addresses::NodeAddresses;
use super::devices::NodeDevices;
use super::event::NodeEvents;
use super::images::{Archives, Asks, Collecting, Collector, NodeImages, follow_arrivals};
use super::lock::lock;
use super::network::PodNetwork;
use super::node::AgentNode;
use super::parts::{Given, Made};
use super::ports::{Configuration, NodePorts, PodDirs};
use super::thread::on_own_thread;
use crate::check::{Finding, dropped_by_others};
use crate::config::{CgroupDriver, Config, NetworkConfig};

/// What is particular about a node.
pub(crate) struct Particulars<'a> {
    /// The root directory of the images.
    pub(crate) images: &'a Path,
    /// Whether they are its own to import and to collect.
    pub(crate) tends_images: bool,
    /// Whether device plugins are its own to listen to.
    pub(crate) has_devices: bool,
    /// Whether damage to the images, and others' firewalls, are looked for.
    pub(crate) looks_around: bool,
    /// Where its events go.
    pub(crate) events: EventLog,
    /// The API's socket, if the service manager holds it.
    pub(crate) listener: Option<UnixListener>,
}

/// What an agent before this one has left on record. Who holds it is the only one that runs these pods.
pub(crate) struct Inherited {
    records: RecordDir,
    known: Vec<Found>,
    /// Held as long as the agent lives.
    lock: File,
}

/// How long after the pods are taken over what is begun later begins at the latest: manifests that cannot be read, so that the
/// node is not ready, keep no pod from a new sandbox.
const LATER: Duration = Duration::from_secs(2);

/// What is begun once the node is ready: nobody who waits for that waits for it, and it takes processor time.
struct Later {
    network: PodNetwork,
    runtime: Runtime,
    /// Of the pods that were taken over.
    sandboxes: BTreeSet<(PodUid, u32)>,
    /// Where images are the node's own to collect.
    collector: Option<(Collector, Asks)>,
    /// Where what only the log tells of is looked for.
    looks_around: Option<(Arc<Store>, NetworkConfig)>,
}

/// A node at work: its pods, and the socket to ask for them.
pub(crate) struct Agent {
    /// The pods.
    pub(crate) pods: Pods<NodePorts>,
    /// The ConfigMaps and Secrets they may be made of.
    pub(crate) configs: ConfigStore,
    /// What is wrong with the manifests.
    pub(crate) problems: watch::Sender<Arc<Vec<Problem>>>,
    /// What the node goes by.
    pub(super) config: watch::Sender<Arc<Config>>,
    /// What makes images available.
    pub(super) images: NodeImages,
    /// What happened on the node.
    pub(crate) events: EventLog,
    /// What the node tells of itself.
    pub(super) node_events: Arc<NodeEvents>,
    /// Whether the machine shuts down.
    pub(super) shutting_down: watch::Sender<bool>,
    node: Arc<AgentNode>,
    kubepods: Kubepods,
    socket: Option<Socket>,
    /// Who waits for the node to be ready is told by this.
    ready: Option<oneshot::Sender<()>>,
    _lock: File,
}

// === impl Inherited ===

impl Inherited {
    /// Waits for an agent that ends, and reads what it has left.
    ///
    /// # Errors
    /// When another agent is at work, or it cannot be told which pods there are.
    pub(crate) async fn take(config: &Config) -> anyhow::Result<Self> {
        let lock = lock(&config.run_dir).await?;
        // With the images elsewhere nothing else makes it.
        private_dir(&config.root_dir)?;
        let records = record_dir(config)?;
        let known = records.load()?;
        Ok(Self { records, known, lock })
    }

    /// The pods that are not being removed, as they were accepted.
    pub(crate) fn pods(&self) -> impl Iterator<Item = &PodRecord> {
        self.known.iter().map(|found| &found.record).filter(|record| record.deletion.is_none())
    }
}

// === impl Later ===

impl Later {
    /// Begins when the sender is used or dropped, or it is time.
    async fn begin_after(self, ready: oneshot::Receiver<()>) {
        let _ = timeout(LATER, ready).await;
        self.begin();
    }

    fn begin(self) {
        let Self { network, runtime, sandboxes, collector, looks_around } = self;
        tokio::spawn(network.collect(sandboxes, runtime));
        if let Some((collector, asks)) = collector {
            tokio::spawn(collector.run(asks));
        }
        if let Some((store, network)) = looks_around {
            drop(tokio::task::spawn_blocking(move || report_damage(&store)));
            tokio::spawn(tell_who_drops(network));
        }
    }
}

// === impl Agent ===

impl Agent {
    /// Starts a node with what the configuration says, takes over the pods that run, and clears away
    /// what belongs to none.
    pub(crate) async fn start(
        config: &Config,
        inherited: Inherited,
        listener: Option<UnixListener>,
    ) -> anyhow::Result<Self> {
        let events = EventLog::open(&config.root_dir.join("events"));
        let particulars = Particulars {
            images: &config.root_dir,
            tends_images: true,
            has_devices: true,
            looks_around: true,
            events,
            listener,
        };
        Self::start_with(config, inherited, particulars).await
    }

    /// As [`Agent::start`], with a node's particulars.
    pub(crate) async fn start_with(
        config: &Config,
        inherited: Inherited,
        particulars: Particulars<'_>,
    ) -> anyhow::Result<Self> {
        let Particulars { images, tends_images, has_devices, looks_around, events, listener } = particulars;
        let Inherited { records, known, lock } = inherited;
        let current = watch::Sender::new(Arc::new(config.clone()));
        let host = Arc::new(Host::detect().context("cannot find the cgroup hierarchies")?);
        for weakness in host.missing() {
            tracing::warn!("{}: {}; {}", weakness.lacks, weakness.effect, weakness.remedy);
        }
        let kubepods = kubepods(host, config)?;
        let store = Arc::new(Store::open(images.join("images"))?);
        let node_events = Arc::new(NodeEvents::new(events.clone(), config));
        let (imported, archives_imported) = watch::channel(false);
        let (collecting, asks) = Collecting::new(archives_imported);
        let devices = match has_devices {
            true => NodeDevices::open(config, &known).await,
            false => NodeDevices::none(),
        };
        let given = Given {
            config,
            current: current.subscribe(),
            images,
            store: Arc::clone(&store),
            collecting,
            kubepods: kubepods.clone(),
            records,
            events: events.clone(),
            devices: devices.clone(),
        };
        let Made { parts, addresses, changes } = given.make().await?;
        let Configuration { configs, node: facts } = parts.configuration.clone();
        let (runtime, network, dirs) = (parts.runtime.clone(), parts.network.clone(), parts.dirs.clone());
        let (images_of_node, access) = (parts.images.clone(), parts.images.access());
        let (probes_tell, found) = mpsc::unbounded_channel();
        let ports = Arc::new(NodePorts::new(parts, probes_tell)?);
        // Not sooner: the first event waits until those of agents before this one are read.
        node_events.starting();
        let adopted = adopt(&runtime, &network, &ports, known).await;
        runtime.all_are_adopted().await;
        clear_leaks(&runtime, &ports, &dirs, &adopted).await;

        let sandboxes = adopted.iter().map(|found| &found.record.pod.uid);
        let sandboxes = sandboxes.filter_map(|uid| Some((uid.clone(), sandbox_attempt(&runtime, uid)?)));
        let sandboxes = sandboxes.collect();

        let pods = Pods::new(ports);
        devices.follow(&pods);
        for Found { record, rebooted } in adopted {
            let taken = if rebooted { pods.adopt_after_reboot(record) } else { pods.adopt(record) };
            if let Err(error) = taken {
                tracing::error!(%error, "a pod is not taken over");
            }
        }
        pods.all_are_adopted();
        tokio::spawn(forward(changes, pods.clone()));
        tokio::spawn(forward(found, pods.clone()));
        tokio::spawn(follow_host(addresses, network.clone(), pods.clone()));
        tokio::spawn(follow_arrivals(Arc::clone(&store), pods.clone()));
        let collector = if tends_images {
            tokio::spawn(import_archives(config, Arc::clone(&store), Arc::clone(&node_events), imported));
            let collector = Collector {
                store: Arc::clone(&store),
                config: Mutex::new(config.images.collection),
                events: Arc::clone(&node_events),
                access,
                pods: pods.clone(),
                root_dir: config.root_dir.clone(),
            };
            Some((collector, asks))
        } else {
            let _ = imported.send(true);
            None
        };
        let later = Later {
            network: network.clone(),
            runtime: runtime.clone(),
            sandboxes,
            collector,
            looks_around: looks_around.then(|| (store, config.network.clone())),
        };
        let (ready, told) = oneshot::channel();
        tokio::spawn(later.begin_after(told));
        let (problems, seen) = watch::channel(Arc::default());
        let shutting_down = watch::Sender::new(false);
        let node = Arc::new(AgentNode {
            facts,
            log_dir: config.log_dir.clone(),
            pods: pods.clone(),
            configs: configs.clone(),
            events: events.clone(),
            runtime,
            network,
            devices,
            cni_conf_dir: config.network.cni_conf_dir.clone(),
            problems: seen,
            manifest_dir: config.manifest_dir.clone(),
            config: current.subscribe(),
            shutting_down: shutting_down.subscribe(),
        });
        let socket = Some(match listener {
            Some(listener) => Socket::handed_over(listener, &config.socket())?,
            None => Socket::bind(&config.socket())?,
        });
        Ok(Self {
            pods,
            configs,
            problems,
            config: current,
            images: images_of_node,
            events,
            node_events,
            shutting_down,
            node,
            kubepods,
            socket,
            ready: Some(ready),
            _lock: lock,
        })
    }

    /// Serves the API until `shutdown` resolves.
    pub(crate) async fn serve(&mut self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Some(socket) = self.socket.take() else { bail!("the API is served already") };
        let path = socket.path().to_owned();
        coracle_server::serve(socket, Arc::clone(&self.node) as _, shutdown)
            .await
            .with_context(|| format!("cannot serve on {}", path.display()))
    }

    /// What is to be dropped once the node is ready: then it begins to attach new pods to the network, and to collect images.
    /// It does so a moment later in any case.
    pub(crate) fn until_ready(&mut self) -> impl Sized + use<> {
        self.ready.take()
    }

    /// The container runtime.
    pub(crate) fn runtime(&self) -> Runtime {
        self.node.runtime.clone()
    }

    /// Removes what the default network is made of, once all pods are gone.
    pub(crate) async fn remove_network(&self, config: &Config) -> anyhow::Result<()> {
        self.node.network.remove(&config.network.bridge_name).await
    }

    /// Removes the node's cgroups, once all pods are gone.
    pub(crate) async fn remove_cgroups(&self) -> anyhow::Result<()> {
        Ok(self.kubepods.remove().await?)
    }
}

/// Ends and removes every pod of a node that is gone, whatever its records say.
pub(super) async fn remove_all_pods(
    config: &Config,
    images: PathBuf,
    kubepods: Kubepods,
) -> anyhow::Result<()> {
    let (collecting, _asks) = Collecting::new(watch::channel(true).1);
    let given = Given {
        config,
        current: watch::channel(Arc::new(config.clone())).1,
        images: &config.root_dir,
        store: Arc::new(Store::open(images)?),
        collecting,
        kubepods,
        records: record_dir(config)?,
        events: EventLog::in_memory(),
        devices: NodeDevices::none(),
    };
    let Made { parts, .. } = given.make().await?;
    let (runtime, network, dirs) = (parts.runtime.clone(), parts.network.clone(), parts.dirs.clone());
    let (probes_tell, _found) = mpsc::unbounded_channel();
    let ports = NodePorts::new(parts, probes_tell)?;
    clear_leaks(&runtime, &ports, &dirs, &[]).await;
    network.remove(&config.network.bridge_name).await
}

/// The cgroups of a node.
pub(super) fn kubepods(host: Arc<Host>, config: &Config) -> anyhow::Result<Kubepods> {
    let driver = match config.cgroup_driver {
        CgroupDriver::Cgroupfs => Driver::Cgroupfs,
        CgroupDriver::Systemd => Driver::Systemd,
    };
    Ok(Kubepods::new(host, &config.cgroup_parent, driver)?)
}

/// Makes a directory, and those above it, that nobody else may look into.
pub(super) fn private_dir(path: &Path) -> anyhow::Result<()> {
    let mut builder = fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("cannot make directory {}", path.display()))
}

/// Where pods' records are: what outlasts the agent in the run directory, what outlasts the machine in the root
/// directory.
fn record_dir(config: &Config) -> anyhow::Result<RecordDir> {
    let path = "/proc/sys/kernel/random/boot_id";
    let boot = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let (records, checkpoints) = (config.run_dir.join("records"), config.root_dir.join("checkpoints"));
    Ok(RecordDir::open(records, checkpoints, boot.trim())?)
}

/// Connects to everything that runs. A pod of which nobody can tell whether it does is taken up again from
/// nothing, and so is one of an earlier boot: whatever is there of it is dead.
async fn adopt(runtime: &Runtime, network: &PodNetwork, ports: &NodePorts, known: Vec<Found>) -> Vec<Found> {
    let adoptions = known.iter().map(|found| async {
        let pod = &found.record.pod;
        let adopted = if found.rebooted { None } else { Some(runtime.adopt(pod).await) };
        network.adopt(pod, runtime).await;
        match &adopted {
            Some(Ok(Adoption::Pending)) => {
                tracing::warn!(pod = %pod.key, "the pod's pause does not answer yet");
                // Which of its containers are left is not known: their layers go with the pod.
                return;
            }
            Some(Err(error)) => {
                tracing::error!(pod = %pod.key, %error, "a pod cannot be taken over; it is started anew");
            }
            Some(Ok(Adoption::Complete)) | None => {}
        }
        if !matches!(adopted, Some(Ok(Adoption::Complete)))
            && let Err(error) = runtime.remove_sandbox(&pod.uid).await
        {
            tracing::error!(pod = %pod.key, %error, "its remains cannot be removed");
        }
        if found.rebooted
            && let Err(error) = runtime.remove_older_logs(pod).await
        {
            tracing::error!(pod = %pod.key, %error, "its old logs cannot be removed");
        }
        if let Err(error) = ports.runtime().clear_layers(&pod.uid).await {
            tracing::error!(pod = %pod.key, %error, "cannot remove what containers have left");
        }
    });
    futures_util::future::join_all(adoptions).await;
    known
}

/// Removes what no record speaks of: the remains of pods whose removal was cut off at its last step.
async fn clear_leaks(runtime: &Runtime, ports: &NodePorts, dirs: &PodDirs, known: &[Found]) {
    let known: BTreeSet<&PodUid> = known.iter().map(|found| &found.record.pod.uid).collect();
    let mut found: BTreeSet<PodUid> = match runtime.leftovers() {
        Ok(found) => found.into_iter().collect(),
        Err(error) => {
            tracing::error!(%error, "cannot look for remains of pods");
            return;
        }
    };
    found.extend(directory_names(dirs.root()));
    for uid in found.into_iter().filter(|uid| !known.contains(uid)) {
        tracing::warn!(pod = %uid, "removing the remains of a pod that nobody knows");
        let removed = async {
            ports.runtime().remove_sandbox(&uid).await?;
            ports.volumes().release_volumes(&uid).await
        };
        if let Err(error) = removed.await {
            tracing::error!(pod = %uid, %error, "cannot remove the remains of a pod");
        }
    }
}

/// Imports what lies in the directory of archives. Pods whose images are not here wait until it is done.
fn import_archives(
    config: &Config,
    store: Arc<Store>,
    events: Arc<NodeEvents>,
    imported: watch::Sender<bool>,
) -> impl Future<Output = ()> + use<> {
    let archives = Archives::new(config.images.archive_dir.clone(), config.root_dir.join("archives.json"));
    async move {
        match on_own_thread("archives", move || archives.import(&store)).await {
            Ok(Ok(problems)) => {
                for problem in problems {
                    events.archive_not_imported(&problem.path, &problem.problem);
                }
            }
            Ok(Err(error)) => tracing::error!(%error, "the archives of images are not imported"),
            Err(error) => tracing::error!(%error, "the archives of images are not imported"),
        }
        imported.send_replace(true);
    }
}

/// Which of its pod a sandbox is that there is.
fn sandbox_attempt(runtime: &Runtime, pod: &PodUid) -> Option<u32> {
    let snapshot = runtime.observe(pod);
    (snapshot.sandbox != SandboxStage::Absent).then_some(snapshot.sandbox_attempt)
}

/// Follows what changes of the host's network without the node's doing.
async fn follow_host(addresses: NodeAddresses, network: PodNetwork, pods: Pods<NodePorts>) {
    let addresses = async {
        let Err(error) = addresses.follow(|| pods.node_changed()).await;
        tracing::error!(%error, "changes of the host's addresses are no longer noticed");
    };
    let rules = async {
        if let Err(error) = network.follow_rule_set().await {
            tracing::error!(%error, "what others do to the host's rule set is not noticed, and not mended");
        }
    };
    tokio::join!(addresses, rules);
}

/// Says whose firewall stands between the pods and everybody else.
async fn tell_who_drops(network: NetworkConfig) {
    let found = on_own_thread("network", move || dropped_by_others(&network)).await;
    if let Ok(Some(Finding { found, effect, remedy, .. })) = found {
        let [effect, remedy] = [effect, remedy].map(Option::unwrap_or_default);
        tracing::warn!("{found}: {effect}; {remedy}");
    }
}

fn directory_names(dir: &Path) -> Vec<PodUid> {
    let Ok(entries) = fs::read_dir(PathBuf::from(dir)) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Wakes the workers of pods in which something happened.
async fn forward(mut changes: mpsc::UnboundedReceiver<PodUid>, pods: Pods<NodePorts>) {
    while let Some(uid) = changes.recv().await {
        pods.notify(&uid);
    }
}

fn report_damage(store: &Store) {
    match store.verify() {
        Ok(problems) => {
            for problem in problems {
                tracing::warn!(
                    "the image store is damaged: {problem}; remove the image and pull or import it again"
                );
            }
        }
        Err(error) => tracing::warn!("the image store cannot be verified: {error}"),
    }
}
