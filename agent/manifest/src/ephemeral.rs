//! A `v1 EphemeralContainer`, as it is asked for of a pod that is there.

use coracle_document::{Fault, Faults, FieldPath, Location, Path, Segment, deserialize, read_json};
use coracle_model::{EphemeralContainer, Pod};
use k8s_openapi::api::core::v1;

use crate::error::ManifestError;
use crate::{MAX_BYTES, pod};

/// Decodes a `v1 EphemeralContainer` in JSON that is to be added to `pod`: the API server's defaults, its checks
/// and its words, with paths from the pod on.
///
/// # Errors
/// As [`crate::decode`]; `source` names the input in messages.
pub fn decode_ephemeral(source: &str, bytes: &[u8], pod: &Pod) -> Result<EphemeralContainer, ManifestError> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err(ManifestError::TooLarge { name: source.to_owned(), limit: MAX_BYTES });
    }
    let mut faults = Faults::default();
    let decoded = read(bytes, pod, &mut faults).unwrap_or_else(|fault| {
        faults.add(fault);
        None
    });
    let place = [
        Segment::Field("ephemeralContainers".to_owned()),
        Segment::Index(pod.spec.ephemeral_containers.len()),
    ];
    for fault in &mut faults.0 {
        fault.path.0.splice(0..0, [Segment::Field("spec".to_owned())].into_iter().chain(place.clone()));
    }
    match decoded {
        Some(container) if faults.is_empty() => Ok(container),
        _ => Err(ManifestError::Invalid(faults.in_file(source))),
    }
}

fn read(bytes: &[u8], pod: &Pod, faults: &mut Faults) -> Result<Option<EphemeralContainer>, Fault> {
    let refuse = |message: &str| Fault {
        path: FieldPath::default(),
        at: Some(Location::START),
        message: message.to_owned(),
    };
    let mut roots = read_json(bytes, faults)?.into_iter();
    let (Some(mut root), None) = (roots.next(), roots.next()) else {
        return Err(refuse("must be one object in JSON"));
    };
    let Some(wire) = deserialize::<v1::EphemeralContainer>(&mut root, faults) else { return Ok(None) };
    let converted = pod::convert_ephemeral(*wire, pod, &Path::ROOT, faults);
    faults.locate(&root);
    Ok(converted)
}
