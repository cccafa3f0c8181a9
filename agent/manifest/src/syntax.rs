//! The forms of names that Kubernetes' API conventions define, beside labels and subdomains.

use coracle_model::validate_subdomain;

const SYSCTL: &str = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
const NAME_PART: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const HTTP_HEADER: &str = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";

fn is_word(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// A key of labels and annotations: an optional DNS prefix and a name, `example.com/name`.
pub(crate) fn qualified_name(text: &str) -> Result<(), String> {
    let name = match text.split_once('/') {
        None => text,
        Some((_, name)) if name.contains('/') => {
            return Err("a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character, with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')".to_owned());
        }
        Some(("", _)) => return Err("prefix part must be non-empty".to_owned()),
        Some((prefix, name)) => {
            validate_subdomain(prefix).map_err(|error| format!("prefix part {error}"))?;
            name
        }
    };
    match name {
        "" => Err("name part must be non-empty".to_owned()),
        long if long.len() > 63 => Err("name part must be no more than 63 characters".to_owned()),
        word if is_word(word) => Ok(()),
        _ => Err(NAME_PART.to_owned()),
    }
}

/// A label's value: empty, or at most 63 letters, digits, `-`, `_` and `.`.
pub(crate) fn label_value(text: &str) -> Result<(), &'static str> {
    match text {
        "" => Ok(()),
        long if long.len() > 63 => Err("must be no more than 63 characters"),
        word if is_word(word) => Ok(()),
        _ => Err(LABEL_VALUE),
    }
}

/// The name of a kernel setting, its parts parted by dots or slashes.
pub(crate) fn sysctl_name(text: &str) -> Result<(), &'static str> {
    let edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_part = |part: &str| {
        let bytes = part.as_bytes();
        let inner = |byte: &u8| edge(*byte) || matches!(byte, b'-' | b'_');
        bytes.iter().all(inner)
            && bytes.first().is_some_and(|byte| edge(*byte))
            && bytes.last().is_some_and(|byte| edge(*byte))
    };
    if text.len() <= 253 && text.split(['.', '/']).all(is_part) { Ok(()) } else { Err(SYSCTL) }
}

/// The name of a port (RFC 6335), in lower case.
pub(crate) fn port_name(text: &str) -> Result<(), &'static str> {
    let bytes = text.as_bytes();
    if bytes.len() > 15 {
        return Err("must be no more than 15 characters");
    }
    if !bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-') {
        return Err("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    }
    if !bytes.iter().any(u8::is_ascii_lowercase) {
        return Err("must contain at least one letter (a-z)");
    }
    if text.contains("--") {
        return Err("must not contain consecutive hyphens");
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Err("must not begin or end with a hyphen");
    }
    Ok(())
}

/// The name of an environment variable: any printable ASCII but `=`.
pub(crate) fn env_name(text: &str) -> Result<(), &'static str> {
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=') {
        Ok(())
    } else {
        Err(
            "a valid environment variable name must consist only of printable ASCII characters other than '='",
        )
    }
}

/// A key of a ConfigMap's or Secret's data: a file's name that leads nowhere else.
pub(crate) fn config_key(text: &str) -> Result<(), &'static str> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    match text {
        long if long.len() > 253 => Err("must be no more than 253 characters"),
        "." => Err("must not be '.'"),
        ".." => Err("must not be '..'"),
        hidden if hidden.starts_with("..") => Err("must not start with '..'"),
        key if !key.is_empty() && key.bytes().all(word) => Ok(()),
        _ => Err(CONFIG_KEY),
    }
}

/// The name of a header of a probe.
pub(crate) fn http_header(text: &str) -> Result<(), &'static str> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if !text.is_empty() && text.bytes().all(word) { Ok(()) } else { Err(HTTP_HEADER) }
}

/// The value of a header (RFC 9110, 5.5): one with a control character would never be sent.
pub(crate) fn http_header_value(text: &str) -> Result<(), &'static str> {
    let fits = |byte: u8| byte == b'\t' || byte >= b' ' && byte != 0x7f;
    if text.bytes().all(fits) { Ok(()) } else { Err("must not contain a control character") }
}

/// A path of a file that a volume makes: relative, never above it, and no name the volume has for itself
/// (`..data`).
pub(crate) fn local_path(text: &str) -> Result<(), &'static str> {
    descending_path(text)?;
    if text.starts_with("..") { Err("must not start with '..'") } else { Ok(()) }
}

/// A path below a directory: relative, and never above it.
pub(crate) fn descending_path(text: &str) -> Result<(), &'static str> {
    if text.starts_with('/') {
        return Err("must be a relative path");
    }
    no_backsteps(text)
}

/// A path none of whose components is `..`.
pub(crate) fn no_backsteps(text: &str) -> Result<(), &'static str> {
    if text.split('/').any(|component| component == "..") { Err("must not contain '..'") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qualified_names() {
        for good in ["a", "A_b.c-1", "example.com/name", &format!("{}/x", "a".repeat(253))] {
            assert!(qualified_name(good).is_ok(), "{good}");
        }
        for bad in ["", "/a", "a/", "a/b/c", "Example.com/a", "-a", "a-", "a b", &"a".repeat(64), "é"] {
            assert!(qualified_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn label_values() {
        for good in ["", "a", "A.b_c-1", &"a".repeat(63)] {
            assert!(label_value(good).is_ok(), "{good}");
        }
        for bad in ["-", "a ", "a/b", &"a".repeat(64)] {
            assert!(label_value(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn port_names() {
        for good in ["http", "a", "web-1", "abcdefghijklmno"] {
            assert!(port_name(good).is_ok(), "{good}");
        }
        for bad in ["", "8080", "HTTP", "a--b", "-a", "a-", "abcdefghijklmnop", "a_b"] {
            assert!(port_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn config_keys() {
        for good in ["a", "A_b.c-1", ".hidden", ".a..b", "-", &"a".repeat(253)] {
            assert!(config_key(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "..a", "a/b", "a b", "é", &"a".repeat(254)] {
            assert!(config_key(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn http_headers() {
        assert!(http_header("X-Header-1").is_ok());
        for bad in ["", "X Header", "X_Header", "X:", "é"] {
            assert!(http_header(bad).is_err(), "{bad}");
        }
        assert!(http_header_value("").is_ok());
        assert!(http_header_value("a\té: b").is_ok());
        for bad in ["a\r\nHost: b", "\0", "\u{7f}"] {
            assert!(http_header_value(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn paths() {
        assert!(descending_path("a/..b/c..").is_ok());
        for bad in ["/a", "..", "a/..", "../a", "a/../b"] {
            assert!(descending_path(bad).is_err(), "{bad}");
        }
        assert!(local_path("a/..b").is_ok());
        for bad in ["..a", "..", "../a", "/a", "..data/a"] {
            assert!(local_path(bad).is_err(), "{bad}");
        }
    }
}
