//! A wire pod, defaulted in place, checked, and turned into the model's.
//!
//! The rules are those of the API server (its defaults and its validation), then those of this node:
//! what it cannot do yet is refused by name. Every wire struct is taken apart without `..`, so a field
//! that a newer API brings does not compile until someone has decided what happens to it.

mod container;
mod dns;
mod environment;
mod ephemeral;
mod handler;
mod lifecycle;
mod metadata;
mod mount;
mod port;
mod priority;
mod probe;
mod projected;
mod resources;
mod restart;
mod security;
mod selector;
mod spec;
mod volume;

use coracle_document::{Faults, Path};
use coracle_model::{PodSpec, PodUid};
use k8s_openapi::api::core::v1;

use crate::metadata::Metadata;

pub(crate) use ephemeral::convert as convert_ephemeral;

/// What a pod's document says, before its UID is settled.
pub(crate) struct Parts {
    pub(crate) metadata: Metadata,
    /// `metadata.uid`.
    pub(crate) uid: Option<PodUid>,
    pub(crate) spec: PodSpec,
}

/// Defaults `pod` in place and takes it into the model. `None` when `faults` grew.
pub(crate) fn convert(pod: &mut v1::Pod, faults: &mut Faults) -> Option<Parts> {
    let v1::Pod { metadata, spec, status } = pod;
    // What some other node said of the pod; this node says its own.
    *status = None;
    let root = Path::ROOT;
    let metadata = metadata::convert(metadata, &root.child("metadata"), faults);
    let spec_path = root.child("spec");
    let Some(spec) = spec else {
        faults.required(&spec_path, "");
        return None;
    };
    let spec = spec::convert(spec, &spec_path, faults);
    let (metadata, uid) = metadata?;
    Some(Parts { metadata, uid, spec: spec? })
}

/// A text that is there and not empty; else the default takes its place. To Kubernetes both are one.
fn or_default<'a>(text: &'a mut Option<String>, default: &str) -> &'a mut String {
    let text = text.get_or_insert_default();
    if text.is_empty() {
        default.clone_into(text);
    }
    text
}

/// Whether a list, map or text is there and not empty. Empty ones mean nothing in Kubernetes' API.
pub(crate) fn filled<T: Emptiness>(value: Option<&T>) -> bool {
    value.is_some_and(|value| !value.is_empty())
}

pub(crate) trait Emptiness {
    fn is_empty(&self) -> bool;
}

impl<T> Emptiness for Vec<T> {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }
}

impl<K, V> Emptiness for std::collections::BTreeMap<K, V> {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }
}

impl Emptiness for String {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }
}

/// All of them, or `None` when one is missing. Unlike `collect` of the standard library this goes on after
/// the first that is missing, so that the faults of the others are found too.
fn collect<T>(items: impl IntoIterator<Item = Option<T>>) -> Option<Vec<T>> {
    let mut missing = false;
    let found: Vec<T> = items.into_iter().inspect(|item| missing |= item.is_none()).flatten().collect();
    (!missing).then_some(found)
}

/// Text that reaches the kernel ends at a NUL byte there.
fn check_nul(text: &str, path: &Path<'_>, faults: &mut Faults) {
    if text.contains('\0') {
        faults.invalid(path, text, "must not contain a NUL byte");
    }
}

/// One of a field's words, or a fault.
fn word<T: Copy>(value: &str, words: &[(&str, T)], path: &Path<'_>, faults: &mut Faults) -> Option<T> {
    let found = words.iter().find(|(name, _)| *name == value).map(|(_, meaning)| *meaning);
    if found.is_none() {
        let names: Vec<_> = words.iter().map(|(name, _)| *name).collect();
        faults.unsupported_value(path, value, &names);
    }
    found
}
