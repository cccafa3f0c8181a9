//! Kubernetes YAML and JSON to and from the model: decode, default, validate.
//!
//! [`decode`] reads a manifest in the way `kubectl` and the API server would: YAML by the rules of
//! their parser or JSON, several documents or a `List`, their defaults, their checks, their words. It
//! then applies this node's own rules: what Kubernetes knows and the node does not serve yet is refused
//! by name, and what only a scheduler or control plane acts on is kept in [`coracle_model::Pod::object`].
//!
//! ```text
//! bytes -> yaml | json -> node (tree with places) -> document (kinds, lists)
//!       -> de (wire types, unknown fields) -> pod (defaults, checks, model)
//! ```
//!
//! **Invariant:** the work and the memory a manifest costs are bounded by [`MAX_BYTES`], [`MAX_DEPTH`]
//! and [`MAX_NODES`], whatever its bytes are. **Invariant:** every fault is reported with line, column
//! and field path, and as many as can be found in one reading.

mod de;
mod document;
pub mod encode;
mod error;
mod file;
mod json;
mod node;
mod path;
mod pod;
mod scalar;
mod uid;
mod yaml;

use std::collections::{BTreeMap, HashMap};

use coracle_model::Pod;
use k8s_openapi::api::core::v1;

pub use error::{Diagnostic, ManifestError};
pub use file::{decode_file, read_file};

use document::Document;
use error::{Fault, Faults};
use node::Location;
use path::{FieldPath, Segment};

/// The most bytes a manifest may have: 4 MiB. The API server takes 3 MiB for one object; a list of all
/// pods a node can hold stays below 2 MiB.
pub const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// How deep lists and mappings may be nested. A pod needs 12 levels.
pub const MAX_DEPTH: usize = 64;

/// The most values a manifest may hold, those that aliases repeat among them. A pod has about 100.
pub const MAX_NODES: usize = 200_000;

const CONFIG_HASH: &str = "kubernetes.io/config.hash";
const CONFIG_SOURCE: &str = "kubernetes.io/config.source";

/// One document of a manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The pod, defaulted and validated.
    pub pod: Pod,
    /// The line its document begins on, from 1.
    pub line: u32,
}

/// Decodes a manifest. `source` names it in messages and is part of what UIDs are derived from; a file
/// that is moved holds other pods than before.
///
/// A pod's name stays as written: no node name is appended to it. Its UID is `metadata.uid`, or else
/// derived from the source, namespace and name, and the document as written.
///
/// # Errors
/// [`ManifestError::TooLarge`], or [`ManifestError::Invalid`] with everything that is wrong. One wrong
/// document refuses the whole manifest.
pub fn decode(source: &str, bytes: &[u8]) -> Result<Vec<Decoded>, ManifestError> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err(ManifestError::TooLarge { name: source.to_owned(), limit: MAX_BYTES });
    }
    let mut faults = Faults::default();
    let mut decoded = Vec::new();
    if let Err(fault) = decode_all(source, bytes, &mut faults, &mut decoded) {
        faults.add(fault);
    }
    if faults.is_empty() { Ok(decoded) } else { Err(ManifestError::Invalid(diagnostics(source, faults))) }
}

fn diagnostics(source: &str, faults: Faults) -> Vec<Diagnostic> {
    let mut diagnostics: Vec<_> = faults
        .0
        .into_iter()
        .map(|fault| {
            let at = fault.at.unwrap_or(Location::START);
            Diagnostic {
                source: source.to_owned(),
                line: at.line,
                column: at.column,
                path: fault.path.to_string(),
                message: fault.message,
            }
        })
        .collect();
    diagnostics.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
    diagnostics
}

