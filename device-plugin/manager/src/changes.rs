//! Who is told of what changed.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use coracle_model::ExtendedResource;
use tokio::sync::Notify;

/// Resources that changed: their devices, their plugin, or who has them. What changes again before it is asked for is told
/// once.
#[derive(Debug)]
pub struct Changes(Arc<Pending>);

#[derive(Debug, Default)]
struct Pending {
    resources: Mutex<BTreeSet<ExtendedResource>>,
    told: Notify,
}

/// Everybody who is told.
#[derive(Debug, Default)]
pub(crate) struct Listeners(Vec<Weak<Pending>>);

// === impl Changes ===

impl Changes {
    /// Waits until something has changed since the last call.
    pub async fn next(&mut self) -> BTreeSet<ExtendedResource> {
        loop {
            let changed =
                std::mem::take(&mut *self.0.resources.lock().unwrap_or_else(PoisonError::into_inner));
            if !changed.is_empty() {
                return changed;
            }
            self.0.told.notified().await;
        }
    }
}

// === impl Listeners ===

impl Listeners {
    pub(crate) fn add(&mut self) -> Changes {
        let pending = Arc::new(Pending::default());
        self.0.push(Arc::downgrade(&pending));
        Changes(pending)
    }

    pub(crate) fn tell(&mut self, resource: &ExtendedResource) {
        self.0.retain(|listener| {
            let Some(listener) = listener.upgrade() else { return false };
            listener.resources.lock().unwrap_or_else(PoisonError::into_inner).insert(resource.clone());
            listener.told.notify_one();
            true
        });
    }
}
