//! A worker's mailbox: what it was told last, not a queue of it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::ephemeral::Addition;

/// What a worker was told since it looked last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Orders {
    /// The pod is to be removed; its containers have at most this long.
    pub(crate) terminate: Option<Duration>,
    /// The pod is to be ended, and has failed with that.
    pub(crate) evict: Option<Eviction>,
    /// The node does not shut down any more: what only that has ended begins again.
    pub(crate) begin_again: bool,
    /// Nobody has the ports of the host any more that the pod lacks.
    pub(crate) ports_free: bool,
    /// The images changed: those that could not be had are tried again.
    pub(crate) retry_images: bool,
    /// ConfigMaps or Secrets of the pod changed: what waited for them is tried again, volumes are refreshed.
    pub(crate) config_changed: bool,
    /// The devices it has, or waits for, changed.
    pub(crate) devices_changed: bool,
    /// The worker ends, and leaves the pod as it is.
    pub(crate) detach: bool,
}

/// The end of a pod for the node's sake: as in the kubelet it fails, and is not removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// `status.reason`, and that of the event: `Evicted`, or `Terminated` when the node shuts down.
    pub reason: &'static str,
    /// For people: of the status, of the event, and of the condition `DisruptionTarget`.
    pub message: String,
    /// What its containers have until they are killed; the pod's grace period when absent or longer.
    pub grace: Option<Duration>,
    /// It ends with the node, and begins again with it: see [`PodRecord::begins_again`](crate::PodRecord).
    pub shutdown: bool,
}

// === impl Eviction ===

impl Eviction {
    /// The end of a pod with the node, in the kubelet's words.
    pub fn node_shutdown(grace: Duration) -> Self {
        Self {
            reason: "Terminated",
            message: "Pod was terminated in response to imminent node shutdown.".to_owned(),
            grace: Some(grace),
            shutdown: true,
        }
    }
}

/// The mailbox. Whatever is put in wakes the worker; what is put in twice is read once.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    orders: Mutex<Orders>,
    /// In the order in which they came: each is answered.
    additions: Mutex<Vec<Addition>>,
    waker: Notify,
}

impl Inbox {
    /// Asks for the pod's removal. Of two requests the shorter grace period counts.
    pub(crate) fn terminate(&self, grace: Duration) {
        let mut orders = self.lock();
        orders.terminate = Some(orders.terminate.map_or(grace, |before| before.min(grace)));
        self.waker.notify_one();
    }

    /// Asks for the pod's end. The first request gives the reason, the shortest grace period counts.
    pub(crate) fn evict(&self, eviction: Eviction) {
        let mut orders = self.lock();
        orders.begin_again &= !eviction.shutdown;
        match &mut orders.evict {
            Some(before) => before.grace = before.grace.into_iter().chain(eviction.grace).min(),
            before => *before = Some(eviction),
        }
        self.waker.notify_one();
    }

    /// Has a pod begin again that only the node's shutdown has ended.
    pub(crate) fn begin_again(&self) {
        self.lock().begin_again = true;
        self.waker.notify_one();
    }

    /// Has a pod go on that lacked ports of the host.
    pub(crate) fn ports_free(&self) {
        self.lock().ports_free = true;
        self.waker.notify_one();
    }

    /// Has images that failed tried again.
    pub(crate) fn retry_images(&self) {
        self.lock().retry_images = true;
        self.waker.notify_one();
    }

    /// Has the worker act on what the pod's ConfigMaps and Secrets are now.
    pub(crate) fn config_changed(&self) {
        self.lock().config_changed = true;
        self.waker.notify_one();
    }

    /// Has the worker look at what devices there are.
    pub(crate) fn devices_changed(&self) {
        self.lock().devices_changed = true;
        self.waker.notify_one();
    }

    /// Has an ephemeral container added.
    pub(crate) fn add(&self, addition: Addition) {
        self.additions.lock().unwrap_or_else(PoisonError::into_inner).push(addition);
        self.waker.notify_one();
    }

    /// Ends the worker.
    pub(crate) fn detach(&self) {
        self.lock().detach = true;
        self.waker.notify_one();
    }

    /// Has the worker look again.
    pub(crate) fn notify(&self) {
        self.waker.notify_one();
    }

    /// What came since the last call.
    pub(crate) fn take(&self) -> Orders {
        std::mem::take(&mut *self.lock())
    }

    /// The ephemeral containers to be added since the last call.
    pub(crate) fn take_additions(&self) -> Vec<Addition> {
        std::mem::take(&mut *self.additions.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns once something came. What came before is not lost.
    pub(crate) async fn wait(&self) {
        self.waker.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shorter_grace_counts() {
        let inbox = Inbox::default();
        for (first, second, counts) in [(5, 1, 1), (1, 5, 1), (0, 5, 0)] {
            inbox.terminate(Duration::from_secs(first));
            inbox.terminate(Duration::from_secs(second));
            assert_eq!(inbox.take().terminate, Some(Duration::from_secs(counts)), "{first}, then {second}");
        }
        assert_eq!(inbox.take(), Orders::default());
    }
}
