//! Making a pod's sandbox.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use coracle_cgroup::{PodCgroup, PodSettings, limits};
use coracle_model::{Pod, qos_class};
use tokio::sync::mpsc::UnboundedReceiver;

use super::exit::namespace_ended;
use super::stop::{KILL_LIMIT, end_processes};
use crate::blocking::blocking;
use crate::error::Error;
use crate::host;
use crate::pause::{self, Event, Launch, PauseClient, Placeholder};
use crate::pod::{PodState, Sandbox};
use crate::record::{self, SandboxRecord};
use crate::runtime::{Inner, Runtime};
use crate::shm;

/// How long pause may take to serve: it attaches itself to cgroups and makes namespaces.
const LAUNCH_LIMIT: Duration = Duration::from_secs(30);

impl Runtime {
    /// Makes the pod's cgroup and starts its pause, unless both are there.
    ///
    /// A sandbox whose pause died is cleared away first; the containers it had are observed as ended.
    ///
    /// # Errors
    /// On the first step that fails. What was made so far is used by the next call, or removed with the
    /// sandbox.
    pub async fn ensure_sandbox(&self, pod: &Arc<Pod>) -> Result<(), Error> {
        let state = self.inner.pod_or_new(&pod.uid);
        if state.live_sandbox().is_some() {
            return Ok(());
        }
        let _verb = Arc::clone(&state.verbs).write_owned().await;
        match state.sandbox() {
            Ok(_) => return Ok(()),
            // It is there, and none is made beside it.
            Err(error @ Error::Unanswered(_)) => return Err(error),
            Err(_) => {}
        }
        let remade = state.data().dead;
        if remade {
            self.inner.end_all(&state).await?;
        }
        let attempt = state.data().attempt + u32::from(remade);
        let (sandbox, events) = self.inner.launch(pod, &state, attempt).await?;
        {
            let mut data = state.data();
            data.sandbox = Some(sandbox.clone());
            data.dead = false;
            data.attempt = attempt;
        }
        // Only now: an end that it tells of is the end of this sandbox.
        tokio::spawn(Arc::clone(&self.inner).watch(Arc::clone(&state), events));
        if pod.spec.share_process_namespace && namespace_ended(&sandbox.client).await? {
            self.inner.namespace_died(&state).await;
        }
        Ok(())
    }
}

impl Inner {
    async fn launch(
        self: &Arc<Self>,
        pod: &Arc<Pod>,
        state: &Arc<PodState>,
        attempt: u32,
    ) -> Result<(Sandbox, UnboundedReceiver<Event>), Error> {
        let changeable = self.settings();
        let names = pod.names(&changeable.cluster_domain)?;
        self.warm.begin();
        let cgroup = self.kubepods.new_pod(qos_class(&pod.spec), &pod.uid);
        // A pause that was started and could not be spoken to must not live beside the next.
        self.give_back_net_devices(state).await?;
        self.end_strays(state).await?;
        let dir = state.dir.clone();
        let host_ipc = pod.spec.host.ipc;
        blocking(move || {
            host::private_dir(&dir)?;
            record::write(&dir.join(record::SANDBOX), &SandboxRecord { attempt })?;
            if !host_ipc {
                shm::renew(&dir)?;
            }
            Ok(())
        })
        .await?;
        // Until pause is in the cgroup.
        let placeholder = match cgroup.begins_with_a_process() {
            true => Some(Placeholder::start(&self.programs)?),
            false => None,
        };
        let settings = PodSettings {
            limits: limits::pod_limits(&pod.spec, changeable.pod_pids_limit),
            description: pod.key.to_string(),
            grace: pod.spec.termination_grace_period,
        };
        cgroup.ensure(&settings, placeholder.as_ref().and_then(Placeholder::process)).await?;
        let counts = self.kubepods.count(&pod.uid, &pod.spec);
        let procs = cgroup.pause().procs()?;
        let procs: Vec<_> = procs.iter().map(AsFd::as_fd).collect();
        let shared = pod.spec.host;
        let directory = host::open_dir(&state.dir)?;
        let launch = Launch {
            program: self.programs.pause(),
            directory: directory.as_fd(),
            cgroups: &procs,
            network: !shared.network,
            ipc: !shared.ipc,
            // As under containerd: with the host's network comes the host's name.
            host_name: (!shared.network).then_some(names.kernel.as_str()),
            shared_pid: pod.spec.share_process_namespace,
            timeout: LAUNCH_LIMIT,
        };
        let weigh = async {
            if counts {
                self.weigh().await;
            }
        };
        let (launched, ()) = tokio::join!(pause::launch(&launch), weigh);
        let launched = launched?;
        drop(placeholder);
        // Given up meanwhile, as when its pod is removed at once, pause goes with `launched`.
        let connected = self.connect(state, cgroup).await?;
        launched.take_over();
        Ok(connected)
    }

    /// Has the class of burstable pods weigh what its pods ask for. Where it does not, they run nevertheless.
    pub(crate) async fn weigh(&self) {
        if let Err(error) = self.kubepods.weigh().await {
            tracing::warn!(%error, "burstable pods do not have the share of the CPUs that they ask for");
        }
    }

    /// Connects to the pod's pause.
    pub(crate) async fn connect(
        &self,
        state: &PodState,
        cgroup: PodCgroup,
    ) -> Result<(Sandbox, UnboundedReceiver<Event>), Error> {
        let directory = host::open_dir(&state.dir)?;
        let (client, events) = PauseClient::connect(directory.as_fd()).await?;
        Ok((Sandbox { client: Arc::new(client), cgroup }, events))
    }

    /// Ends what an attempt to make the sandbox has left running in the pod's cgroup, and removes the cgroup.
    ///
    /// A cgroup that was killed cannot be used again: the kernel counts how often (`kill_seq`, Linux 6.14), and
    /// kills what is cloned into a cgroup whose count differs from that of the parent's own.
    async fn end_strays(&self, state: &PodState) -> Result<(), Error> {
        for pod in self.kubepods.pods_of(&state.uid) {
            let cgroup = pod.cgroup().clone();
            blocking(move || end_processes(&cgroup, KILL_LIMIT, cgroup.path().display().to_string())).await?;
            pod.remove().await?;
        }
        Ok(())
    }
}
