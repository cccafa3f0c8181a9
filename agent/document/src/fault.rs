//! What can be wrong with a document, and where.

use std::fmt;

use crate::node::{Location, Node};
use crate::path::{FieldPath, Path};

/// One thing that is wrong with a manifest's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The source's name as given to [`crate::decode`].
    pub source: String,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// The field's path in Kubernetes' form; empty when the fault is not one field's.
    pub path: String,
    /// What is wrong, in Kubernetes' words where Kubernetes has them.
    pub message: String,
}

/// A fault as the checks find it: with its path, before its place in the file is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The field; the document itself when it is empty.
    pub path: FieldPath,
    /// Known already when the reader found the fault.
    pub at: Option<Location>,
    /// What is wrong, in Kubernetes' words where it has them.
    pub message: String,
}

/// Collects faults; the checks go on after each, so that a user sees all of them at once.
#[derive(Debug, Default)]
pub struct Faults(pub Vec<Fault>);

// === impl Diagnostic ===

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.source, self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

// === impl Faults ===

/// No more than these are listed, so that a hostile file does not fill the log; who mends a hundred sees the
/// next.
const LISTED: usize = 100;

impl Faults {
    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is wrong, in the order of the file, which `source` names. What has no place is put at the beginning.
    pub fn in_file(self, source: &str) -> Vec<Diagnostic> {
        let mut diagnostics: Vec<_> = self
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

    /// Looks up where the faults are that have a path and no place yet.
    pub fn locate(&mut self, tree: &Node<'_>) {
        for fault in &mut self.0 {
            fault.at.get_or_insert_with(|| tree.locate(&fault.path));
        }
    }

    /// Something is wrong at a path.
    pub fn push(&mut self, path: &Path<'_>, message: impl Into<String>) {
        self.add(Fault { path: path.to_path(), at: None, message: message.into() });
    }

    /// A fault.
    pub fn add(&mut self, fault: Fault) {
        if self.0.len() < LISTED {
            self.0.push(fault);
        }
    }

    /// For a place that the tree does not hold any more.
    pub fn push_at(&mut self, path: &Path<'_>, at: Location, message: String) {
        self.add(Fault { path: path.to_path(), at: Some(at), message });
    }

    /// The field is not there; `detail` may be empty.
    pub fn required(&mut self, path: &Path<'_>, detail: &str) {
        let colon = if detail.is_empty() { "" } else { ": " };
        self.push(path, format!("Required value{colon}{detail}"));
    }

    /// `value` is text: it is quoted, and cut when it is long.
    pub fn invalid(&mut self, path: &Path<'_>, value: &str, detail: impl fmt::Display) {
        self.push(path, format!("Invalid value: {}: {detail}", quote(value)));
    }

    /// The same, for a place that the tree does not hold any more.
    pub fn invalid_at(&mut self, path: &Path<'_>, at: Location, value: &str, detail: &str) {
        self.push_at(path, at, format!("Invalid value: {}: {detail}", quote(value)));
    }

    /// `value` is a number or a boolean.
    pub fn invalid_plain(&mut self, path: &Path<'_>, value: impl fmt::Display, detail: &str) {
        self.push(path, format!("Invalid value: {value}: {detail}"));
    }

    /// The value stands there already.
    pub fn duplicate(&mut self, path: &Path<'_>, value: &str) {
        self.push(path, format!("Duplicate value: {}", quote(value)));
    }

    /// What the value names is not there.
    pub fn not_found(&mut self, path: &Path<'_>, value: &str) {
        self.push(path, format!("Not found: {}", quote(value)));
    }

    /// The field must not be there.
    pub fn forbidden(&mut self, path: &Path<'_>, detail: &str) {
        self.push(path, format!("Forbidden: {detail}"));
    }

    /// Forbids the field when it is there.
    pub fn forbidden_if(&mut self, there: bool, path: &Path<'_>, detail: &str) {
        if there {
            self.forbidden(path, detail);
        }
    }

    /// The value is none of the few there are.
    pub fn unsupported_value(&mut self, path: &Path<'_>, value: &str, supported: &[&str]) {
        let supported: Vec<_> = supported.iter().map(|word| quote(word)).collect();
        self.push(
            path,
            format!("Unsupported value: {}: supported values: {}", quote(value), supported.join(", ")),
        );
    }

    /// More bytes than Kubernetes takes.
    pub fn too_long(&mut self, path: &Path<'_>, most: usize) {
        self.push(path, format!("Too long: may not be more than {most} bytes"));
    }

    /// More elements than Kubernetes takes.
    pub fn too_many(&mut self, path: &Path<'_>, there: usize, most: usize) {
        self.push(path, format!("Too many: {there}: must have at most {most} items"));
    }

    /// A field Kubernetes has and this node does not serve yet.
    pub fn not_yet(&mut self, path: &Path<'_>, detail: &str) {
        let colon = if detail.is_empty() { "" } else { ": " };
        self.push(path, format!("not supported yet{colon}{detail}"));
    }

    /// Refuses the field when it is there.
    pub fn not_yet_if(&mut self, there: bool, path: &Path<'_>, detail: &str) {
        if there {
            self.not_yet(path, detail);
        }
    }
}

/// Text in double quotes, escaped, cut to a length a terminal line can hold.
pub fn quote(text: &str) -> String {
    const LONGEST: usize = 120;
    match text.char_indices().nth(LONGEST) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}...", &text[..end]),
    }
}
