//! What can be wrong with a manifest, and where.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::node::Location;
use crate::path::{FieldPath, Path};

/// A manifest that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file could not be opened or read.
    #[error("{}: cannot be read: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A directory, device, socket or pipe stands where a manifest should.
    #[error("{}: not a regular file", path.display())]
    NotRegular {
        /// The file.
        path: PathBuf,
    },
    /// The input is larger than a manifest may be.
    #[error("{name}: the file is larger than {limit} bytes, the most a manifest may have")]
    TooLarge {
        /// The file.
        name: String,
        /// [`crate::MAX_BYTES`].
        limit: u64,
    },
    /// The content is wrong: everything that was found, in the order of the file.
    #[error("{}", Lines(.0))]
    Invalid(Vec<Diagnostic>),
}

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

struct Lines<'a>(&'a [Diagnostic]);

/// A fault as the checks find it: with its path, before its place in the file is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) path: FieldPath,
    /// Known already when the reader found the fault.
    pub(crate) at: Option<Location>,
    pub(crate) message: String,
}

/// Collects faults; the checks go on after each, so that a user sees all of them at once.
#[derive(Debug, Default)]
pub(crate) struct Faults(pub(crate) Vec<Fault>);

// === impl ManifestError ===

impl ManifestError {
    /// What is wrong with the content, in the order of the file; empty when it was not read.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        match self {
            Self::Invalid(diagnostics) => diagnostics,
            Self::Read { .. } | Self::NotRegular { .. } | Self::TooLarge { .. } => &[],
        }
    }
}

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

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, diagnostic) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str("\n")?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

// === impl Faults ===

/// No more than these are listed, so that a hostile file does not fill the log; who mends a hundred sees the
/// next.
const LISTED: usize = 100;

impl Faults {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn push(&mut self, path: &Path<'_>, message: impl Into<String>) {
        self.add(Fault { path: path.to_path(), at: None, message: message.into() });
    }

    pub(crate) fn add(&mut self, fault: Fault) {
        if self.0.len() < LISTED {
            self.0.push(fault);
        }
    }

    /// For a place that the tree does not hold any more.
    pub(crate) fn push_at(&mut self, path: &Path<'_>, at: Location, message: String) {
        self.add(Fault { path: path.to_path(), at: Some(at), message });
    }

    pub(crate) fn required(&mut self, path: &Path<'_>, detail: &str) {
        let colon = if detail.is_empty() { "" } else { ": " };
        self.push(path, format!("Required value{colon}{detail}"));
    }

    /// `value` is text: it is quoted, and cut when it is long.
    pub(crate) fn invalid(&mut self, path: &Path<'_>, value: &str, detail: impl fmt::Display) {
        self.push(path, format!("Invalid value: {}: {detail}", quote(value)));
    }

    /// The same, for a place that the tree does not hold any more.
    pub(crate) fn invalid_at(&mut self, path: &Path<'_>, at: Location, value: &str, detail: &str) {
        self.push_at(path, at, format!("Invalid value: {}: {detail}", quote(value)));
    }

    /// `value` is a number or a boolean.
    pub(crate) fn invalid_plain(&mut self, path: &Path<'_>, value: impl fmt::Display, detail: &str) {
        self.push(path, format!("Invalid value: {value}: {detail}"));
    }

    pub(crate) fn duplicate(&mut self, path: &Path<'_>, value: &str) {
        self.push(path, format!("Duplicate value: {}", quote(value)));
    }

    pub(crate) fn not_found(&mut self, path: &Path<'_>, value: &str) {
        self.push(path, format!("Not found: {}", quote(value)));
    }

    pub(crate) fn forbidden(&mut self, path: &Path<'_>, detail: &str) {
        self.push(path, format!("Forbidden: {detail}"));
    }

    /// Forbids the field when it is there.
    pub(crate) fn forbidden_if(&mut self, there: bool, path: &Path<'_>, detail: &str) {
        if there {
            self.forbidden(path, detail);
        }
    }

    pub(crate) fn unsupported_value(&mut self, path: &Path<'_>, value: &str, supported: &[&str]) {
        let supported: Vec<_> = supported.iter().map(|word| quote(word)).collect();
        self.push(
            path,
            format!("Unsupported value: {}: supported values: {}", quote(value), supported.join(", ")),
        );
    }

    /// More bytes than Kubernetes takes.
    pub(crate) fn too_long(&mut self, path: &Path<'_>, most: usize) {
        self.push(path, format!("Too long: may not be more than {most} bytes"));
    }

    /// More elements than Kubernetes takes.
    pub(crate) fn too_many(&mut self, path: &Path<'_>, there: usize, most: usize) {
        self.push(path, format!("Too many: {there}: must have at most {most} items"));
    }

    /// A field Kubernetes has and this node does not serve yet.
    pub(crate) fn not_yet(&mut self, path: &Path<'_>, detail: &str) {
        let colon = if detail.is_empty() { "" } else { ": " };
        self.push(path, format!("not supported yet{colon}{detail}"));
    }

    /// Refuses the field when it is there.
    pub(crate) fn not_yet_if(&mut self, there: bool, path: &Path<'_>, detail: &str) {
        if there {
            self.not_yet(path, detail);
        }
    }
}

/// What stands in messages for a value of a Secret, in Kubernetes' words.
pub(crate) const REDACTED: &str = "\"<secret contents redacted>\"";

/// Text in double quotes, escaped, cut to a length a terminal line can hold.
pub(crate) fn quote(text: &str) -> String {
    const LONGEST: usize = 120;
    match text.char_indices().nth(LONGEST) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}...", &text[..end]),
    }
}
