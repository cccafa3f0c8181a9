//! One record, read: what it says, or what is known of why it says nothing.

use std::fs;
use std::io;
use std::path::Path;

use serde::Deserialize;
use serde_json::error::Category;

use crate::PodRecord;

/// A record as it is read: those of before there were checkpoints name no boot, and were of the one that wrote them.
pub(super) struct Loaded {
    pub(super) boot: Option<String>,
    pub(super) record: PodRecord,
}

/// What a file has beside the record.
#[derive(Deserialize)]
struct Beside {
    boot: Option<String>,
}

/// Why a file tells nothing of a pod.
#[derive(Debug)]
pub(super) enum Unusable {
    /// It could not be read. Whatever the reason, the next attempt may succeed.
    Unread(io::Error),
    /// It is whole, and was written by another version.
    Version(serde_json::Error),
    /// It would not be a record if it were read again. In words, what it is.
    NoRecord(String),
}

/// The UID a record is named after.
pub(super) fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Reads a record.
pub(super) fn read(path: &Path) -> Result<Loaded, Unusable> {
    let bytes = fs::read(path).map_err(Unusable::Unread)?;
    let loaded = Loaded::parse(&bytes).map_err(|error| judge(&bytes, error))?;
    let (uid, name) = (&loaded.record.pod.uid, stem(path));
    match uid.as_str() == name {
        true => Ok(loaded),
        false => Err(Unusable::NoRecord(format!("the record of another pod, {uid}"))),
    }
}

// === impl Loaded ===

impl Loaded {
    /// Reads it twice, which costs less than serde's `flatten`: that keeps all fields until it knows whose they are.
    fn parse(json: &[u8]) -> serde_json::Result<Self> {
        let record = serde_json::from_slice(json)?;
        let Beside { boot } = serde_json::from_slice(json)?;
        Ok(Self { boot, record })
    }
}

/// What bytes are that are not a record. A record is renamed into place when it is whole, so what is no JSON was torn by
/// a loss of power, or is none of ours.
fn judge(bytes: &[u8], error: serde_json::Error) -> Unusable {
    // An error of data does not say whether what follows is JSON.
    let whole = serde_json::from_slice::<serde_json::Value>(bytes);
    match whole.map_err(|error| error.classify()) {
        Ok(value) if value.is_object() => Unusable::Version(error),
        Ok(_) => Unusable::NoRecord("no pod record".to_owned()),
        Err(Category::Io) => Unusable::Unread(error.into()),
        Err(Category::Syntax | Category::Eof | Category::Data) => {
            Unusable::NoRecord(format!("a torn pod record: {error}"))
        }
    }
}
