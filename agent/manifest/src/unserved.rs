//! What is read and checked, and not served by the node yet.
//!
//! A field is accepted once the node acts on it, and not before: one that was taken and ignored would be
//! a lie. Everything here is refused by name. **Whoever makes the node serve a feature deletes its line.**

use coracle_model::ConfigKind;

use crate::document::{Document, Kind};
use crate::error::{Fault, Faults};
use crate::path::{FieldPath, Segment};

/// Kinds of objects.
const KINDS: &[Kind] = &[Kind::Config(ConfigKind::ConfigMap), Kind::Config(ConfigKind::Secret)];

/// Which kinds the node takes, for a message.
pub(crate) fn accepted_kinds() -> String {
    let served = Kind::ALL.into_iter().filter(|kind| !KINDS.contains(kind));
    let words: Vec<_> = served.map(|kind| format!("v1 {}", kind.as_str())).collect();
    format!("this node accepts {} and v1 List", words.join(", "))
}

/// Refuses a document whose kind is not served.
pub(crate) fn check_kind(document: &Document<'_>, faults: &mut Faults) {
    if KINDS.contains(&document.kind) {
        let kind = [Segment::Field("kind".to_owned())];
        let at = Some(document.node.locate(&FieldPath(kind.to_vec())));
        let path = FieldPath(document.prefix.iter().cloned().chain(kind).collect());
        let what = document.kind.as_str();
        let message = format!("{what} manifests are not supported yet: {}", accepted_kinds());
        faults.add(Fault { path, at, message });
    }
}
