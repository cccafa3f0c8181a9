//! Kubernetes YAML and JSON to and from the model: decode, default, validate.
//!
//! [`decode`] reads a manifest in the way `kubectl` and the API server would: YAML by the rules of
//! their parser or JSON, several documents or a `List`, their defaults, their checks, their words. It
//! then applies this node's own rules: what Kubernetes knows and the node does not serve yet is refused
//! by name, and what only a scheduler or control plane acts on is kept in [`coracle_model::Pod::object`].
//!
//! ```text
//! bytes -> yaml | json -> coracle_document -> document (kinds, lists)
//!       -> wire types -> pod | config (defaults, checks, model)
//! ```
//!
//! **Invariant:** the work and the memory a manifest costs are bounded by [`MAX_BYTES`], [`MAX_DEPTH`]
//! and [`MAX_NODES`], whatever its bytes are. **Invariant:** every fault is reported with line, column
//! and field path, and as many as can be found in one reading. **Invariant:** no fault shows a value of a
//! Secret.

mod config;
mod document;
pub mod encode;
mod ephemeral;
mod error;
mod file;
mod metadata;
mod pod;
mod syntax;
mod uid;

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use coracle_document::{Fault, Faults, FieldPath, Path, Segment, deserialize};
use coracle_model::{ConfigKey, ConfigKind, ConfigObject, Pod, PodKey, PodUid};
use k8s_openapi::api::core::v1;

pub use ephemeral::decode_ephemeral;
pub use error::ManifestError;
pub use file::{decode_file, read_file};

use document::{Document, Kind};

pub use coracle_document::{Diagnostic, MAX_BYTES, MAX_DEPTH, MAX_NODES};

const CONFIG_HASH: &str = "kubernetes.io/config.hash";
const CONFIG_SOURCE: &str = "kubernetes.io/config.source";

/// What a manifest holds, each in the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// The pods, defaulted and validated. No two have one namespace and name, or one UID.
    pub pods: Vec<Pod>,
    /// The ConfigMaps and Secrets, validated. No two have one key.
    pub configs: Vec<ConfigObject>,
    /// How many documents it has; a list is one, however little it holds.
    pub documents: usize,
}

/// By which way a manifest came: `kubernetes.io/config.source`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// From a file.
    #[default]
    File,
    /// From an address.
    Http,
}

/// What of a pod's manifest, as it was written, differs from one version of it to the next (the annotation
/// `kubernetes.io/config.hash`); `None` for one that was made of no manifest.
pub fn config_hash(pod: &Pod) -> Option<&str> {
    pod.annotations.get(CONFIG_HASH).map(String::as_str)
}

/// Decodes a manifest of a file. `source` names it in messages and is part of what UIDs are derived from; a file
/// that is moved holds other pods than before.
///
/// A pod's name stays as written: no node name is appended to it. Its UID is `metadata.uid`, or else
/// derived from the source, namespace and name, and the document as written.
///
/// # Errors
/// [`ManifestError::TooLarge`], or [`ManifestError::Invalid`] with everything that is wrong. One wrong
/// document refuses the whole manifest.
pub fn decode(source: &str, bytes: &[u8]) -> Result<Decoded, ManifestError> {
    decode_from(Origin::File, source, bytes)
}

/// Decodes a manifest as [`decode`] does, of whatever origin.
///
/// # Errors
/// As [`decode`].
pub fn decode_from(origin: Origin, source: &str, bytes: &[u8]) -> Result<Decoded, ManifestError> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err(ManifestError::TooLarge { name: source.to_owned(), limit: MAX_BYTES });
    }
    let mut decoder = Decoder { source, origin, ..Decoder::default() };
    if let Err(fault) = decoder.decode(bytes) {
        decoder.faults.add(fault);
    }
    let Decoder { faults, decoded, .. } = decoder;
    if faults.is_empty() { Ok(decoded) } else { Err(ManifestError::Invalid(faults.in_file(source))) }
}

/// One reading of one manifest.
#[derive(Default)]
struct Decoder<'a> {
    source: &'a str,
    origin: Origin,
    faults: Faults,
    decoded: Decoded,
    /// The lines on which the objects that were found begin.
    pods: HashMap<PodKey, u32>,
    uids: HashMap<PodUid, u32>,
    configs: HashMap<ConfigKey, u32>,
}

// === impl Origin ===

impl Origin {
    /// The kubelet's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Http => "http",
        }
    }
}

// === impl Decoder ===

