//! Documents of a file: which kinds there are, and what a list holds.

use crate::error::{Fault, Faults, quote};
use crate::node::{Node, Value};
use crate::path::{FieldPath, Segment};

/// One pod's document.
pub(crate) struct Document<'a> {
    pub(crate) node: Node<'a>,
    /// Where it stands in its list: `items[0]`.
    pub(crate) prefix: Vec<Segment>,
}

/// Takes lists apart and refuses what is no pod.
pub(crate) fn split<'a>(roots: Vec<Node<'a>>, faults: &mut Faults) -> Vec<Document<'a>> {
    let mut documents = Vec::new();
    for root in roots {
        take(root, Vec::new(), true, &mut documents, faults);
    }
    documents
}

fn take<'a>(
    mut node: Node<'a>,
    prefix: Vec<Segment>,
    outermost: bool,
    documents: &mut Vec<Document<'a>>,
    faults: &mut Faults,
) {
    let mut refuse = |field: Option<&str>, message: String, node: &Node<'_>| {
        let path: Vec<_> = field.map(|field| Segment::Field(field.to_owned())).into_iter().collect();
        let at = Some(node.locate(&FieldPath(path.clone())));
        let path = FieldPath(prefix.iter().cloned().chain(path).collect());
        faults.add(Fault { path, at, message });
    };
    if !matches!(node.value, Value::Map(_)) {
        let message =
            format!("a manifest must be a mapping (apiVersion, kind, ...), not {}", node.describe());
        return refuse(None, message, &node);
    }
    let (version, kind) = (node.get_text("apiVersion"), node.get_text("kind"));
    for (field, value) in [("apiVersion", version), ("kind", kind)] {
        if value.unwrap_or_default().is_empty() {
            return match node.get(field) {
                Some(given) if !matches!(given.value, Value::Null | Value::Text(_)) => {
                    let message = format!("Invalid value: {}: must be a string", given.describe());
                    refuse(Some(field), message, &node)
                }
                _ => refuse(Some(field), "Required value".to_owned(), &node),
            };
        }
    }
    match (version.unwrap_or_default(), kind.unwrap_or_default()) {
        ("v1", "Pod") => {
            if let Value::Map(entries) = &mut node.value {
                // Another node's report; nothing of it is read here, not even its types.
                entries.retain(|entry| entry.key != "status");
            }
            documents.push(Document { node, prefix });
        }
        ("v1", "List" | "PodList") if outermost => {
            let pods_only = node.get_text("kind") == Some("PodList");
            let Value::Map(entries) = node.value else { return };
            let items = entries.into_iter().find(|entry| entry.key == "items").map(|entry| entry.node);
            match items {
                None | Some(Node { value: Value::Null, .. }) => {}
                Some(Node { value: Value::List(items), .. }) => {
                    for (index, mut item) in items.into_iter().enumerate() {
                        if pods_only {
                            name_kind(&mut item);
                        }
                        let prefix = vec![Segment::Field("items".to_owned()), Segment::Index(index)];
                        take(item, prefix, false, documents, faults);
                    }
                }
                Some(other) => {
                    let path = FieldPath(vec![Segment::Field("items".to_owned())]);
                    let message = format!("Invalid value: {}: must be a list", other.describe());
                    faults.add(Fault { path, at: Some(other.at), message });
                }
            }
        }
        ("v1", "List" | "PodList") => {
            refuse(Some("kind"), "a list within a list is not accepted".to_owned(), &node);
        }
        ("v1", kind @ ("ConfigMap" | "Secret")) => {
            let message =
                format!("{kind} manifests are not supported yet: this node accepts v1 Pod and v1 List");
            refuse(Some("kind"), message, &node);
        }
        (version, "Pod") => {
            let message = format!("Unsupported value: {}: supported values: \"v1\"", quote(version));
            refuse(Some("apiVersion"), message, &node);
        }
        (version, kind) => {
            let message = format!(
                "{} is not accepted: this node accepts v1 Pod and v1 List",
                quote(&format!("{version} {kind}"))
            );
            refuse(Some("kind"), message, &node);
        }
    }
}

/// The items of a typed list may leave out what the list's kind says.
fn name_kind(item: &mut Node<'_>) {
    let at = item.at;
    let missing: Vec<_> = [("apiVersion", "v1"), ("kind", "Pod")]
        .into_iter()
        .filter(|(field, _)| item.get(field).is_none())
        .collect();
    if let Value::Map(entries) = &mut item.value {
        for (field, text) in missing {
            let node = Node { value: Value::Text(text.into()), at };
            entries.push(crate::node::Entry { key: field.into(), key_at: at, node });
        }
    }
}
