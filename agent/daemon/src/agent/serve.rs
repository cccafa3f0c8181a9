//! `coracle agent`: a node until it is told to stop.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use anyhow::Context;
use coracle_controller::{
    Accepted, Changes, Decode, Desired, DesiredState, DirectorySource, KeptConfigs, Known, Manifests,
    Replaced, Subject, decode_manifest, diff, source_of,
};
use coracle_model::{ManifestSource, PodUid};
use coracle_pod::Pods;
use coracle_sandbox::Runtime;
use coracle_server::Problem;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::clear_abandoned;
use super::manifest_url;
use super::ports::NodePorts;
use super::reload::{self, Reload};
use super::service::{ServiceManager, end_pods, is_for_good, tell_status, watch};
use super::shutdown::Shutdown;
use super::signals::Signals;
use super::wiring::{Agent, Inherited};
use crate::config::{Config, Loaded, Overrides, PodsOnStop};

/// Runs the node until SIGTERM or SIGINT; its pods run on, for the next agent, unless they are to end with it.
pub(crate) fn run(overrides: &Overrides) -> anyhow::Result<ExitCode> {
    let Loaded { config, warnings, .. } = Loaded::load(overrides)?;
    let config = &config;
    super::logging("info");
    reload::warn(&warnings);
    let mut manager = ServiceManager::take()?;
    let listener = manager.listener(&config.socket())?;
    let fetcher = config.manifest_url.as_ref().map(manifest_url::fetcher).transpose()?;
    super::runtime()?.block_on(async {
        let mut signals = Signals::new()?;
        let hangups = signal(SignalKind::hangup()).context("cannot handle SIGHUP")?;
        clear_abandoned(config).await?;
        let inherited = Inherited::take(config).await?;
        let manifests = Manifests::new(known(&inherited, fetcher.as_ref().map(source_of)));
        keep(config, &manifests, fetcher.as_ref().map(source_of));
        let at_work = Arc::new(OnceLock::new());
        // They are read while the pods that run are taken over, be it before anybody has looked.
        let desired = manifests.desired();
        let directory = tokio::spawn(directory(config, &at_work, &manifests)?.run());
        let mut agent = Agent::start(config, inherited, listener).await?;
        // Nobody else sets it.
        let _ = at_work.set(agent.runtime());
        let url = manifest_url::follow(agent.config.subscribe(), Arc::clone(&manifests), agent.runtime());
        let reloading = Reload::of(&agent, overrides, &manager.notifier).follow(hangups);
        let pods = agent.pods.clone();
        let shutdown = Shutdown {
            config: agent.config.subscribe(),
            pods: pods.clone(),
            events: Arc::clone(&agent.node_events),
            shutting_down: agent.shutting_down.clone(),
        };
        let notifier = &manager.notifier;
        let (events, node) = (Arc::clone(&agent.node_events), config.node_name.clone());
        let ready = {
            let (notifier, manifests) = (notifier.clone(), config.manifest_dir.clone());
            let until_ready = agent.until_ready();
            move || {
                tracing::info!(node = %node, manifests = %manifests.display(), "the node is ready");
                events.ready();
                notifier.ready();
                drop(until_ready);
            }
        };
        let follow = follow(desired, &agent, ready);
        let status = tell_status(notifier.clone(), pods.clone(), agent.problems.subscribe());
        let current = agent.config.subscribe();
        let stopped = stopped(&mut signals, &current, &manager, &pods);
        let mut end = End::PodsRunOn;
        tokio::select! {
            ended = directory => match ended.context("manifests are no longer read")?? {},
            never = url => match never {},
            never = reloading => match never {},
            () = follow => {}
            () = shutdown.follow() => {}
            () = status => {}
            watched = watch(manager.watchdog, notifier.clone()) => match watched? {},
            served = agent.serve(async { end = stopped.await }) => served?,
        }
        match end {
            End::PodsRunOn => tracing::info!("the agent ends; its pods run on"),
            End::WithPods => tracing::info!("the agent ends, and its pods have ended"),
        }
        notifier.stopping("Ends");
        pods.detach().await;
        agent.events.close().await;
        Ok(ExitCode::SUCCESS)
    })
}

