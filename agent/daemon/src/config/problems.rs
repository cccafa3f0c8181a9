//! What is wrong with the configuration, collected so that a user sees all of it at once.

use std::fmt::Display;

use coracle_document::{Fault, Faults, FieldPath, Path, Segment, quote};

/// Everything that was found.
#[derive(Debug, Default)]
pub(super) struct Problems {
    /// In the file.
    pub(super) faults: Faults,
    /// In flags and on the host, each a whole message.
    pub(super) others: Vec<String>,
}

/// Where a value stands.
#[derive(Clone, Debug)]
pub(super) enum Giver {
    /// A field of the file.
    Field(FieldPath),
    /// A flag.
    Flag(&'static str),
}

// === impl Giver ===

impl Giver {
    pub(super) fn field(name: &str) -> Self {
        Self::Field(Path::ROOT.child(name).to_path())
    }

    /// An element of the list that a field is. A flag has no elements.
    pub(super) fn item(&self, index: usize) -> Self {
        match self {
            Self::Field(path) => {
                let mut path = path.clone();
                path.0.push(Segment::Index(index));
                Self::Field(path)
            }
            Self::Flag(name) => Self::Flag(name),
        }
    }

    /// A field of the object that this is.
    pub(super) fn child(&self, name: &str) -> Self {
        match self {
            Self::Field(path) => {
                let mut path = path.clone();
                path.0.push(Segment::Field(name.to_owned()));
                Self::Field(path)
            }
            Self::Flag(name) => Self::Flag(name),
        }
    }
}

// === impl Problems ===

impl Problems {
    pub(super) fn is_empty(&self) -> bool {
        self.faults.is_empty() && self.others.is_empty()
    }

    /// The text is quoted, and cut when it is long.
    pub(super) fn invalid(&mut self, giver: &Giver, text: &str, detail: impl Display) {
        self.say(giver, format!("Invalid value: {}: {detail}", quote(text)));
    }

    /// For a number.
    pub(super) fn invalid_number(&mut self, giver: &Giver, number: impl Display, detail: impl Display) {
        self.say(giver, format!("Invalid value: {number}: {detail}"));
    }

    /// None of the words there are.
    pub(super) fn unsupported(&mut self, giver: &Giver, text: &str, words: &[&str]) {
        let words: Vec<_> = words.iter().map(|word| quote(word)).collect();
        let message = format!("Unsupported value: {}: supported values: {}", quote(text), words.join(", "));
        self.say(giver, message);
    }

    /// In whole words.
    pub(super) fn say(&mut self, giver: &Giver, message: String) {
        match giver {
            Giver::Field(path) => self.faults.add(Fault { path: path.clone(), at: None, message }),
            Giver::Flag(name) => self.others.push(format!("{name}: {message}")),
        }
    }
}
