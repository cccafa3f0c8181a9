//! Names of units, systemd.unit(5).

use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

/// The longest name of a unit, `UNIT_NAME_MAX`.
const MOST: usize = 255;

/// The kinds of units.
const TYPES: [&str; 11] = [
    "service",
    "socket",
    "device",
    "mount",
    "automount",
    "swap",
    "target",
    "path",
    "timer",
    "slice",
    "scope",
];

/// A unit's name, with its type at the end: `kubepods.slice`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitName(String);

/// A text that cannot name a unit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot name a unit of systemd: at most 255 letters, digits and \":-_.\\\\@\", and a type such as .slice or .service at the end"
)]
pub struct InvalidUnitName(String);

// === impl UnitName ===

impl UnitName {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The unit's type: `slice`, `scope`, `service`.
    pub fn unit_type(&self) -> &str {
        self.0.rsplit_once('.').map_or("", |(_, kind)| kind)
    }

    /// The name without the type.
    pub fn prefix(&self) -> &str {
        self.0.rsplit_once('.').map_or(&self.0, |(prefix, _)| prefix)
    }

    /// A text as a part of a unit's name: what may not stand there becomes `\xNN`, as by systemd-escape(1), and so
    /// does `-`, which would divide it.
    pub fn escape(text: &str) -> String {
        let mut escaped = String::new();
        for (at, byte) in text.bytes().enumerate() {
            let plain =
                byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'_') || (byte == b'.' && at > 0);
            if plain {
                escaped.push(char::from(byte));
            } else {
                // Writing to a string does not fail.
                let _ = write!(escaped, "\\x{byte:02x}");
            }
        }
        escaped
    }
}

impl FromStr for UnitName {
    type Err = InvalidUnitName;

    fn from_str(text: &str) -> Result<Self, InvalidUnitName> {
        let invalid = || InvalidUnitName(text.to_owned());
        let (prefix, kind) = text.rsplit_once('.').ok_or_else(invalid)?;
        let usable = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
        let valid = text.len() <= MOST
            && !prefix.is_empty()
            && !prefix.starts_with('@')
            && prefix.bytes().all(usable)
            && TYPES.contains(&kind);
        // `-` divides the names of slices: no part may be empty.
        let divided = kind != "slice" || prefix == "-" || !prefix.split('-').any(str::is_empty);
        if valid && divided { Ok(Self(text.to_owned())) } else { Err(invalid()) }
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for name in
            ["a.slice", "a-b.slice", "-.slice", "kubepods-pod1.2-3_4.scope", r"a\x2db.service", "a@b.service"]
        {
            let parsed: UnitName = name.parse().unwrap();
            assert_eq!(format!("{}.{}", parsed.prefix(), parsed.unit_type()), name);
        }
        let long = format!("{}.scope", "x".repeat(250));
        for name in [
            "",
            "a",
            ".slice",
            "a.thing",
            "a/b.slice",
            "a b.scope",
            "@a.service",
            "a--b.slice",
            "-a.slice",
            &long,
        ] {
            assert!(name.parse::<UnitName>().is_err(), "{name}");
        }
    }

    #[test]
    fn parts_are_escaped_as_systemd_escape_does() {
        assert_eq!(UnitName::escape("a-b/c d:_.é"), r"a\x2db\x2fc\x20d:_.\xc3\xa9");
        assert_eq!(UnitName::escape(".a"), r"\x2ea");
    }
}