/// What becomes of pods when the agent ends.
#[derive(Clone, Copy)]
enum End {
    PodsRunOn,
    WithPods,
}

/// Waits for the agent to be stopped, and ends the pods where that is configured, and the agent is not coming back. A
/// second signal leaves them to the next agent as they are then.
async fn stopped(
    signals: &mut Signals,
    config: &watch::Receiver<Arc<Config>>,
    manager: &ServiceManager,
    pods: &Pods<NodePorts>,
) -> End {
    signals.recv().await;
    let config = Arc::clone(&config.borrow());
    if config.pods_on_stop == PodsOnStop::Leave || !is_for_good(manager.is_systemd).await {
        return End::PodsRunOn;
    }
    tracing::info!("the agent is stopped: its pods are ended by their priority, and none is started");
    manager.notifier.stopping("Ends its pods");
    tokio::select! {
        () = end_pods(pods, &config.shutdown_grace_periods, &manager.notifier) => End::WithPods,
        () = signals.recv() => {
            tracing::warn!("a second signal: the agent waits for its pods no longer");
            End::PodsRunOn
        }
    }
}

/// The pods that ran from manifests when this agent started.
///
/// What came from an address is taken to come from the one there is now, so that it stays until that has answered.
/// Where there is none any more, it is wanted no longer.
fn known(inherited: &Inherited, url: Option<ManifestSource>) -> impl Iterator<Item = Desired> {
    inherited.pods().filter_map(move |record| {
        let source = record.source.clone()?;
        let source = if source.is_url() { url.clone()? } else { source };
        Some(Desired { pod: Arc::clone(&record.pod), source })
    })
}

/// Takes over the ConfigMaps and Secrets that an agent before this one has accepted in this boot, and keeps those
/// that count from now on. Where that cannot be, the manifests are all that is known, which is said.
fn keep(config: &Config, manifests: &Manifests, url: Option<ManifestSource>) {
    let directory = config.run_dir.join("configs");
    if let Err(error) = coracle_volume::directory_in_memory(&directory) {
        tracing::warn!(%error, "the accepted ConfigMaps and Secrets are not kept for the next agent");
        return;
    }
    let kept = KeptConfigs::new(&directory);
    let known = kept.load().unwrap_or_else(|error| {
        let path = directory.display();
        tracing::warn!(%error, directory = %path, "the ConfigMaps and Secrets accepted before cannot be read");
        Vec::new()
    });
    let known = known.into_iter().filter_map(|Accepted { object, source }| {
        let source = if source.is_url() { url.clone()? } else { source };
        Some(Accepted { object, source })
    });
    manifests.keep(known, kept);
}

/// The manifest directory. `at_work`: the container runtime, once pods can be started.
fn directory(
    config: &Config,
    at_work: &Arc<OnceLock<Runtime>>,
    manifests: &Arc<Manifests>,
) -> anyhow::Result<DirectorySource<impl Decode + use<>>> {
    let at_work = Arc::clone(at_work);
    let decode = move |path: &Path| {
        // A manifest that is read then is most often that of a pod that starts.
        at_work.get().into_iter().for_each(Runtime::expect_start);
        decode_manifest(path)
    };
    Ok(DirectorySource::new(&config.manifest_dir, decode, manifests)?)
}

