//! Names and paths as Kubernetes and OCI want them.

use coracle_model::validate_subdomain;

/// Checks the name of an extended resource (`IsExtendedResourceName` of Kubernetes): a domain that is not Kubernetes' own,
/// a slash, and a qualified name.
pub(crate) fn check_resource(name: &str) -> Result<(), String> {
    let Some((domain, rest)) = name.split_once('/') else {
        return Err("must be <domain>/<name>, such as coracle.dev/fuse".to_owned());
    };
    validate_subdomain(domain).map_err(|error| error.to_string())?;
    if domain == "kubernetes.io" || domain.ends_with(".kubernetes.io") {
        return Err("must not be of Kubernetes' own domain".to_owned());
    }
    // The API server prefixes it with `requests.`, and the whole must be a qualified name.
    if rest.is_empty() || rest.len() > 63 {
        return Err("the part after the slash must have 1 to 63 characters".to_owned());
    }
    let inner = |byte: &u8| byte.is_ascii_alphanumeric();
    let bytes = rest.as_bytes();
    let ends = bytes.first().is_some_and(inner) && bytes.last().is_some_and(inner);
    if ends && bytes.iter().all(|byte| inner(byte) || b"-_.".contains(byte)) {
        return Ok(());
    }
    Err("the part after the slash must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character".to_owned())
}

/// Checks a path in a container.
pub(crate) fn check_container_path(path: &str) -> Result<(), &'static str> {
    if !path.starts_with('/') || path.len() < 2 {
        return Err("must be an absolute path");
    }
    if path.split('/').skip(1).any(|part| matches!(part, "" | "." | "..")) {
        return Err("must have no empty part, and no . or ..");
    }
    if path.contains('\0') || path.len() > 4095 {
        return Err("is no path");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_extended_resources() {
        for name in ["coracle.dev/fuse", "nvidia.com/mig-1g.10gb", "nvidia.com/mig-1g.10gb.me", "a/B_c"] {
            assert_eq!(check_resource(name), Ok(()), "{name}");
        }
        for name in [
            "fuse",
            "/fuse",
            "coracle.dev/",
            "Coracle.dev/x",
            "a/-x",
            "a/b/c",
            "x.kubernetes.io/y",
            "kubernetes.io/y",
        ] {
            assert!(check_resource(name).is_err(), "{name}");
        }
        assert!(check_resource(&format!("a/{}", "x".repeat(64))).is_err());
    }

    #[test]
    fn paths_in_containers() {
        assert_eq!(check_container_path("/dev/fuse"), Ok(()));
        for path in ["", "/", "dev/fuse", "/dev/../etc", "/dev//fuse", "/dev/./x", "/dev/x/", "/a\0"] {
            assert!(check_container_path(path).is_err(), "{path:?}");
        }
    }
}
