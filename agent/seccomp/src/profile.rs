//! Profiles as files: OCI's form, and Docker's, which containerd and others ship too.

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArgBuilder, LinuxSeccompFilterFlag, LinuxSyscall,
};
use serde::Deserialize;

use crate::{Architecture, CapSet, Error};

/// The largest text that is read; the largest profiles in use have some 20 kB.
const MAX_SIZE: usize = 1 << 20;

/// A profile that depends on the node and on a container's capabilities.
///
/// A field that is not known is an error: a misspelt one would open or close what it was to decide.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Profile {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<Arch>>,
    arch_map: Option<Vec<ArchMap>>,
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    listener_path: Option<String>,
    listener_metadata: Option<String>,
    syscalls: Option<Vec<Entry>>,
    #[serde(rename = "comment")]
    _comment: Option<String>,
}

/// Docker's way to name architectures.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ArchMap {
    architecture: Arch,
    sub_architectures: Option<Vec<Arch>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    args: Option<Vec<Argument>>,
    includes: Option<Filter>,
    excludes: Option<Filter>,
    #[serde(rename = "comment")]
    _comment: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Argument {
    index: usize,
    value: u64,
    value_two: Option<u64>,
    op: oci_spec::runtime::LinuxSeccompOperator,
}

/// When an entry of Docker's form counts.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Filter {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// What a profile's conditions are compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The node's architecture.
    pub architecture: Architecture,
    /// The node's kernel.
    pub kernel: KernelVersion,
}

/// A kernel's version: its first two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion(pub u32, pub u32);

// === impl Profile ===

impl Profile {
    /// Decodes a profile.
    ///
    /// # Errors
    /// When the text is no profile, or holds fields that exclude each other.
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        if text.len() > MAX_SIZE {
            return Err(Error::TooLarge { size: text.len(), limit: MAX_SIZE });
        }
        let profile: Self = serde_json::from_slice(text)?;
        let both = |set: bool, first, second, entry| {
            if set { Err(Error::Both { first, second, entry }) } else { Ok(()) }
        };
        let has = |list: &Option<Vec<Arch>>| list.as_ref().is_some_and(|list| !list.is_empty());
        let maps = profile.arch_map.as_ref().is_some_and(|maps| !maps.is_empty());
        both(has(&profile.architectures) && maps, "architectures", "archMap", None)?;
        for (index, entry) in profile.syscalls.iter().flatten().enumerate() {
            both(entry.name.is_some() && entry.names.is_some(), "name", "names", Some(index))?;
            if entry.name.is_none() && entry.names.as_ref().is_none_or(Vec::is_empty) {
                return Err(Error::NoNames(index));
            }
            for filter in [&entry.includes, &entry.excludes].into_iter().flatten() {
                filter.min_kernel.as_deref().map(KernelVersion::parse).transpose()?;
            }
        }
        Ok(profile)
    }

    /// What it says for a container with these capabilities on this node.
    ///
    /// # Errors
    /// When a value is out of its range.
    pub fn resolve(&self, host: &Host, capabilities: &CapSet) -> Result<LinuxSeccomp, Error> {
        if self.listener_path.is_some() || self.listener_metadata.is_some() {
            return Err(Error::Notify("listenerPath".into()));
        }
        let mut architectures = self.architectures.clone().unwrap_or_default();
        for map in self.arch_map.iter().flatten().filter(|map| map.architecture == host.architecture.oci()) {
            architectures.push(map.architecture);
            architectures.extend(map.sub_architectures.iter().flatten());
        }
        let mut syscalls = Vec::new();
        for entry in self.syscalls.iter().flatten() {
            if entry.counts(host, capabilities)? {
                syscalls.push(entry.resolve()?);
            }
        }
        let mut resolved = LinuxSeccomp::default();
        resolved
            .set_default_action(self.default_action)
            .set_default_errno_ret(self.default_errno_ret)
            .set_architectures(Some(architectures))
            .set_flags(self.flags.clone())
            .set_syscalls(Some(syscalls));
        Ok(resolved)
    }
}

// === impl Entry ===

impl Entry {
    fn counts(&self, host: &Host, capabilities: &CapSet) -> Result<bool, Error> {
        let names_arch =
            |filter: &Filter| filter.arches.iter().flatten().any(|arch| arch == host.architecture.go());
        if let Some(excludes) = &self.excludes {
            let held = excludes.caps.iter().flatten().any(|cap| capabilities.contains(cap));
            if held
                || names_arch(excludes)
                || excludes.kernel()?.is_some_and(|minimum| host.kernel >= minimum)
            {
                return Ok(false);
            }
        }
        if let Some(includes) = &self.includes {
            let held = includes.caps.iter().flatten().all(|cap| capabilities.contains(cap));
            let arch = includes.arches.as_ref().is_none_or(Vec::is_empty) || names_arch(includes);
            return Ok(held && arch && includes.kernel()?.is_none_or(|minimum| host.kernel >= minimum));
        }
        Ok(true)
    }

    fn resolve(&self) -> Result<LinuxSyscall, Error> {
        let mut names = self.names.clone().unwrap_or_default();
        names.extend(self.name.clone());
        let mut conditions = Vec::new();
        for argument in self.args.iter().flatten() {
            let mut condition =
                LinuxSeccompArgBuilder::default().index(argument.index).value(argument.value).op(argument.op);
            if let Some(second) = argument.value_two {
                condition = condition.value_two(second);
            }
            conditions.push(condition.build()?);
        }
        let mut resolved = LinuxSyscall::default();
        resolved
            .set_names(names)
            .set_action(self.action)
            .set_errno_ret(self.errno_ret)
            .set_args(Some(conditions));
        Ok(resolved)
    }
}

// === impl Filter ===

impl Filter {
    fn kernel(&self) -> Result<Option<KernelVersion>, Error> {
        self.min_kernel.as_deref().map(KernelVersion::parse).transpose()
    }
}

// === impl Host ===

impl Host {
    /// This one.
    ///
    /// # Errors
    /// On an architecture that is not supported, or when the kernel's version cannot be read.
    pub fn detect() -> Result<Self, Error> {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Ok(Self { architecture: Architecture::native()?, kernel: KernelVersion::parse(release.trim())? })
    }
}

// === impl KernelVersion ===

impl KernelVersion {
    /// The version at the beginning of a text such as `6.1.0-13-amd64`.
    ///
    /// # Errors
    /// When it does not begin with two numbers.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let number = |part: Option<&str>| -> Option<u32> {
            let part = part?;
            part[..part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len())].parse().ok()
        };
        let mut parts = text.split('.');
        match (number(parts.next()), number(parts.next())) {
            (Some(major), Some(minor)) => Ok(Self(major, minor)),
            _ => Err(Error::KernelVersion(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests;
