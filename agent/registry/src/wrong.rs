//! Who has sent blobs that were not what they should be.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use coracle_model::Digest;

/// More than so many are forgotten: whoever sends a wrong blob again is noticed again.
const MOST: usize = 1000;

/// Remembers who sends blobs, and of whom they were wrong, so that a broken mirror does not stand in the way for ever.
#[derive(Default)]
pub(crate) struct Senders {
    /// Who has sent some of a blob since it was last found wrong.
    senders: Mutex<Hosts>,
    /// Who has sent one that was wrong.
    wrong: Mutex<Hosts>,
}

type Hosts = HashMap<Digest, BTreeSet<String>>;

// === impl Senders ===

impl Senders {
    /// A host begins to send a blob.
    pub(crate) fn sends(&self, digest: Digest, host: &str) {
        note(&self.senders, digest, [host.to_owned()]);
    }

    /// The hosts that have sent some of a blob, as far as it is not known to be wrong.
    pub(crate) fn of(&self, digest: Digest) -> BTreeSet<String> {
        lock(&self.senders).get(&digest).cloned().unwrap_or_default()
    }

    /// A blob was wrong; the hosts it is from.
    pub(crate) fn was_wrong(&self, digest: Digest) -> BTreeSet<String> {
        let hosts = lock(&self.senders).remove(&digest).unwrap_or_default();
        note(&self.wrong, digest, hosts.iter().cloned());
        hosts
    }

    /// Whether a host has sent this blob wrong.
    pub(crate) fn is_wrong(&self, digest: Digest, host: &str) -> bool {
        lock(&self.wrong).get(&digest).is_some_and(|hosts| hosts.contains(host))
    }
}

fn note(all: &Mutex<Hosts>, digest: Digest, hosts: impl IntoIterator<Item = String>) {
    let mut all = lock(all);
    if all.len() >= MOST && !all.contains_key(&digest) {
        all.clear();
    }
    all.entry(digest).or_default().extend(hosts);
}

fn lock(all: &Mutex<Hosts>) -> MutexGuard<'_, Hosts> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}
