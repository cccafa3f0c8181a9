//! What the ports of a node's pods are made of, whether the node runs or what is left of it is removed.

use std::path::Path;
use std::sync::Arc;

use coracle_cdi::Registry;
use coracle_cgroup::Kubepods;
use coracle_controller::ConfigStore;
use coracle_events::EventLog;
use coracle_image::Store;
use coracle_model::PodUid;
use coracle_pod::RecordDir;
use coracle_sandbox::{LogLimits, Runtime, RuntimeConfig, RuntimeSettings};
use coracle_volume::Volumes;
use tokio::sync::{mpsc, watch};

use super::addresses::NodeAddresses;
use super::devices::NodeDevices;
use super::facts::NodeFacts;
use super::images::{Collecting, NodeImages};
use super::network::PodNetwork;
use super::ports::{Configuration, DevicePort, EventPort, Parts, PodDirs};
use crate::config::Config;

/// What differs between the one and the other.
pub(super) struct Given<'a> {
    pub(super) config: &'a Config,
    /// What counts of it, as time goes on.
    pub(super) current: watch::Receiver<Arc<Config>>,
    /// The root directory of the images.
    pub(super) images: &'a Path,
    pub(super) store: Arc<Store>,
    /// Who removes images.
    pub(super) collecting: Collecting,
    pub(super) kubepods: Kubepods,
    pub(super) records: RecordDir,
    pub(super) events: EventLog,
    pub(super) devices: NodeDevices,
}

/// The parts, and what they tell of.
pub(super) struct Made {
    pub(super) parts: Parts,
    /// The host's addresses, which are to be followed.
    pub(super) addresses: NodeAddresses,
    /// The pods in which the container runtime has seen something happen.
    pub(super) changes: mpsc::UnboundedReceiver<PodUid>,
}

// === impl Given ===

impl Given<'_> {
    /// Makes them.
    pub(super) async fn make(self) -> anyhow::Result<Made> {
        let Self { config, current, images, store, collecting, kubepods, records, events, devices } = self;
        let (runtime, changes) = Runtime::new(runtime_config(config), kubepods.clone()).await?;
        let addresses = NodeAddresses::new(&config.network.node_ips, &config.network.bridge_name);
        let network = PodNetwork::new(config, addresses.clone())?;
        let facts = NodeFacts::new(config.node_name.as_str(), &config.root_dir, kubepods, addresses.clone());
        let configuration = Configuration { configs: ConfigStore::default(), node: facts };
        let port = EventPort::new(events.clone());
        let images =
            NodeImages::new(config, images, Arc::clone(&store), collecting, configuration.clone(), port)?;
        let parts = Parts {
            devices: DevicePort::new(devices, Registry::new(&config.devices.cdi_spec_dirs)),
            runtime,
            network,
            store,
            images,
            volumes: Arc::new(Volumes::new(&config.root_dir)),
            dirs: PodDirs::new(&config.root_dir),
            records,
            events,
            configuration,
            config: current,
        };
        Ok(Made { parts, addresses, changes })
    }
}

fn runtime_config(config: &Config) -> RuntimeConfig {
    RuntimeConfig {
        run_dir: config.run_dir.clone(),
        log_dir: config.log_dir.clone(),
        log_links_dir: config.log_dir.parent().unwrap_or(Path::new("/")).join("containers"),
        seccomp_profile_root: config.seccomp_profile_root.clone(),
        settings: runtime_settings(config),
    }
}

/// What of the runtime may change while pods run.
pub(super) fn runtime_settings(config: &Config) -> RuntimeSettings {
    RuntimeSettings {
        log_limits: LogLimits {
            max_size: config.container_log_max_size,
            max_files: config.container_log_max_files as usize,
        },
        pod_pids_limit: config.pod_pids_limit,
        cluster_domain: config.cluster_domain.clone(),
        seccomp_default: config.seccomp_default,
    }
}
