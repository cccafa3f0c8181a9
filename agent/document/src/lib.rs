//! YAML and JSON as `kubectl` and the API server read them: into trees in which every value knows its place, and
//! from there into types, with everything that is wrong.
//!
//! ```text
//! bytes -> yaml | json -> node (tree with places) -> de (types, unknown fields)
//! ```
//!
//! **Invariant:** the work and the memory a text costs are bounded by [`MAX_BYTES`], [`MAX_DEPTH`] and [`MAX_NODES`],
//! whatever its bytes are. **Invariant:** every fault is reported with line, column and field path, and as many as
//! can be found in one reading.

mod de;
mod fault;
mod json;
mod node;
mod path;
mod scalar;
mod yaml;

pub use de::{deserialize, nearest};
pub use fault::{Diagnostic, Fault, Faults, quote};
pub use node::{Entry, Location, Node, Value};
pub use path::{FieldPath, Path, Segment};

/// The most bytes a text should have, and the most that aliases of it may repeat: 4 MiB. The API server takes 3 MiB
/// for one object.
pub const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// How deep lists and mappings may be nested. A pod needs 12 levels.
pub const MAX_DEPTH: usize = 64;

/// The most values a text may hold, those that aliases repeat among them. A pod has about 100.
pub const MAX_NODES: usize = 200_000;

/// All documents of a text in YAML or JSON; empty ones are left out.
///
/// # Errors
/// The fault that keeps the rest from being read. A repeated key is a fault among `faults` and stops nothing.
pub fn read<'a>(bytes: &'a [u8], faults: &mut Faults) -> Result<Vec<Node<'a>>, Fault> {
    let text = text(bytes)?;
    if json::looks_like(text) { read_braced(text, faults) } else { yaml::read(text, faults) }
}

/// All values of a text in JSON.
///
/// # Errors
/// As [`read`].
pub fn read_json<'a>(bytes: &'a [u8], faults: &mut Faults) -> Result<Vec<Node<'a>>, Fault> {
    json::read(text(bytes)?, faults)
}

/// The input as text without a byte order mark.
fn text(bytes: &[u8]) -> Result<&str, Fault> {
    let refuse =
        |at, message: &str| Fault { path: FieldPath::default(), at: Some(at), message: message.to_owned() };
    if let [0xff, 0xfe, ..] | [0xfe, 0xff, ..] = bytes {
        return Err(refuse(Location::START, "the text is UTF-16; it must be UTF-8"));
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
fn read_braced<'a>(text: &'a str, faults: &mut Faults) -> Result<Vec<Node<'a>>, Fault> {
    let mut json_faults = Faults::default();
    match json::read(text, &mut json_faults) {
        Ok(roots) => {
            json_faults.0.into_iter().for_each(|fault| faults.add(fault));
            Ok(roots)
        }
        Err(fault) => yaml::read(text, faults).map_err(|_| fault),
    }
}
