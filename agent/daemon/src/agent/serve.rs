//! `coracle agent`: a node until it is told to stop.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use coracle_controller::{Changes, Desired, DesiredState, DirectorySource, decode_manifest, diff};
use coracle_model::{ConfigKey, PodUid};
use coracle_pod::Pods;
use coracle_server::Problem;
use tokio::sync::watch;

use super::ports::NodePorts;
use super::signals::Signals;
use super::wiring::Agent;
use crate::config::Config;

/// Runs the node until SIGTERM or SIGINT; its pods run on, for the next agent.
pub(crate) fn run(config: &Config) -> anyhow::Result<ExitCode> {
    super::logging();
    super::runtime()?.block_on(async {
        let mut signals = Signals::new()?;
        let mut agent = Agent::start(config).await?;
        let source = directory(config, &agent)?;
        let (publish, desired) = watch::channel(None);
        let follow = follow(desired, config.manifest_dir.as_path(), &agent);
        let pods = agent.pods.clone();

        tracing::info!(node = %config.node_name, manifests = %config.manifest_dir.display(), "the node is ready");
        agent.node_events.ready();
        // Without a service manager there is nobody to tell.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        tokio::select! {
            ended = source.run(&publish) => match ended? {},
            () = follow => {}
            served = agent.serve(signals.recv()) => served?,
        }
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        tracing::info!("the agent ends; its pods run on");
        pods.detach().await;
        agent.events.close().await;
        Ok(ExitCode::SUCCESS)
    })
}

/// The manifest directory, with what ran from it when this agent started.
fn directory(
    config: &Config,
    agent: &Agent,
) -> anyhow::Result<DirectorySource<impl coracle_controller::Decode + use<>>> {
    let known = agent.adopted.iter().filter(|record| record.deletion.is_none()).filter_map(|record| {
        let source = record.source.clone()?;
        Some(Desired { pod: Arc::clone(&record.pod), source })
    });
    let runtime = agent.runtime();
    let decode = move |path: &Path| {
        // A manifest that is read is most often that of a pod that starts.
        runtime.expect_start();
        decode_manifest(path)
    };
    Ok(DirectorySource::new(&config.manifest_dir, decode, known)?)
}

/// Has the node run what the directory says.
fn follow(
    mut desired: watch::Receiver<Option<Arc<DesiredState>>>,
    manifests: &Path,
    agent: &Agent,
) -> impl Future<Output = ()> + use<> {
    let (pods, configs, problems) = (agent.pods.clone(), agent.configs.clone(), agent.problems.clone());
    let events = Arc::clone(&agent.node_events);
    let manifests = manifests.to_owned();
    async move {
        while desired.changed().await.is_ok() {
            let Some(state) = desired.borrow_and_update().clone() else { continue };
            for problem in news(&problems.borrow(), &state) {
                events.refused(&manifests, problem);
            }
            report(&problems, &state);
            // Before the pods: a new one is to find what stands beside it.
            let changed = configs.replace(state.configs.clone());
            apply(&pods, &state);
            tell(&pods, &changed);
        }
        tracing::error!(directory = %manifests.display(), "manifests are no longer followed");
    }
}

/// Makes what is desired the pods' business. Idempotent.
pub(super) fn apply(pods: &Pods<NodePorts>, state: &DesiredState) {
    let known: Vec<(PodUid, bool)> = pods
        .snapshot()
        .into_iter()
        .filter(|snapshot| snapshot.source.is_some())
        .map(|snapshot| (snapshot.pod.uid.clone(), snapshot.deletion.is_some()))
        .collect();
    let Changes { terminate, add } = diff(state, known);
    for uid in &terminate {
        tracing::info!(pod = %uid, "the pod's manifest is gone; it is removed");
        pods.terminate(uid, None);
    }
    for Desired { pod, source } in add {
        tracing::info!(pod = %pod.key, uid = %pod.uid, manifest = %source.display(), "a new pod");
        if let Err(error) = pods.set_desired(pod, Some(source)) {
            tracing::warn!(%error, "a pod is not taken up");
        }
    }
}

/// Has the pods that are made of them act on objects that came, went or changed.
fn tell(pods: &Pods<NodePorts>, changed: &BTreeSet<ConfigKey>) {
    if changed.is_empty() {
        return;
    }
    for key in changed {
        tracing::info!(object = %key, "came, went or has changed");
    }
    let concerned =
        pods.snapshot().into_iter().filter(|snapshot| !snapshot.pod.configs().is_disjoint(changed));
    concerned.for_each(|snapshot| pods.config_changed(&snapshot.pod.uid));
}

/// What is wrong with the manifests that was not wrong before.
fn news<'a>(shown: &[Problem], state: &'a DesiredState) -> Vec<&'a coracle_controller::Problem> {
    let is_shown = |it: &coracle_controller::Problem| {
        shown.iter().any(|one| one.path == *it.path && one.message == it.message)
    };
    state.problems.iter().filter(|problem| !is_shown(problem)).collect()
}

/// Shows users what is wrong with the manifests; the source has said it in the agent's log.
fn report(shown: &watch::Sender<Arc<Vec<Problem>>>, state: &DesiredState) {
    let problem = |it: &coracle_controller::Problem| Problem {
        path: it.path.to_path_buf(),
        message: it.message.clone(),
    };
    shown.send_replace(Arc::new(state.problems.iter().map(problem).collect()));
}