impl Decoder<'_> {
    fn decode(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let faults = &mut self.faults;
        let roots = coracle_document::read(bytes, faults)?;
        self.decoded.documents = roots.len();
        for document in document::split(roots, faults) {
            match document.kind {
                Kind::Pod => self.pod(document),
                Kind::Config(kind) => self.config(kind, document),
            }
        }
        Ok(())
    }

    fn pod(&mut self, mut document: Document<'_>) {
        let (source, origin) = (self.source, self.origin);
        let read = |document: &mut Document<'_>, faults: &mut Faults| {
            let mut object = deserialize::<v1::Pod>(&mut document.node, faults)?;
            let parts = pod::convert(&mut object, faults);
            finish_pod((source, origin), document, &mut object, parts?, faults)
        };
        let Some(pod) = self.read(&mut document, read) else { return };
        let line = document.node.at.line;
        if let Some(first) = self.pods.insert(pod.key.clone(), line) {
            self.taken(&document, "name", &pod.key, "a pod", first);
        } else if let Some(first) = self.uids.insert(pod.uid.clone(), line) {
            self.taken(&document, "uid", &pod.uid, "a pod", first);
        }
        self.decoded.pods.push(pod);
    }

    fn config(&mut self, kind: ConfigKind, mut document: Document<'_>) {
        let read =
            |document: &mut Document<'_>, faults: &mut Faults| config::read(kind, &mut document.node, faults);
        let Some(object) = self.read(&mut document, read) else { return };
        if let Some(first) = self.configs.insert(object.key.clone(), document.node.at.line) {
            let ConfigKey { kind, namespace, name } = &object.key;
            let value = format_args!("{namespace}/{name}").to_string();
            self.taken(&document, "name", &value, &format!("a {}", kind.as_str()), first);
        }
        self.decoded.configs.push(object);
    }

    /// Reads one document; `None` when there was a fault.
    fn read<'d, T>(
        &mut self,
        document: &mut Document<'d>,
        read: impl FnOnce(&mut Document<'d>, &mut Faults) -> Option<T>,
    ) -> Option<T> {
        let mut own = Faults::default();
        let object = read(document, &mut own);
        let clean = own.is_empty();
        for mut fault in own.0 {
            fault.at.get_or_insert_with(|| document.node.locate(&fault.path));
            fault.path.0.splice(0..0, document.prefix.iter().cloned());
            self.faults.add(fault);
        }
        object.filter(|_| clean)
    }

    /// Reports a second object of one name or UID.
    fn taken(
        &mut self,
        document: &Document<'_>,
        field: &str,
        value: &dyn fmt::Display,
        what: &str,
        first: u32,
    ) {
        let field = ["metadata", field].map(|name| Segment::Field(name.to_owned()));
        let path = FieldPath(document.prefix.iter().cloned().chain(field).collect());
        let message = format!("Duplicate value: \"{value}\": {what} with it stands already on line {first}");
        self.faults.add(Fault { path, at: Some(document.node.at), message });
    }
}

/// Gives a pod its UID and what the node adds to it.
fn finish_pod(
    (source, origin): (&str, Origin),
    document: &Document<'_>,
    object: &mut v1::Pod,
    parts: pod::Parts,
    faults: &mut Faults,
) -> Option<Pod> {
    let metadata::Metadata { namespace, name, labels, mut annotations } = parts.metadata;
    let key = PodKey { namespace, name };
    let identity = uid::Identity::of(source, &key, &document.node);
    let refuse = |faults: &mut Faults, error: &dyn fmt::Display| {
        faults.push(&Path::ROOT, format!("the pod cannot be written as JSON: {error}"));
    };
    let uid = match parts.uid {
        Some(uid) => uid,
        None => identity.uid().map_err(|error| refuse(faults, &error)).ok()?,
    };
    annotations.insert(CONFIG_HASH.to_owned(), identity.hash);
    annotations.insert(CONFIG_SOURCE.to_owned(), origin.as_str().to_owned());
    let object = write_object(object, &uid, &annotations).map_err(|error| refuse(faults, &error)).ok()?;
    Some(Pod { uid, key, labels, annotations, spec: parts.spec, object })
}

fn write_object(
    pod: &mut v1::Pod,
    uid: &PodUid,
    annotations: &BTreeMap<String, String>,
) -> serde_json::Result<String> {
    pod.metadata.uid = Some(uid.to_string());
    pod.metadata.annotations = Some(annotations.clone());
    serde_json::to_string(pod)
}
