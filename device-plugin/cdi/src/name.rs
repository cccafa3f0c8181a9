//! Names of devices: `vendor/class=name`.

use std::fmt;
use std::str::FromStr;

/// The most characters of a vendor (a DNS subdomain).
const MOST_VENDOR: usize = 253;
/// The most characters of a class, and of a device's name.
const MOST_LABEL: usize = 63;

/// A device by its full name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QualifiedName {
    vendor: String,
    class: String,
    name: String,
}

/// What is wrong with a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no full name of a device (vendor.com/class=name): {why}")]
pub struct NameError {
    text: String,
    why: &'static str,
}

// === impl QualifiedName ===

impl QualifiedName {
    /// A vendor's label.
    pub fn vendor(&self) -> &str {
        &self.vendor
    }

    /// The class of the vendor's devices.
    pub fn class(&self) -> &str {
        &self.class
    }

    /// The device's name among those of its kind.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is one of `vendor/class`.
    pub(crate) fn is_of(&self, kind: &str) -> bool {
        kind.split_once('/') == Some((&self.vendor, &self.class))
    }
}

impl FromStr for QualifiedName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let failed = |why| NameError { text: shorten(text), why };
        let (kind, name) = text.split_once('=').ok_or_else(|| failed("there is no ="))?;
        let (vendor, class) = kind.split_once('/').ok_or_else(|| failed("there is no /"))?;
        check_vendor(vendor).map_err(failed)?;
        check_class(class).map_err(failed)?;
        check_device(name).map_err(failed)?;
        Ok(Self { vendor: vendor.to_owned(), class: class.to_owned(), name: name.to_owned() })
    }
}

impl fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}={}", self.vendor, self.class, self.name)
    }
}

/// Whoever sent a name may have sent a long one.
fn shorten(text: &str) -> String {
    text.chars().take(512).collect()
}

pub(crate) fn check_vendor(vendor: &str) -> Result<(), &'static str> {
    if vendor.len() > MOST_VENDOR {
        return Err("a vendor has at most 253 characters");
    }
    check(vendor, |c| c.is_ascii_alphabetic(), "_-.").map_err(|()| {
        "a vendor begins with a letter, ends with a letter or digit, and has letters, digits, _, - and . between"
    })
}

pub(crate) fn check_class(class: &str) -> Result<(), &'static str> {
    if class.len() > MOST_LABEL {
        return Err("a class has at most 63 characters");
    }
    check(class, |c| c.is_ascii_alphabetic(), "_-.").map_err(|()| {
        "a class begins with a letter, ends with a letter or digit, and has letters, digits, _, - and . between"
    })
}

pub(crate) fn check_device(name: &str) -> Result<(), &'static str> {
    if name.len() > MOST_VENDOR {
        return Err("the name of a device has at most 253 characters");
    }
    check(name, |c| c.is_ascii_alphanumeric(), "_-.:").map_err(|()| {
        "the name of a device begins and ends with a letter or digit, and has letters, digits, _, -, . and : between"
    })
}

fn check(text: &str, first: fn(&char) -> bool, between: &str) -> Result<(), ()> {
    let begins = text.chars().next().is_some_and(|c| first(&c));
    let ends = text.ends_with(|c: char| c.is_ascii_alphanumeric());
    let holds = text.chars().all(|c| c.is_ascii_alphanumeric() || between.contains(c));
    if begins && ends && holds { Ok(()) } else { Err(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_vendors_are_read() {
        for text in ["nvidia.com/gpu=0", "nvidia.com/gpu=GPU-1:2", "amd/gpu=all", "k8s.io/a.b_c-d=x.y"] {
            assert_eq!(text.parse::<QualifiedName>().unwrap().to_string(), text);
        }
        let name: QualifiedName = "nvidia.com/gpu=mig-1g.5gb".parse().unwrap();
        assert_eq!((name.vendor(), name.class(), name.name()), ("nvidia.com", "gpu", "mig-1g.5gb"));
        assert!(name.is_of("nvidia.com/gpu") && !name.is_of("nvidia.com/gp"));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            "gpu",
            "nvidia.com/gpu",
            "nvidia.com=0",
            "/gpu=0",
            "nvidia.com/=0",
            "nvidia.com/gpu=",
            "1a/b=c",
            "a/1b=c",
            "a/b/c=d",
            "a-/b=c",
            "a/b-=c",
            "a/b=-c",
            "a/b=c-",
            "a/b=c d",
            "a/b=c=d",
            "a/b=ü",
            "ä/b=c",
        ] {
            assert!(text.parse::<QualifiedName>().is_err(), "{text}");
        }
        assert!(format!("a/b={}", "x".repeat(254)).parse::<QualifiedName>().is_err());
        assert!(format!("a/{}=b", "x".repeat(64)).parse::<QualifiedName>().is_err());
    }
}
