//! Sets of capabilities, by name.

use std::collections::BTreeSet;

/// The capabilities of a container's bounding set. Names are taken with or without `CAP_`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CapSet(BTreeSet<String>);

impl CapSet {
    /// Whether it holds a capability.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains(canonical(name).as_str())
    }
}

impl<S: AsRef<str>> FromIterator<S> for CapSet {
    fn from_iter<T: IntoIterator<Item = S>>(names: T) -> Self {
        Self(names.into_iter().map(|name| canonical(name.as_ref())).collect())
    }
}

fn canonical(name: &str) -> String {
    let name = name.to_ascii_uppercase();
    name.strip_prefix("CAP_").map(str::to_owned).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_does_not_matter() {
        let set = CapSet::from_iter(["CAP_SYS_ADMIN", "chown"]);
        assert!(set.contains("SYS_ADMIN") && set.contains("cap_chown"));
        assert!(!set.contains("SYS_BOOT"));
        assert_eq!(set, CapSet::from_iter(["CHOWN", "SYS_ADMIN"]));
    }
}
