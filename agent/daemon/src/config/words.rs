//! Fields whose value is one of a few words.

use super::problems::{Giver, Problems};

/// `cgroupDriver`: who makes the pods' cgroups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CgroupDriver {
    /// The agent, as directories below `cgroupRoot`.
    #[default]
    Cgroupfs,
    /// systemd, as slices and scopes.
    Systemd,
}

/// `podsOnStop`: what becomes of the pods when the service is stopped. A restart touches none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum PodsOnStop {
    /// They run on, for the next agent.
    #[default]
    Leave,
    /// They are ended, in the order of a shutdown.
    End,
}

/// A type that has a word for each of its values.
pub(super) trait Words: Copy + Default + 'static {
    /// All of them, as they are written.
    const ALL: &'static [(&'static str, Self)];
}

impl Words for CgroupDriver {
    const ALL: &'static [(&'static str, Self)] = &[("cgroupfs", Self::Cgroupfs), ("systemd", Self::Systemd)];
}

impl Words for PodsOnStop {
    const ALL: &'static [(&'static str, Self)] = &[("leave", Self::Leave), ("end", Self::End)];
}

/// The value that the word of a field stands for; the default one without a word.
pub(super) fn read<T: Words>(word: Option<&str>, field: &str, problems: &mut Problems) -> T {
    let Some(word) = word else { return T::default() };
    T::ALL.iter().find(|(name, _)| *name == word).map_or_else(
        || {
            let words: Vec<_> = T::ALL.iter().map(|(name, _)| *name).collect();
            problems.unsupported(&Giver::field(field), word, &words);
            T::default()
        },
        |(_, value)| *value,
    )
}
