//! From a file to a specification.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use coracle_document::{Diagnostic, Fault, Faults, FieldPath, deserialize};
use rustix::fs::OFlags;

use crate::error::{CdiError, file};
use crate::spec::Spec;
use crate::validate::validate;

/// The most bytes a specification may have. One of a node with eight GPUs in seven parts each has some 100 kB.
pub const MOST_BYTES: u64 = coracle_document::MAX_BYTES;

/// A specification out of its text, YAML or JSON; `source` names it in faults.
///
/// # Errors
/// [`CdiError::Invalid`] with everything that is wrong with it.
pub fn parse(bytes: &[u8], source: &str) -> Result<Spec, CdiError> {
    let mut faults = Faults::default();
    let read = read(bytes, &mut faults);
    let diagnostics: Vec<Diagnostic> = match read {
        Ok(spec) if faults.is_empty() => return Ok(spec),
        Ok(_) => faults.in_file(source),
        Err(fault) => {
            faults.0.extend(fault);
            faults.in_file(source)
        }
    };
    Err(CdiError::Invalid(diagnostics))
}

/// What was read, valid if there are no `faults`; else what is wrong beside those.
fn read(bytes: &[u8], faults: &mut Faults) -> Result<Spec, Option<Fault>> {
    let document =
        |message: &str| Some(Fault { path: FieldPath::default(), at: None, message: message.to_owned() });
    if bytes.len() as u64 > MOST_BYTES {
        return Err(document("is larger than 4 MiB"));
    }
    let mut roots = coracle_document::read(bytes, faults).map_err(Some)?;
    let Some(mut root) = roots.pop() else { return Err(document("is empty")) };
    if !roots.is_empty() {
        return Err(document("holds several documents; a specification is one"));
    }
    let tree = root.clone();
    let spec = deserialize::<Spec>(&mut root, faults).ok_or(None)?;
    validate(&spec, faults);
    faults.locate(&tree);
    Ok(*spec)
}

/// Reads a specification's file. A file that is none (a pipe, a device) is not waited for.
pub(crate) fn read_file(path: &Path) -> Result<Spec, CdiError> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let open = File::options().read(true).custom_flags(flags).open(path);
    let opened = open.map_err(file("open the CDI specification", path))?;
    let metadata = opened.metadata().map_err(file("look at the CDI specification", path))?;
    if !metadata.is_file() {
        return Err(file("read the CDI specification", path)(io::Error::other("it is no regular file")));
    }
    let mut bytes = Vec::new();
    opened.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(file("read the CDI specification", path))?;
    parse(&bytes, &path.display().to_string())
}
