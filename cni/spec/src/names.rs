//! What may name a container, a network, an interface and a plugin.

use crate::{CniError, code};

/// Bytes the kernel has for the name of an interface, with its end (`IFNAMSIZ`).
const IFNAMSIZ: usize = 16;

/// Whether it begins with a letter or a digit and goes on with those, `_`, `.` and `-`: what the specification asks of
/// container ids and network names. Such a name is a file name as well.
pub(crate) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// The rule of the specification's section 2, `CNI_CONTAINERID`.
///
/// # Errors
/// [`code::INVALID_ENVIRONMENT`].
pub fn check_container_id(id: &str) -> Result<(), CniError> {
    if is_name(id) {
        return Ok(());
    }
    let msg = format!(
        "CNI_CONTAINERID {id:?}: a container id begins with a letter or a digit, and has only letters, digits, '_', '.' \
         and '-'"
    );
    Err(CniError::new(code::INVALID_ENVIRONMENT, msg))
}

/// The rule of the specification's section 2, `CNI_IFNAME`: the kernel's.
///
/// # Errors
/// [`code::INVALID_ENVIRONMENT`].
pub fn check_ifname(name: &str) -> Result<(), CniError> {
    let why = if name.is_empty() {
        "must not be empty"
    } else if name == "." || name == ".." {
        "must not be . or .."
    } else if name.len() >= IFNAMSIZ {
        "has at most 15 bytes"
    } else if name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control()) {
        "must not have '/', ':', space or control characters"
    } else {
        return Ok(());
    };
    Err(CniError::new(
        code::INVALID_ENVIRONMENT,
        format!("CNI_IFNAME {name:?}: the name of an interface {why}"),
    ))
}

/// The rule of the specification's section 1 for `name`.
///
/// # Errors
/// [`code::INVALID_CONFIG`].
pub fn check_network_name(name: &str) -> Result<(), CniError> {
    if is_name(name) {
        return Ok(());
    }
    let msg = format!(
        "name {name:?}: the name of a network begins with a letter or a digit, and has only letters, digits, '_', '.' \
         and '-'"
    );
    Err(CniError::new(code::INVALID_CONFIG, msg))
}

/// The rule of the specification's section 1 for `type`: the name of a program, and no path.
///
/// # Errors
/// [`code::INVALID_CONFIG`].
pub fn check_kind(kind: &str) -> Result<(), CniError> {
    if !kind.is_empty() && kind != "." && kind != ".." && !kind.contains(['/', '\0']) {
        return Ok(());
    }
    Err(CniError::new(code::INVALID_CONFIG, format!("type {kind:?} is not the name of a plugin's program")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_ids_follow_the_specification() {
        for id in ["a", "0f-1", "A_b.c-d", "5b6f4d4e-12ab-0"] {
            check_container_id(id).unwrap();
        }
        for id in ["", "-a", ".a", "_a", "a/b", "a b", "ä", "a\n", ".."] {
            assert_eq!(check_container_id(id).unwrap_err().code, code::INVALID_ENVIRONMENT, "{id:?}");
        }
    }

    #[test]
    fn interface_names_follow_the_kernel() {
        for name in ["eth0", "123456789012345", "a.b-c"] {
            check_ifname(name).unwrap();
        }
        for name in ["", ".", "..", "1234567890123456", "a/b", "a:b", "a b", "a\tb", "a\u{7f}"] {
            assert_eq!(check_ifname(name).unwrap_err().code, code::INVALID_ENVIRONMENT, "{name:?}");
        }
    }

    #[test]
    fn a_network_or_a_type_is_no_path() {
        check_network_name("my-net_1.0").unwrap();
        check_kind("host-local").unwrap();
        for name in ["", "../x", "a/b"] {
            assert_eq!(check_network_name(name).unwrap_err().code, code::INVALID_CONFIG);
            assert_eq!(check_kind(name).unwrap_err().code, code::INVALID_CONFIG);
        }
    }
}
