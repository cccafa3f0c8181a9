//! Names of devices in annotations: what a device plugin says to runtimes that know no field for them.

use std::collections::BTreeMap;

use crate::error::CdiError;
use crate::name::QualifiedName;

/// What the key of an annotation with names of devices begins with.
pub const ANNOTATION_PREFIX: &str = "cdi.k8s.io/";

/// The most names in the annotations of one container.
const MOST: usize = 4096;

/// The devices annotations name: lists with commas under keys `cdi.k8s.io/*`, in the order of the keys, each once.
///
/// # Errors
/// [`CdiError::Annotation`] when one of them is no full name.
pub fn devices_of_annotations(
    annotations: &BTreeMap<String, String>,
) -> Result<Vec<QualifiedName>, CdiError> {
    let mut names: Vec<QualifiedName> = Vec::new();
    for (key, value) in annotations.iter().filter(|(key, _)| key.starts_with(ANNOTATION_PREFIX)) {
        let failed = |why: String| CdiError::Annotation { key: key.clone(), why };
        for text in value.split(',') {
            let name = text.parse::<QualifiedName>().map_err(|error| failed(error.to_string()))?;
            if names.len() == MOST {
                return Err(failed(format!("annotations name at most {MOST} devices")));
            }
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pairs: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let names = devices_of_annotations(&pairs).map_err(|error| error.to_string())?;
        Ok(names.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn lists_under_keys_of_cdi_are_names_and_nothing_else_is() {
        let found =
            names(&[("cdi.k8s.io/b", "v/c=2,v/c=1"), ("cdi.k8s.io/a", "v/c=1"), ("other.io/x", "no name")]);
        assert_eq!(found.unwrap(), ["v/c=1", "v/c=2"]);
        assert_eq!(names(&[]).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn what_is_no_name_is_said_with_its_key() {
        for bad in ["", "v/c=1,", "v/c=1, v/c=2", "gpu0"] {
            let error = names(&[("cdi.k8s.io/x", bad)]).unwrap_err();
            assert!(error.contains("cdi.k8s.io/x"), "{error}");
        }
    }
}
