//! The manifests of all sources of a node, and what they make together.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use coracle_model::ManifestSource;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::catalog::Catalog;
use crate::{Desired, DesiredState, Problem};

/// The manifests of all sources of a node. Each source puts in what it finds; what comes of all of them is
/// published.
#[derive(Debug)]
pub struct Manifests {
    state: Mutex<State>,
    desired: watch::Sender<Option<Arc<DesiredState>>>,
}

#[derive(Debug)]
struct State {
    catalog: Catalog,
    /// The places that were not read yet.
    expected: BTreeSet<ManifestSource>,
}

// === impl Manifests ===

impl Manifests {
    /// Starts from `known`, the pods that run already: a manifest that is invalid now, or cannot be reached yet,
    /// takes nothing from them.
    pub fn new(known: impl IntoIterator<Item = Desired>) -> Arc<Self> {
        let state = State { catalog: Catalog::from_known(known), expected: BTreeSet::new() };
        Arc::new(Self { state: Mutex::new(state), desired: watch::Sender::new(None) })
    }

    /// What is desired. `None` until every directory was read: nothing can be said to be unwanted yet. An address
    /// is not waited for; what is known to come from it is desired until it answers.
    pub fn desired(&self) -> watch::Receiver<Option<Arc<DesiredState>>> {
        self.desired.subscribe()
    }

    /// Adds a place that is to be read.
    pub(crate) fn expect(&self, place: &ManifestSource) {
        self.lock().expected.insert(place.clone());
    }

    /// A place was read, or is not worth waiting for.
    pub(crate) fn was_read(&self, place: &ManifestSource) {
        self.lock().expected.remove(place);
    }

    /// Looks at the catalog or changes it.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Catalog) -> T) -> T {
        work(&mut self.lock().catalog)
    }

    /// Publishes what is desired now, if it is something else than before.
    pub(crate) fn publish(&self) {
        let mut state = self.lock();
        if !state.expected.iter().all(ManifestSource::is_url) {
            return;
        }
        let complete = state.expected.is_empty();
        let desired = state.catalog.resolve(complete, Timestamp::now());
        // Still under the lock: of two that publish, the later one has seen more.
        self.desired.send_if_modified(|before| {
            if before.as_deref() == Some(&desired) {
                return false;
            }
            log_problems(before.as_deref().map_or(&[], |before| &before.problems), &desired.problems);
            *before = Some(Arc::new(desired));
            true
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log_problems(before: &[Problem], now: &[Problem]) {
    for problem in now.iter().filter(|problem| !before.contains(problem)) {
        tracing::warn!(source = %problem.source, "{}", problem.message);
    }
    let same = |one: &Problem, other: &Problem| (&one.source, one.subject) == (&other.source, other.subject);
    for problem in before.iter().filter(|problem| !now.iter().any(|other| same(problem, other))) {
        tracing::info!(source = %problem.source, "is in order again");
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::catalog::tests::desired;

    #[test]
    fn nothing_is_unwanted_before_every_directory_was_read() {
        let manifests = Manifests::new([desired("1", "web")]);
        let (directory, url) =
            (ManifestSource::from(Path::new("/m")), ManifestSource::Url("http://h/".into()));
        let seen = manifests.desired();
        let complete = || seen.borrow().as_ref().map(|state| state.configs.complete);
        manifests.expect(&directory);
        manifests.expect(&url);
        manifests.publish();
        assert_eq!(complete(), None);
        manifests.was_read(&directory);
        manifests.publish();
        assert_eq!(complete(), Some(false));
        assert_eq!(seen.borrow().as_ref().map(|state| state.pods.len()), Some(1));
        manifests.was_read(&url);
        manifests.publish();
        assert_eq!(complete(), Some(true));
    }
}
