//! The mount options of the OCI runtime specification.

use coracle_linux::MountAttributes;
use rustix::mount::{MountAttrFlags, MountPropagationFlags};

/// Options, sorted by who acts on them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MountOptions {
    /// On the mount itself.
    pub(crate) flags: Flags,
    /// On it and all below it.
    pub(crate) recursive_flags: Flags,
    /// How mounts and unmounts below it spread, and whether that is said of all below it.
    pub(crate) propagation: Option<(MountPropagationFlags, bool)>,
    /// `bind` or `rbind` was among them.
    pub(crate) bind: bool,
    /// For the file system: keys, and values where given.
    pub(crate) data: Vec<(String, Option<String>)>,
}

/// Flags to set and to clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) set: MountAttrFlags,
    pub(crate) clear: MountAttrFlags,
}

impl Default for Flags {
    fn default() -> Self {
        Self { set: MountAttrFlags::empty(), clear: MountAttrFlags::empty() }
    }
}

impl Flags {
    fn is_empty(self) -> bool {
        self.set.is_empty() && self.clear.is_empty()
    }

    /// The later option wins.
    fn add(&mut self, set: MountAttrFlags, clear: MountAttrFlags) {
        self.set = (self.set - clear) | set;
        self.clear = (self.clear - set) | clear;
    }
}

impl MountOptions {
    /// Parses `mounts[].options`. Fails with the option that has no meaning here.
    pub(crate) fn parse(options: &[String]) -> Result<Self, String> {
        let mut parsed = Self::default();
        for option in options {
            parsed.add(option)?;
        }
        Ok(parsed)
    }

    fn add(&mut self, option: &str) -> Result<(), String> {
        if let Some((set, clear)) = flag(option) {
            self.flags.add(set, clear);
        } else if let Some((set, clear)) = option.strip_prefix('r').and_then(flag) {
            self.recursive_flags.add(set, clear);
        } else if let Some(kind) = propagation(option) {
            self.propagation = Some((kind, false));
        } else if let Some(kind) = option.strip_prefix('r').and_then(propagation) {
            self.propagation = Some((kind, true));
        } else {
            match option {
                "bind" | "rbind" => self.bind = true,
                "defaults" | "" => {}
                "remount" | "tmpcopyup" | "idmap" | "ridmap" | "copy-symlink" => {
                    return Err(option.to_owned());
                }
                _ => self.data.push(match option.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                    None => (option.to_owned(), None),
                }),
            }
        }
        Ok(())
    }

    /// The flags a new mount of a file system is made with.
    pub(crate) fn initial(&self) -> MountAttrFlags {
        self.flags.set | self.recursive_flags.set
    }

    /// The changes that turn a mount made elsewhere into what the options say: at most one for the whole
    /// tree and one for its top.
    pub(crate) fn changes(&self) -> impl Iterator<Item = MountAttributes> {
        let change = |flags: Flags, recursive| {
            let propagation = self.propagation.filter(|(_, all)| *all == recursive).map(|(kind, _)| kind);
            let needed = !flags.is_empty() || propagation.is_some();
            needed.then_some(MountAttributes { set: flags.set, clear: flags.clear, propagation, recursive })
        };
        [change(self.recursive_flags, true), change(self.flags, false)].into_iter().flatten()
    }
}

/// A kind of propagation, by its name.
pub(crate) fn propagation(word: &str) -> Option<MountPropagationFlags> {
    Some(match word {
        "private" => MountPropagationFlags::PRIVATE,
        "shared" => MountPropagationFlags::SHARED,
        "slave" => MountPropagationFlags::DOWNSTREAM,
        "unbindable" => MountPropagationFlags::UNBINDABLE,
        _ => return None,
    })
}

/// What an option sets and clears. The access-time modes are a field of the flags, cleared as a whole.
fn flag(word: &str) -> Option<(MountAttrFlags, MountAttrFlags)> {
    use MountAttrFlags as F;
    let none = F::empty();
    Some(match word {
        "ro" => (F::MOUNT_ATTR_RDONLY, none),
        "rw" => (none, F::MOUNT_ATTR_RDONLY),
        "nosuid" => (F::MOUNT_ATTR_NOSUID, none),
        "suid" => (none, F::MOUNT_ATTR_NOSUID),
        "nodev" => (F::MOUNT_ATTR_NODEV, none),
        "dev" => (none, F::MOUNT_ATTR_NODEV),
        "noexec" => (F::MOUNT_ATTR_NOEXEC, none),
        "exec" => (none, F::MOUNT_ATTR_NOEXEC),
        "nodiratime" => (F::MOUNT_ATTR_NODIRATIME, none),
        "diratime" => (none, F::MOUNT_ATTR_NODIRATIME),
        "nosymfollow" => (F::MOUNT_ATTR_NOSYMFOLLOW, none),
        "symfollow" => (none, F::MOUNT_ATTR_NOSYMFOLLOW),
        "noatime" => (F::MOUNT_ATTR_NOATIME, F::MOUNT_ATTR__ATIME),
        "strictatime" => (F::MOUNT_ATTR_STRICTATIME, F::MOUNT_ATTR__ATIME),
        // Relative is the kernel's default, and what the two negations fall back to.
        "relatime" | "atime" | "norelatime" | "nostrictatime" => (none, F::MOUNT_ATTR__ATIME),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> MountOptions {
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        MountOptions::parse(&options).unwrap()
    }

    #[test]
    fn options_are_sorted_by_who_acts_on_them() {
        let parsed = parse(&["nosuid", "strictatime", "mode=755", "size=65536k", "newinstance"]);
        assert_eq!(
            parsed.initial(),
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_STRICTATIME
        );
        let data: Vec<_> = parsed.data.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
        assert_eq!(data, [("mode", Some("755")), ("size", Some("65536k")), ("newinstance", None)]);
    }

    #[test]
    fn recursive_and_plain_flags_are_told_apart() {
        let changes: Vec<_> = parse(&["rbind", "rro", "nosuid", "rslave"]).changes().collect();
        assert_eq!(changes.len(), 2);
        assert!(changes[0].recursive);
        assert_eq!(changes[0].set, MountAttrFlags::MOUNT_ATTR_RDONLY);
        assert_eq!(changes[0].propagation, Some(MountPropagationFlags::DOWNSTREAM));
        assert!(!changes[1].recursive);
        assert_eq!(changes[1].set, MountAttrFlags::MOUNT_ATTR_NOSUID);
        assert_eq!(changes[1].propagation, None);
    }

    #[test]
    fn the_later_of_two_contrary_options_wins() {
        let flags = parse(&["ro", "rw"]).flags;
        assert_eq!((flags.set, flags.clear), (MountAttrFlags::empty(), MountAttrFlags::MOUNT_ATTR_RDONLY));
        let flags = parse(&["rw", "ro"]).flags;
        assert_eq!((flags.set, flags.clear), (MountAttrFlags::MOUNT_ATTR_RDONLY, MountAttrFlags::empty()));
    }

    #[test]
    fn words_that_only_look_recursive_are_not() {
        // relatime is not "recursive elatime", rw is not "recursive w".
        assert_eq!(parse(&["relatime", "rw"]).recursive_flags, Flags::default());
        assert!(parse(&["rbind"]).changes().next().is_none());
    }

    #[test]
    fn options_without_a_meaning_here_are_refused() {
        for option in ["remount", "idmap", "tmpcopyup"] {
            assert_eq!(MountOptions::parse(&[option.to_owned()]), Err(option.to_owned()));
        }
    }
}