/// Has the node run what the manifests say. `ready` is called when they were read once, and their pods are taken up.
fn follow<R: FnOnce()>(
    mut desired: watch::Receiver<Option<Arc<DesiredState>>>,
    agent: &Agent,
    ready: R,
) -> impl Future<Output = ()> + use<R> {
    let (pods, configs, problems) = (agent.pods.clone(), agent.configs.clone(), agent.problems.clone());
    let events = Arc::clone(&agent.node_events);
    let mut known = Vec::new();
    let mut ready = Some(ready);
    async move {
        while desired.changed().await.is_ok() {
            let Some(state) = desired.borrow_and_update().clone() else { continue };
            for problem in news(&known, &state.problems) {
                events.refused(problem);
            }
            for problem in mended(&known, &state.problems) {
                events.retrieved(problem);
            }
            known.clone_from(&state.problems);
            report(&problems, &state);
            // Before the pods: a new one is to find what stands beside it.
            let replaced = configs.replace(state.configs.clone());
            apply(&pods, &state);
            tell(&pods, &replaced);
            if let Some(ready) = ready.take() {
                ready();
            }
        }
        tracing::error!("manifests are no longer followed");
    }
}

/// Makes what is desired the pods' business. Idempotent.
pub(super) fn apply(pods: &Pods<NodePorts>, state: &DesiredState) {
    let known = pods.snapshot().into_iter().filter(|snapshot| snapshot.source.is_some());
    let known: Vec<Known> = known
        .map(|snapshot| Known { pod: Arc::clone(&snapshot.pod), is_going: snapshot.deletion.is_some() })
        .collect();
    let going: BTreeSet<PodUid> =
        known.iter().filter(|one| one.is_going).map(|one| one.pod.uid.clone()).collect();
    let Changes { terminate, add } = diff(state, known);
    for uid in &terminate {
        if !going.contains(uid) {
            tracing::info!(pod = %uid, "the pod's manifest is gone, or another now; it is removed");
        }
        pods.terminate(uid, None);
    }
    for Desired { pod, source } in add {
        tracing::info!(pod = %pod.key, uid = %pod.uid, manifest = %source, "a new pod");
        if let Err(error) = pods.set_desired(pod, Some(source)) {
            tracing::warn!(%error, "a pod is not taken up");
        }
    }
}

/// Has the pods that are made of them act on objects that came, went or changed, or are known to be missing.
fn tell(pods: &Pods<NodePorts>, replaced: &Replaced) {
    for key in &replaced.changed {
        tracing::info!(object = %key, "came, went or has changed");
    }
    if replaced.changed.is_empty() && !replaced.completed {
        return;
    }
    for snapshot in pods.snapshot() {
        let made_of = snapshot.pod.configs();
        if replaced.completed && !made_of.is_empty() || !made_of.is_disjoint(&replaced.changed) {
            pods.config_changed(&snapshot.pod.uid);
        }
    }
}

/// What is wrong that was not wrong before.
fn news<'a>(
    before: &[coracle_controller::Problem],
    now: &'a [coracle_controller::Problem],
) -> impl Iterator<Item = &'a coracle_controller::Problem> {
    now.iter().filter(|it| !before.iter().any(|one| (&one.source, &one.message) == (&it.source, &it.message)))
}

/// The addresses that were not to be reached, and are now.
fn mended<'a>(
    before: &'a [coracle_controller::Problem],
    now: &[coracle_controller::Problem],
) -> impl Iterator<Item = &'a coracle_controller::Problem> {
    let unreachable = |it: &coracle_controller::Problem| it.subject == Subject::Place && it.source.is_url();
    let still: Vec<_> = now.iter().filter(|it| unreachable(it)).map(|it| &it.source).cloned().collect();
    before.iter().filter(move |it| unreachable(it) && !still.contains(&it.source))
}

/// Shows users what is wrong with the manifests; the source has said it in the agent's log.
fn report(shown: &watch::Sender<Arc<Vec<Problem>>>, state: &DesiredState) {
    let problem = |it: &coracle_controller::Problem| Problem {
        path: it.source.clone().into(),
        message: it.message.clone(),
    };
    shown.send_replace(Arc::new(state.problems.iter().map(problem).collect()));
}
