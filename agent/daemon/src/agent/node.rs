//! The node, as the server sees it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_controller::ConfigStore;
use coracle_events::EventLog;
use coracle_model::{ConfigObject, EphemeralContainer, Event, Pod, PodKey};
use coracle_pod::{NotAdded, PodSnapshot, Pods};
use coracle_sandbox::Runtime;
use coracle_server::{
    AttachRequest, Deletion, EphemeralError, ExecError, ExecRequest, ExecSession, ForwardError, Forwarded,
    Node, NodeStatus, PodEntry, PortForwardRequest, Problem,
};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::devices::NodeDevices;
use super::facts::NodeFacts;
use super::network::PodNetwork;
use super::ports::NodePorts;
use super::{exec, machine, port_forward};
use crate::config::Config;

/// This node.
pub(crate) struct AgentNode {
    pub(crate) facts: NodeFacts,
    pub(crate) log_dir: PathBuf,
    pub(crate) pods: Pods<NodePorts>,
    pub(crate) configs: ConfigStore,
    pub(crate) events: EventLog,
    pub(crate) runtime: Runtime,
    pub(crate) network: PodNetwork,
    pub(crate) devices: NodeDevices,
    pub(crate) cni_conf_dir: PathBuf,
    pub(crate) problems: watch::Receiver<Arc<Vec<Problem>>>,
    pub(crate) manifest_dir: PathBuf,
    /// What the node goes by.
    pub(crate) config: watch::Receiver<Arc<Config>>,
    /// The machine shuts down.
    pub(crate) shutting_down: watch::Receiver<bool>,
}

impl Node for AgentNode {
    fn name(&self) -> &str {
        self.facts.name()
    }

    fn pods(&self) -> Vec<PodEntry> {
        let mut by_key = BTreeMap::<PodKey, PodSnapshot>::new();
        for snapshot in self.pods.snapshot() {
            match by_key.get(&snapshot.pod.key) {
                // While a pod is being removed, the one that waits for its name is not there yet.
                Some(shown) if shown.deletion.is_some() => {}
                _ => drop(by_key.insert(snapshot.pod.key.clone(), snapshot)),
            }
        }
        by_key.into_values().map(entry).collect()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.pods.changes()
    }

    fn log_dir(&self) -> &Path {
        &self.log_dir
    }

    fn events(&self) -> Vec<Arc<Event>> {
        self.events.events()
    }

    fn event_changes(&self) -> watch::Receiver<u64> {
        self.events.changes()
    }

    fn configs(&self) -> Vec<Arc<ConfigObject>> {
        self.configs.now().objects.values().cloned().collect()
    }

    fn configuration(&self) -> serde_json::Map<String, serde_json::Value> {
        self.config.borrow().settings.configz()
    }

    fn status(&self) -> NodeStatus {
        let not_ready = match *self.shutting_down.borrow() {
            true => Some("node is shutting down".to_owned()),
            false => self.network.problem(),
        };
        machine::status(&self.facts, &self.devices.counts(), not_ready)
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.problems.borrow().to_vec();
        if *self.shutting_down.borrow() {
            let message = "node is shutting down: pods are ended, and none is started".to_owned();
            problems.push(Problem { path: self.manifest_dir.clone(), message });
        }
        if let Some(message) = self.network.problem() {
            problems.push(Problem { path: self.cni_conf_dir.clone(), message });
        }
        problems
    }

    fn exec(&self, request: ExecRequest) -> BoxFuture<'static, Result<ExecSession, ExecError>> {
        exec::exec(self.runtime.clone(), request).boxed()
    }

    fn attach(&self, request: AttachRequest) -> BoxFuture<'static, Result<ExecSession, ExecError>> {
        exec::attach(self.runtime.clone(), request).boxed()
    }

    fn add_ephemeral(
        &self,
        pod: Arc<Pod>,
        container: EphemeralContainer,
    ) -> BoxFuture<'static, Result<(), EphemeralError>> {
        let pods = self.pods.clone();
        let refuse = |error: NotAdded| match error {
            NotAdded::Gone => EphemeralError::Gone,
            NotAdded::NotRunning(_) => EphemeralError::Conflict(error.to_string()),
            NotAdded::NameTaken { .. } | NotAdded::NoTarget { .. } => {
                EphemeralError::Invalid(error.to_string())
            }
        };
        async move { pods.add_ephemeral(&pod.uid, container).await.map_err(refuse) }.boxed()
    }

    fn port_forward(
        &self,
        request: PortForwardRequest,
    ) -> BoxFuture<'static, Result<Forwarded, ForwardError>> {
        port_forward::connect(self.runtime.clone(), request).boxed()
    }
}

fn entry(snapshot: PodSnapshot) -> PodEntry {
    PodEntry {
        pod: snapshot.pod,
        status: snapshot.status,
        deletion: snapshot
            .deletion
            .map(|deletion| Deletion { requested_at: deletion.requested_at, grace: deletion.grace }),
        version: snapshot.version,
    }
}
