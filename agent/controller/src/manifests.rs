//! The manifests of all sources of a node, and what they make together.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use coracle_model::{ConfigObject, ManifestSource};
use jiff::Timestamp;
use tokio::sync::watch;

use crate::catalog::Catalog;
use crate::claims::Owners;
use crate::kept::{Accepted, KeptConfigs};
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
    /// Where the objects that count are kept.
    kept: Option<KeptConfigs>,
    /// Those that are.
    saved: Option<Owners<ConfigObject>>,
}

// === impl Manifests ===

impl Manifests {
    /// Starts from `known`, the pods that run already: a manifest that is invalid now, or cannot be reached yet,
    /// takes nothing from them.
    pub fn new(known: impl IntoIterator<Item = Desired>) -> Arc<Self> {
        let catalog = Catalog::from_known(known);
        let state = State { catalog, expected: BTreeSet::new(), kept: None, saved: None };
        Arc::new(Self { state: Mutex::new(state), desired: watch::Sender::new(None) })
    }

    /// Starts from these objects, too, and keeps those that count from now on for the next agent. To be called
    /// before anything is read.
    pub fn keep(&self, known: impl IntoIterator<Item = Accepted>, kept: KeptConfigs) {
        let mut state = self.lock();
        known.into_iter().for_each(|accepted| state.catalog.add_known_config(accepted));
        state.kept = Some(kept);
    }

    /// What is desired. `None` until every directory was read: nothing can be said to be unwanted yet. An address
    /// is not waited for; what is known to come from it is desired until it answers.
    pub fn desired(&self) -> watch::Receiver<Option<Arc<DesiredState>>> {
        self.desired.subscribe()
    }

    /// Manifests are served at another address from now on, or nowhere. What is known to come from the old one is taken
    /// to come from the new one, until that has answered; without one it is wanted no longer.
    pub fn readdress(&self, old: &ManifestSource, new: Option<&ManifestSource>) {
        let mut state = self.lock();
        state.expected.remove(old);
        state.catalog.readdress(old, new);
        drop(state);
        self.publish();
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
        // Before anything is made of them.
        state.save();
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

// === impl State ===

impl State {
    /// Keeps the objects that count, where others are kept. What could not be kept is tried again with the next
    /// change; what was kept before is no longer true, and rather nothing is known then.
    fn save(&mut self) {
        let (Some(kept), accepted) = (&self.kept, self.catalog.accepted()) else { return };
        if self.saved.as_ref() == Some(accepted) {
            return;
        }
        let objects = accepted.values().map(|owner| (&owner.object, &owner.source));
        self.saved = match kept.save(objects) {
            Ok(()) => Some(accepted.clone()),
            Err(error) => {
                tracing::warn!(
                    %error,
                    "the accepted ConfigMaps and Secrets cannot be kept: an agent that is started now knows what \
                     their manifests say then"
                );
                kept.forget();
                None
            }
        };
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
    use crate::catalog::tests::{config, desired};

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

    #[test]
    fn an_address_may_be_another() {
        let source = |url: &str| ManifestSource::Url(url.into());
        let (first, second) = (source("http://a/"), source("http://b/"));
        let known = Desired { source: first.clone(), ..desired("1", "web") };
        let manifests = Manifests::new([known]);
        manifests.expect(&first);
        let seen = manifests.desired();
        let sources = || -> Vec<_> {
            let state = seen.borrow().clone().unwrap();
            state.pods.values().map(|one| one.source.clone()).collect()
        };
        let fault = |catalog: &mut Catalog| catalog.update_answer(&first, Err("wrong".to_owned()));
        manifests.with(fault);
        manifests.readdress(&first, Some(&second));
        assert_eq!(sources(), std::slice::from_ref(&second));
        assert_eq!(seen.borrow().as_ref().unwrap().problems, []);
        // Nothing is waited for that nobody asks any more.
        assert!(seen.borrow().as_ref().unwrap().configs.complete);
        manifests.readdress(&second, None);
        assert_eq!(sources(), []);
    }

    /// The data of the objects that count, by name, and what is wrong.
    fn seen(manifests: &Manifests) -> (Vec<(String, String)>, usize) {
        let state = manifests.desired().borrow().clone().unwrap();
        let text = |object: &ConfigObject| String::from_utf8_lossy(&object.data["key"]).into_owned();
        let objects = state.configs.objects.values();
        (objects.map(|one| (one.key.name.to_string(), text(one))).collect(), state.problems.len())
    }

    #[test]
    fn what_was_accepted_outlives_the_agent() {
        let place = tempfile::tempdir().unwrap();
        let source = |name: &str| ManifestSource::from(Path::new("/m").join(name).as_path());
        let start = || {
            let (manifests, kept) = (Manifests::new([]), KeptConfigs::new(place.path()));
            manifests.keep(kept.load().unwrap(), kept);
            manifests
        };
        let hold = |manifests: &Manifests, name: &str, objects: &[ConfigObject]| {
            let configs = objects.iter().cloned().map(Arc::new).collect();
            let found = crate::Found { pods: Vec::new(), configs };
            manifests.with(|catalog| catalog.update_file(&source(name), Some(Ok(found))));
        };
        let wrong = |manifests: &Manifests, name: &str| {
            manifests.with(|catalog| catalog.update_file(&source(name), Some(Err("wrong".to_owned()))));
        };
        let fixed = |value: &str| ConfigObject { immutable: true, ..config("fixed", value) };
        let names = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };

        let first = start();
        hold(&first, "a", &[fixed("1")]);
        hold(&first, "b", &[config("free", "1")]);
        hold(&first, "c", &[config("shared", "c")]);
        hold(&first, "0", &[config("shared", "0")]);
        first.publish();
        let before = names(&[("fixed", "1"), ("free", "1"), ("shared", "c")]);
        assert_eq!(seen(&first), (before.clone(), 2), "the earlier claimant has it");

        // Meanwhile one was changed that may not, one has become invalid, and the rest is as it was.
        let second = start();
        hold(&second, "0", &[config("shared", "0")]);
        hold(&second, "a", &[fixed("2")]);
        wrong(&second, "b");
        hold(&second, "c", &[config("shared", "c")]);
        second.publish();
        assert_eq!(seen(&second), (before, 4));
        hold(&second, "b", &[config("free", "2")]);
        second.publish();

        let third = start();
        wrong(&third, "b");
        third.with(|catalog| catalog.update_file(&source("a"), None));
        third.with(|catalog| catalog.update_file(&source("c"), None));
        hold(&third, "0", &[config("shared", "0")]);
        third.publish();
        assert_eq!(seen(&third).0, names(&[("free", "2"), ("shared", "0")]), "what went is gone");
        hold(&third, "a", &[fixed("3")]);
        third.publish();
        let fourth = start();
        fourth.publish();
        assert_eq!(seen(&fourth).0, names(&[("fixed", "3"), ("free", "2"), ("shared", "0")]));
    }
}