fn decode_all(
    source: &str,
    bytes: &[u8],
    faults: &mut Faults,
    decoded: &mut Vec<Decoded>,
) -> Result<(), Fault> {
    let text = text(bytes)?;
    let roots = if json::looks_like(text) { read_braced(text, faults)? } else { yaml::read(text, faults)? };
    let (mut keys, mut uids) = (HashMap::new(), HashMap::new());
    for document in document::split(roots, faults) {
        let at = document.node.at;
        let prefix = document.prefix.clone();
        let Some(pod) = decode_pod(source, document, faults) else { continue };
        let mut taken = |field: &str, value: &dyn std::fmt::Display, line: u32| {
            let path = prefix.iter().cloned();
            let path = path.chain(["metadata", field].map(|name| Segment::Field(name.to_owned()))).collect();
            let message =
                format!("Duplicate value: \"{value}\": a pod with it stands already on line {line}");
            faults.add(Fault { path: FieldPath(path), at: Some(at), message });
        };
        if let Some(line) = keys.insert(pod.key.clone(), at.line) {
            taken("name", &pod.key, line);
        } else if let Some(line) = uids.insert(pod.uid.clone(), at.line) {
            taken("uid", &pod.uid, line);
        }
        decoded.push(Decoded { pod, line: at.line });
    }
    Ok(())
}

/// The input as text without a byte order mark.
fn text(bytes: &[u8]) -> Result<&str, Fault> {
    let refuse =
        |at, message: &str| Fault { path: FieldPath::default(), at: Some(at), message: message.to_owned() };
    if let [0xff, 0xfe, ..] | [0xfe, 0xff, ..] = bytes {
        return Err(refuse(Location::START, "the text is UTF-16; a manifest must be UTF-8"));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let before = std::str::from_utf8(valid).unwrap_or_default();
        refuse(Location::of_offset(before, before.len()), "not valid UTF-8")
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // YAML 1.2, 5.1: the characters a document may not hold.
    let control = |c: char| {
        (c < ' ' && !matches!(c, '\t' | '\n' | '\r')) || matches!(c, '\u{7f}'..='\u{9f}') && c != '\u{85}'
    };
    match text.find(control) {
        Some(offset) => Err(refuse(Location::of_offset(text, offset), "a control character is not allowed")),
        None => Ok(text),
    }
}

/// A text that begins with a brace is JSON, or YAML in flow style (KYAML among it).
fn read_braced<'a>(text: &'a str, faults: &mut Faults) -> Result<Vec<node::Node<'a>>, Fault> {
    let mut json_faults = Faults::default();
    match json::read(text, &mut json_faults) {
        Ok(roots) => {
            json_faults.0.into_iter().for_each(|fault| faults.add(fault));
            Ok(roots)
        }
        Err(fault) => yaml::read(text, faults).map_err(|_| fault),
    }
}

/// One pod; `None` when `faults` grew.
fn decode_pod(source: &str, mut document: Document<'_>, faults: &mut Faults) -> Option<Pod> {
    let mut own = Faults::default();
    let pod = read_pod(source, &mut document, &mut own);
    let clean = own.is_empty();
    for mut fault in own.0 {
        fault.at.get_or_insert_with(|| document.node.locate(&fault.path));
        fault.path.0.splice(0..0, document.prefix.iter().cloned());
        faults.add(fault);
    }
    pod.filter(|_| clean)
}

fn read_pod(source: &str, document: &mut Document<'_>, faults: &mut Faults) -> Option<Pod> {
    let mut object = de::pod(&mut document.node, faults)?;
    let parts = pod::convert(&mut object, faults)?;
    let pod::Metadata { key, labels, mut annotations } = parts.metadata;
    let identity = uid::Identity::of(source, &key, &document.node);
    let refuse = |faults: &mut Faults, error: &dyn std::fmt::Display| {
        faults.push(&path::Path::ROOT, format!("the pod cannot be written as JSON: {error}"));
    };
    let uid = match parts.uid {
        Some(uid) => uid,
        None => identity.uid().map_err(|error| refuse(faults, &error)).ok()?,
    };
    annotations.insert(CONFIG_HASH.to_owned(), identity.hash);
    annotations.insert(CONFIG_SOURCE.to_owned(), "file".to_owned());
    let object =
        write_object(&mut object, &uid, &annotations).map_err(|error| refuse(faults, &error)).ok()?;
    Some(Pod { uid, key, labels, annotations, spec: parts.spec, object })
}

fn write_object(
    pod: &mut v1::Pod,
    uid: &coracle_model::PodUid,
    annotations: &BTreeMap<String, String>,
) -> serde_json::Result<String> {
    pod.metadata.uid = Some(uid.to_string());
    pod.metadata.annotations = Some(annotations.clone());
    serde_json::to_string(pod)
}
