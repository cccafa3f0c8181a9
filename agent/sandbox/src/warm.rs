//! Letting pass beforehand what the kernel has the first process of a pod wait for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use coracle_cgroup::Host;

use crate::runtime::Runtime;

/// Says that a process will soon be moved into a cgroup.
pub(crate) struct WarmAttach {
    host: Arc<Host>,
    /// One is enough: all moves that come close together share it.
    under_way: Arc<AtomicBool>,
}

impl Runtime {
    /// Says that a pod or container is about to be started, so that what the kernel has its first process
    /// wait for passes while other work is done. Returns at once; nothing but time depends on it.
    ///
    /// To be called inside the asynchronous runtime.
    pub fn expect_start(&self) {
        self.inner.warm.begin();
    }
}

// === impl WarmAttach ===

impl WarmAttach {
    pub(crate) fn new(host: &Arc<Host>) -> Self {
        Self { host: Arc::clone(host), under_way: Arc::default() }
    }

    /// Begins, on a thread that may block.
    pub(crate) fn begin(&self) {
        if self.under_way.swap(true, Ordering::Relaxed) {
            return;
        }
        let (host, under_way) = (Arc::clone(&self.host), Arc::clone(&self.under_way));
        tokio::task::spawn_blocking(move || {
            if let Err(error) = host.warm_attach() {
                tracing::debug!(%error, "containers start more slowly");
            }
            under_way.store(false, Ordering::Relaxed);
        });
    }
}
