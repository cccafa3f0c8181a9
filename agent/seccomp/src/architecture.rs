//! The architectures a program on this node can make system calls for, and their call numbers.

use oci_spec::runtime::Arch;
use syscalls::{aarch64, arm, x86, x86_64};

use crate::Error;

/// x32 calls are x86-64 calls with this bit set.
pub(crate) const X32_BIT: u32 = 0x4000_0000;

/// An architecture of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// 64-bit x86, whose kernels also run 32-bit x86 programs.
    X86_64,
    /// 64-bit ARM, some of which also run 32-bit ARM programs.
    Aarch64,
}

/// A calling convention: what the kernel puts into `seccomp_data.arch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Abi {
    X86_64,
    X86,
    Aarch64,
    Arm,
}

// === impl Architecture ===

impl Architecture {
    /// This program's.
    ///
    /// # Errors
    /// On architectures without a table of system calls.
    pub fn native() -> Result<Self, Error> {
        match std::env::consts::ARCH {
            "x86_64" => Ok(Self::X86_64),
            "aarch64" => Ok(Self::Aarch64),
            other => Err(Error::Unsupported(other)),
        }
    }

    /// OCI's name of it.
    pub(crate) fn oci(self) -> Arch {
        match self {
            Self::X86_64 => Arch::ScmpArchX86_64,
            Self::Aarch64 => Arch::ScmpArchAarch64,
        }
    }

    /// Go's name of it, which `includes.arches` of a profile uses.
    pub(crate) fn go(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// The calling conventions that a profile's `architectures` name and the node has. Its own is
    /// always among them, first.
    pub(crate) fn abis(self, architectures: &[Arch]) -> Vec<Abi> {
        let (own, other, other_oci) = match self {
            Self::X86_64 => (Abi::X86_64, Abi::X86, Arch::ScmpArchX86),
            Self::Aarch64 => (Abi::Aarch64, Abi::Arm, Arch::ScmpArchArm),
        };
        let mut abis = vec![own];
        if architectures.contains(&other_oci) {
            abis.push(other);
        }
        abis
    }
}

// === impl Abi ===

impl Abi {
    /// `AUDIT_ARCH_*`.
    pub(crate) fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// The number of a system call, by its name in profiles (which is libseccomp's).
    pub(crate) fn number(self, name: &str) -> Option<u32> {
        let number = match self {
            Self::X86_64 => name.parse::<x86_64::Sysno>().ok().map(|call| call.id()),
            Self::X86 => name.parse::<x86::Sysno>().ok().map(|call| call.id()),
            Self::Aarch64 => match name {
                "newfstatat" => Some(aarch64::Sysno::fstatat.id()),
                _ => name.parse::<aarch64::Sysno>().ok().map(|call| call.id()),
            },
            // The last are ARM's own, from `arch/arm/include/uapi/asm/unistd.h`.
            Self::Arm => match name {
                "sync_file_range2" => Some(arm::Sysno::arm_sync_file_range.id()),
                "breakpoint" => Some(0xf_0001),
                "cacheflush" => Some(0xf_0002),
                "set_tls" => Some(0xf_0005),
                _ => name.parse::<arm::Sysno>().ok().map(|call| call.id()),
            },
        };
        number.and_then(|number| u32::try_from(number).ok())
    }
}

/// Whether some architecture has a system call of that name.
pub(crate) fn is_known(name: &str) -> bool {
    [Abi::X86_64, Abi::X86, Abi::Aarch64, Abi::Arm].iter().any(|abi| abi.number(name).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        for (abi, name, number) in [
            (Abi::X86_64, "read", Some(0)),
            (Abi::X86_64, "clone3", Some(435)),
            (Abi::X86_64, "newfstatat", Some(262)),
            (Abi::X86_64, "socketcall", None),
            (Abi::X86, "socketcall", Some(102)),
            (Abi::Aarch64, "newfstatat", Some(79)),
            (Abi::Aarch64, "open", None),
            (Abi::Arm, "set_tls", Some(0xf0005)),
            (Abi::Arm, "sync_file_range2", Some(341)),
        ] {
            assert_eq!(abi.number(name), number, "{abi:?} {name}");
        }
        assert!(!is_known("no_such_call"));
    }
}
