//! Which devices a container may use.

pub(crate) mod program;

use std::fmt;

/// Character or block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceKind {
    /// Character device.
    Char,
    /// Block device.
    Block,
}

/// What may be done with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Access {
    /// Open for reading.
    pub read: bool,
    /// Open for writing.
    pub write: bool,
    /// Make its node.
    pub mknod: bool,
}

/// One permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceRule {
    /// Character or block.
    pub kind: DeviceKind,
    /// The major number, or any.
    pub major: Option<u32>,
    /// The minor number, or any.
    pub minor: Option<u32>,
    /// What may be done.
    pub access: Access,
}

/// The devices a container may use.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DevicePolicy {
    /// All, as in privileged containers.
    All,
    /// Those some rule allows, and no other.
    Only(Vec<DeviceRule>),
}

// === impl DevicePolicy ===

impl Default for DevicePolicy {
    /// What every OCI runtime allows: the nodes that the specification's default /dev holds, terminals,
    /// and to make any node (which is of no use without a rule to open it).
    fn default() -> Self {
        let open = |major, minor| DeviceRule {
            kind: DeviceKind::Char,
            major: Some(major),
            minor,
            access: Access::ALL,
        };
        let mknod = |kind| DeviceRule { kind, major: None, minor: None, access: Access::MKNOD };
        Self::Only(vec![
            open(1, Some(3)), // null
            open(1, Some(5)), // zero
            open(1, Some(7)), // full
            open(1, Some(8)), // random
            open(1, Some(9)), // urandom
            open(5, Some(0)), // tty
            open(5, Some(1)), // console
            open(5, Some(2)), // ptmx
            open(136, None),  // pts/*
            mknod(DeviceKind::Char),
            mknod(DeviceKind::Block),
        ])
    }
}

impl DevicePolicy {
    /// The default, and these.
    pub fn default_with(rules: impl IntoIterator<Item = DeviceRule>) -> Self {
        let mut policy = Self::default();
        if let Self::Only(allowed) = &mut policy {
            allowed.extend(rules);
        }
        policy
    }
}

// === impl Access ===

impl Access {
    /// Everything.
    pub const ALL: Self = Self { read: true, write: true, mknod: true };
    /// To make the node.
    pub const MKNOD: Self = Self { read: false, write: false, mknod: true };
    /// To read.
    pub const READ: Self = Self { read: true, write: false, mknod: false };
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (set, letter) in [(self.read, "r"), (self.write, "w"), (self.mknod, "m")] {
            if set {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for DeviceRule {
    /// As `devices.allow` of cgroup v1 has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |n| n.to_string());
        let kind = match self.kind {
            DeviceKind::Char => 'c',
            DeviceKind::Block => 'b',
        };
        write!(f, "{kind} {}:{} {}", number(self.major), number(self.minor), self.access)
    }
}
