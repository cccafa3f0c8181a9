//! Ending with the machine: what logind says of it, made the pods' business.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;

use coracle_model::PodUid;
use coracle_pod::{Eviction, Pods, WorkerPhase};
use coracle_shutdown::{Change, GracePeriods, Group, Inhibitor};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::event::NodeEvents;
use super::ports::NodePorts;
use crate::config::Config;

/// What ends the pods when the machine shuts down.
pub(super) struct Shutdown {
    /// What the node goes by.
    pub(super) config: watch::Receiver<Arc<Config>>,
    pub(super) pods: Pods<NodePorts>,
    pub(super) events: Arc<NodeEvents>,
    /// Whether the machine shuts down, for whoever asks.
    pub(super) shutting_down: watch::Sender<bool>,
}

// === impl Shutdown ===

impl Shutdown {
    /// Follows the machine, and never returns. Ending the agent ends no pod: nothing is done when this is dropped.
    pub(super) async fn follow(self) {
        let mut config = self.config.clone();
        loop {
            let periods = config.borrow_and_update().shutdown_grace_periods.clone();
            tokio::select! {
                () = self.follow_with(&periods) => {}
                () = self.other_periods(&mut config, &periods) => {
                    tracing::info!("the shutdown grace periods have changed");
                }
            }
        }
    }

    /// Waits until other periods are configured and the machine does not shut down: what has begun by one set of
    /// periods ends by it.
    async fn other_periods(&self, config: &mut watch::Receiver<Arc<Config>>, periods: &GracePeriods) {
        let mut shutting_down = self.shutting_down.subscribe();
        loop {
            if config.wait_for(|config| config.shutdown_grace_periods != *periods).await.is_err()
                || shutting_down.wait_for(|it| !it).await.is_err()
            {
                // Nobody is left who could change anything.
                return pending().await;
            }
            if config.borrow().shutdown_grace_periods != *periods {
                return;
            }
        }
    }

    async fn follow_with(&self, periods: &GracePeriods) {
        if periods.is_empty() {
            tracing::info!(
                "no shutdownGracePeriod is configured: a shutdown of the machine ends pods as it ends any process"
            );
            self.pods.set_shutting_down(false);
            return pending().await;
        }
        let (tell, mut changes) = mpsc::unbounded_channel();
        let following = coracle_shutdown::follow(periods.total(), tell);
        // Where there is no D-Bus, nothing more will be told.
        let following = async { following.then(|()| pending::<()>()).await };
        tokio::join!(following, self.act(periods, &mut changes));
    }

    async fn act(&self, periods: &GracePeriods, changes: &mut mpsc::UnboundedReceiver<Change>) {
        let mut ending: Option<BoxFuture<'_, ()>> = None;
        loop {
            let change = tokio::select! {
                Some(change) = changes.recv() => change,
                () = async { ending.as_mut().map_or_else(|| pending().boxed(), |it| it.boxed()).await } => {
                    ending = None;
                    continue;
                }
            };
            match change {
                Change::ShuttingDown(lock) => {
                    let before = ending.take();
                    self.begin();
                    // What is under way goes on, with its lock and with this one.
                    let all = before.unwrap_or_else(|| self.end(periods).boxed());
                    ending = Some(hold(lock, all).boxed());
                }
                Change::Running | Change::Unknown => {
                    // Groups whose turn has not come are left alone.
                    ending = None;
                    self.over();
                }
            }
        }
    }

    fn begin(&self) {
        if self.shutting_down.send_replace(true) {
            return;
        }
        tracing::info!("the machine shuts down: pods are ended by their priority, and none is started");
        self.pods.set_shutting_down(true);
        self.events.shutting_down();
    }

    fn over(&self) {
        self.pods.set_shutting_down(false);
        if self.shutting_down.send_replace(false) {
            tracing::info!("the machine does not shut down: pods are started again");
            self.events.shutdown_cancelled();
        }
    }

    /// Ends the pods that have not ended yet, one group after another.
    async fn end(&self, periods: &GracePeriods) {
        end_by_priority(&self.pods, periods).await;
        tracing::info!("the machine may shut down");
    }
}

/// Ends the pods that have not ended yet, those of the lowest priority first, each group within its time.
pub(super) async fn end_by_priority(pods: &Pods<NodePorts>, periods: &GracePeriods) {
    let active = pods.snapshot().into_iter().filter(|pod| pod.phase < WorkerPhase::Terminated);
    let groups = periods.groups(active.map(|pod| (pod.pod.spec.priority, pod.pod.uid.clone())));
    for Group { period, pods: group } in groups {
        let (priority, grace) = (period.priority, period.grace);
        tracing::info!(priority, count = group.len(), seconds = grace.as_secs(), "ending pods");
        let group: BTreeSet<PodUid> = group.into_iter().collect();
        for uid in &group {
            pods.evict(uid, Eviction::node_shutdown(grace));
        }
        if timeout(grace, pods.settled(&group)).await.is_err() {
            tracing::warn!(priority, "the time of these pods is over, and not all of them have ended");
        }
    }
}

/// Keeps the machine from shutting down until the pods have ended.
async fn hold(lock: Option<Inhibitor>, ending: BoxFuture<'_, ()>) {
    ending.await;
    drop(lock);
}
