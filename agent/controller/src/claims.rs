//! Who of several manifests has what they all define.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use coracle_model::{ConfigKey, ConfigObject, ManifestSource, Pod, PodKey};

/// What is wrong, by manifest.
pub(crate) type Faults = BTreeMap<ManifestSource, Vec<String>>;

/// Something that manifests define, under a name that only one of them can have.
pub(crate) trait Defined: Clone + PartialEq {
    /// What it is known by.
    type Key: Ord + Clone;

    fn key(&self) -> &Self::Key;

    /// Which kind of object.
    fn kind(key: &Self::Key) -> &'static str;

    /// Kind, namespace and name.
    fn describe(key: &Self::Key) -> String;
}

/// An object and the manifest that defines it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Claim<T> {
    pub(crate) object: Arc<T>,
    pub(crate) source: ManifestSource,
}

/// What one manifest defines, and since when: the earlier claimant has precedence.
#[derive(Debug)]
pub(crate) struct Definitions<T: Defined> {
    pub(crate) objects: Vec<Arc<T>>,
    since: BTreeMap<T::Key, u64>,
}

/// Who has what now.
pub(crate) type Owners<T> = BTreeMap<<T as Defined>::Key, Claim<T>>;

// === impl Defined ===

impl Defined for Pod {
    type Key = PodKey;

    fn key(&self) -> &PodKey {
        &self.key
    }

    fn kind(_: &PodKey) -> &'static str {
        "pod"
    }

    fn describe(key: &PodKey) -> String {
        format!("pod {key}")
    }
}

impl Defined for ConfigObject {
    type Key = ConfigKey;

    fn key(&self) -> &ConfigKey {
        &self.key
    }

    fn kind(key: &ConfigKey) -> &'static str {
        key.kind.as_str()
    }

    fn describe(key: &ConfigKey) -> String {
        key.to_string()
    }
}

// === impl Definitions ===

impl<T: Defined> Default for Definitions<T> {
    fn default() -> Self {
        Self { objects: Vec::new(), since: BTreeMap::new() }
    }
}

impl<T: Defined> Definitions<T> {
    /// Adds one that was there before everything.
    pub(crate) fn add_known(&mut self, object: Arc<T>) {
        self.since.insert(object.key().clone(), 0);
        self.objects.push(object);
    }

    /// Takes these instead of those before. What is defined again keeps its time.
    pub(crate) fn replace(&mut self, objects: Vec<Arc<T>>, turn: u64) {
        let since =
            |object: &Arc<T>| (object.key().clone(), self.since.get(object.key()).copied().unwrap_or(turn));
        self.since = objects.iter().map(since).collect();
        self.objects = objects;
    }
}

/// Weighs all claims. `before` are the owners until now: who has something already, as it is, keeps it as
/// long as its manifest claims it; else the earliest claimant has it.
pub(crate) fn settle<'a, T: Defined + 'a>(
    manifests: impl Iterator<Item = (&'a ManifestSource, &'a Definitions<T>)>,
    before: &Owners<T>,
    faults: &mut Faults,
) -> Owners<T> {
    let mut claims: BTreeMap<T::Key, Vec<(u64, Claim<T>)>> = BTreeMap::new();
    for (source, manifest) in manifests {
        for object in &manifest.objects {
            let since = manifest.since.get(object.key()).copied().unwrap_or(u64::MAX);
            let claim = Claim { object: Arc::clone(object), source: source.clone() };
            claims.entry(object.key().clone()).or_default().push((since, claim));
        }
    }
    let settled = claims.into_iter().map(|(key, mut all)| {
        // Stable: of one time, in order of source and of place in it.
        all.sort_by_key(|(since, _)| *since);
        let owner = match &all[..] {
            [(_, only)] => only.clone(),
            all => {
                let stays = before.get(&key).filter(|one| all.iter().any(|(_, it)| it.source == one.source));
                let owner = stays.unwrap_or(&all[0].1).clone();
                for (_, claim) in all {
                    let text = conflict::<T>(&key, claim, all, &owner);
                    faults.entry(claim.source.clone()).or_default().push(text);
                }
                owner
            }
        };
        (key, owner)
    });
    settled.collect()
}

fn conflict<T: Defined>(key: &T::Key, claim: &Claim<T>, all: &[(u64, Claim<T>)], owner: &Claim<T>) -> String {
    let others: BTreeSet<_> =
        all.iter().map(|(_, one)| &one.source).filter(|source| **source != claim.source).collect();
    let elsewhere = match others.is_empty() {
        true => "more than once there".to_owned(),
        false => {
            let others: Vec<_> = others.iter().map(ToString::to_string).collect();
            format!("also in {}", others.join(", "))
        }
    };
    format!(
        "{}: {} is defined {elsewhere}; the {} from {} stays as it is until only one defines it",
        claim.source,
        T::describe(key),
        T::kind(key),
        owner.source
    )
}
