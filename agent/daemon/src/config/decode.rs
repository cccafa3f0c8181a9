//! From the text of a file to the fields that the node acts on.

use coracle_document::{Fault, Faults, FieldPath, Location, Node, Segment, Value, deserialize, nearest};
use coracle_model::go_duration;

use super::file::File;
use super::kubelet::{self, Verdict};
use super::table::{self, Field, Kind};
use super::written::{KIND, VERSION};

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct Decoded<'a> {
    /// The fields that are set, as far as they have the right types.
    pub(super) file: File,
    /// The mapping they stand in; `None` for a file that says nothing.
    pub(super) tree: Option<Node<'a>>,
    /// What is left out of account.
    pub(super) warnings: Faults,
}

/// Reads a file. What is wrong goes to `faults`, and the rest is read.
pub(super) fn decode<'a>(text: &'a [u8], faults: &mut Faults) -> Decoded<'a> {
    let mut roots = match coracle_document::read(text, faults) {
        Ok(roots) => roots.into_iter(),
        Err(fault) => {
            faults.add(fault);
            return Decoded::default();
        }
    };
    let Some(mut tree) = roots.next() else { return Decoded::default() };
    if let Some(second) = roots.next() {
        refuse(faults, second.at, "a configuration is one document, and here a second one begins");
    }
    if !matches!(tree.value, Value::Map(_)) {
        refuse(faults, tree.at, format!("must be a mapping of fields, not {}", tree.describe()));
        return Decoded::default();
    }
    check_type(&tree, faults);
    let mut warnings = Faults::default();
    sort(&mut tree, faults, &mut warnings);
    let file = read(&mut tree, faults);
    Decoded { file, tree: Some(tree), warnings }
}

fn refuse(faults: &mut Faults, at: Location, message: impl Into<String>) {
    faults.add(Fault { path: FieldPath::default(), at: Some(at), message: message.into() });
}

fn at_field(name: &str, at: Option<Location>, message: String) -> Fault {
    Fault { path: FieldPath(vec![Segment::Field(name.to_owned())]), at, message }
}

/// `apiVersion` and `kind` may stand in a file, and then both.
fn check_type(tree: &Node<'_>, faults: &mut Faults) {
    for (name, wanted, other) in [("apiVersion", VERSION, "kind"), ("kind", KIND, "apiVersion")] {
        match tree.get(name).map(|node| (node, tree.get_text(name))) {
            Some((_, Some(text))) if text == wanted => {}
            Some((node, _)) => {
                let message = format!("Unsupported value: {}: supported values: {wanted:?}", node.describe());
                faults.add(at_field(name, Some(node.at), message));
            }
            None if tree.get(other).is_some() => {
                let message = format!("Required value: where there is {other}, must be {wanted:?}");
                faults.add(at_field(name, Some(tree.at), message));
            }
            None => {}
        }
    }
}

/// Leaves in the tree what the node acts on and is set, and judges the rest.
fn sort(tree: &mut Node<'_>, faults: &mut Faults, warnings: &mut Faults) {
    let Value::Map(entries) = &mut tree.value else { return };
    entries.retain(|entry| {
        let name = entry.key.as_ref();
        if let Some(field) = table::field(name) {
            return !is_unset(field, &entry.node);
        }
        if matches!(name, "apiVersion" | "kind") {
            return false;
        }
        let Some(field) = kubelet::table::field(name) else {
            let names: Vec<_> = names().collect();
            let hint = nearest(name, &names).map_or_else(String::new, |it| format!("; did you mean {it:?}?"));
            faults.add(at_field(name, Some(entry.key_at), format!("unknown field{hint}")));
            return false;
        };
        match kubelet::judge(field, &entry.node) {
            Verdict::Accepted => {}
            Verdict::NoEffect(message) => warnings.add(at_field(name, Some(entry.key_at), message)),
            Verdict::Refused(message) => faults.add(at_field(name, Some(entry.key_at), message)),
        }
        false
    });
}

/// The name of every field that is known.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let own = table::FIELDS.iter().map(|field| field.name);
    own.chain(kubelet::table::FIELDS.iter().map(|field| field.name)).chain(["apiVersion", "kind"])
}

/// As in the kubelet, nothing, an empty text and in some places a duration of zero stand for the default.
fn is_unset(field: &Field, node: &Node<'_>) -> bool {
    match (&node.value, field.kind) {
        (Value::Null, _) => true,
        // Pods of a kubelet without resolvConf have no name servers, which is something else than the default.
        (Value::Text(_), Kind::Path) if field.name == "resolvConf" => false,
        (Value::Text(text), Kind::Text | Kind::Duration | Kind::Quantity | Kind::Path) if text.is_empty() => {
            true
        }
        (Value::Text(text), Kind::Duration)
            if matches!(field.name, "httpCheckFrequency" | "imageMinimumGCAge") =>
        {
            go_duration(text).is_some_and(|duration| duration.is_zero())
        }
        _ => false,
    }
}

/// The fields, without those whose value is of a wrong type.
fn read(tree: &mut Node<'_>, faults: &mut Faults) -> File {
    let mut found = Faults::default();
    // What is wrong is replaced while reading, and not to be judged again.
    let whole = deserialize::<File>(&mut tree.clone(), &mut found);
    let file = whole.map(|file| *file).unwrap_or_else(|| {
        if let Value::Map(entries) = &mut tree.value {
            let wrong = |name: &str| {
                found.0.iter().any(|it| matches!(it.path.0.first(), Some(Segment::Field(one)) if one == name))
            };
            entries.retain(|entry| !wrong(&entry.key));
        }
        deserialize::<File>(&mut tree.clone(), &mut Faults::default()).map(|file| *file).unwrap_or_default()
    });
    found.0.into_iter().for_each(|fault| faults.add(fault));
    file
}
