//! Probes, as pods have them run.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use coracle_model::{ContainerId, Pod, PodUid};
use coracle_pod::ports::{self, Events as _, Findings, PodEvent, ProbeFailed, Probed};
use coracle_probe::{Endpoint, ExecOutput, Failed, Node, OUTPUT_LIMIT, Prober, Target, Telling};
use coracle_sandbox::{ExecSyncRequest, Runtime};
use jiff::Timestamp;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::EventPort;
use crate::agent::dial::connect_in;
use crate::agent::facts::NodeFacts;
use crate::agent::network::PodNetwork;

/// The node's prober.
pub(crate) struct ProbePort {
    prober: Arc<Prober<ProbedNode>>,
}

/// The node, as probes and hooks reach it.
pub(super) struct ProbedNode {
    runtime: Runtime,
    network: PodNetwork,
    node: NodeFacts,
    events: EventPort,
    changes: mpsc::UnboundedSender<PodUid>,
}

// === impl ProbePort ===

impl ProbePort {
    pub(super) fn new(prober: Arc<Prober<ProbedNode>>) -> Self {
        Self { prober }
    }
}

impl ports::Probes for ProbePort {
    fn set_probed(&self, pod: &Arc<Pod>, containers: Vec<Probed>) {
        let now = Timestamp::now();
        let probed = containers.into_iter().filter_map(|probed| {
            let name = pod.container(&probed.name)?.name.clone();
            Some(coracle_probe::Probed {
                id: probed.id,
                name,
                // A clock that was set back makes no negative age.
                running: Duration::try_from(now.duration_since(probed.started_at)).unwrap_or_default(),
                known: probed.known.map(known),
                readiness_only: probed.readiness_only,
            })
        });
        self.prober.set_probed(pod, probed.collect());
    }

    fn findings(&self, pod: &PodUid) -> BTreeMap<ContainerId, Findings> {
        self.prober.findings(pod).into_iter().map(|(id, findings)| (id, found(findings))).collect()
    }
}

fn known(findings: Findings) -> coracle_probe::Findings {
    let Findings { started, ready, failed } = findings;
    let failed = failed.map(|ProbeFailed { kind, grace }| Failed { kind, termination_grace_period: grace });
    coracle_probe::Findings { started, ready, failed }
}

fn found(findings: coracle_probe::Findings) -> Findings {
    let coracle_probe::Findings { started, ready, failed } = findings;
    let failed =
        failed.map(|failed| ProbeFailed { kind: failed.kind, grace: failed.termination_grace_period });
    Findings { started, ready, failed }
}

// === impl ProbedNode ===

impl ProbedNode {
    pub(super) fn new(
        runtime: Runtime,
        network: PodNetwork,
        node: NodeFacts,
        events: EventPort,
        changes: mpsc::UnboundedSender<PodUid>,
    ) -> Self {
        Self { runtime, network, node, events, changes }
    }
}

impl Node for ProbedNode {
    async fn exec(&self, target: &Target, command: Vec<String>, detach: bool) -> Result<ExecOutput, String> {
        let request = ExecSyncRequest {
            pod: Arc::clone(&target.pod),
            container: target.container.to_string(),
            id: target.id,
            command,
            output_limit: OUTPUT_LIMIT,
            keep_running: detach,
        };
        let ended = self.runtime.exec_sync(request).await.map_err(|error| error.to_string())?;
        Ok(ExecOutput { code: ended.code, output: ended.output })
    }

    fn pod_address(&self, target: &Target) -> Option<IpAddr> {
        if target.pod.spec.host.network {
            return self.node.addresses().first().copied();
        }
        let attempt = self.runtime.observe(&target.pod.uid).sandbox_attempt;
        self.network.attached(&target.pod.uid, attempt)?.first().copied()
    }

    async fn connect(&self, target: &Target, endpoint: Endpoint) -> io::Result<TcpStream> {
        match endpoint {
            Endpoint::Pod(address) if !target.pod.spec.host.network => {
                let inside = self.runtime.in_network(&target.pod.uid).map_err(io::Error::other)?;
                connect_in(inside.as_fd(), address).await
            }
            Endpoint::Pod(address) | Endpoint::Network(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(stream)
            }
        }
    }

    fn tell(&self, target: &Target, telling: Telling) {
        let Telling { kind, reason, message } = telling;
        let container = Some(&target.container);
        self.events.record(&target.pod, PodEvent { kind, reason, message, container });
    }

    fn changed(&self, pod: &PodUid) {
        // Nobody listens while the agent ends.
        let _ = self.changes.send(pod.clone());
    }
}
