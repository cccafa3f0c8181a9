//! Seccomp filters of containers, compiled once per distinct profile and set of capabilities.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_model::{Container, Pod, SeccompProfile};
use coracle_seccomp::{Cache, CapSet, Host, Program};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use crate::error::Error;
use crate::spec::{Granted, seccomp_profile};

/// The node's filters.
pub(crate) struct Filters {
    cache: Cache,
    profile_root: PathBuf,
}

/// A filter, as init is given it.
#[derive(Debug)]
pub(crate) struct Filter {
    program: OwnedFd,
    flags: u32,
}

/// No profile is larger; the default one is 60 KiB as JSON.
const MAX_PROFILE: u64 = 4 * 1024 * 1024;

// === impl Filters ===

impl Filters {
    /// No filters yet; `Localhost` profiles lie beneath `profile_root`.
    pub(crate) fn new(profile_root: PathBuf) -> Result<Self, Error> {
        let host = Host::detect().map_err(|error| failed("RuntimeDefault", &error))?;
        Ok(Self { cache: Cache::new(host), profile_root })
    }

    /// The filter of a container; `None` when it gets none.
    pub(crate) fn of(
        &self,
        pod: &Pod,
        container: &Container,
        granted: &Granted,
        default: bool,
    ) -> Result<Option<Filter>, Error> {
        let Some(profile) = seccomp_profile(pod, container, default) else { return Ok(None) };
        let capabilities = CapSet::from_iter(granted.set.iter().map(String::as_str));
        let program = match profile {
            SeccompProfile::Unconfined => return Ok(None),
            SeccompProfile::RuntimeDefault => {
                self.cache.default_profile(&capabilities).map_err(|error| failed("RuntimeDefault", &error))?
            }
            SeccompProfile::Localhost(path) => self.local(path, &capabilities)?,
        };
        Filter::new(&program).map(Some).map_err(|error| failed("the compiled program", &error))
    }

    fn local(&self, path: &Path, capabilities: &CapSet) -> Result<Arc<Program>, Error> {
        let path = self.profile_root.join(path);
        let name = path.display().to_string();
        let size = fs::metadata(&path).map_err(|error| failed(&name, &error))?.len();
        if size > MAX_PROFILE {
            return Err(failed(&name, &format_args!("{size} bytes are more than the {MAX_PROFILE} allowed")));
        }
        let text = fs::read(&path).map_err(|error| failed(&name, &error))?;
        self.cache.profile(&text, capabilities).map_err(|error| failed(&name, &error))
    }
}

fn failed(profile: &str, error: &dyn std::fmt::Display) -> Error {
    Error::Seccomp { profile: profile.to_owned(), message: error.to_string() }
}

// === impl Filter ===

impl Filter {
    fn new(program: &Program) -> io::Result<Self> {
        let memory = memfd_create("seccomp", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let mut bytes = program.bytes();
        while !bytes.is_empty() {
            let written = rustix::io::write(&memory, bytes)?;
            bytes = bytes.get(written..).unwrap_or_default();
        }
        fcntl_add_seals(&memory, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
        Ok(Self { program: memory, flags: program.flags() })
    }

    /// The instructions, in sealed memory.
    pub(crate) fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    /// `SECCOMP_FILTER_FLAG_*`.
    pub(crate) fn flags(&self) -> u32 {
        self.flags
    }
}
