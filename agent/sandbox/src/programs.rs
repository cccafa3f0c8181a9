//! The static programs of a pod, as sealed memfds.
//!
//! A program that runs from a file of the host could be reached, and with a race be overwritten, through
//! `/proc/<pid>/exe` by whoever shares its pid namespace. One that runs from sealed memory cannot.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;

static PAUSE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));
static INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/coracle-init"));

/// The programs, ready to be executed. Make them once: each is a copy in memory.
#[derive(Debug)]
pub struct Programs {
    pause: OwnedFd,
    init: OwnedFd,
}

/// A program could not be put into a sealed memfd.
#[derive(Debug, thiserror::Error)]
#[error("cannot put {program} into sealed executable memory (memfd; see vm.memfd_noexec)")]
pub struct ProgramsError {
    program: &'static str,
    #[source]
    source: io::Error,
}

// === impl Programs ===

impl Programs {
    /// Copies the embedded programs into sealed memfds.
    ///
    /// # Errors
    /// When memory is short, or `vm.memfd_noexec=2` forbids executable memfds.
    pub fn load() -> Result<Self, ProgramsError> {
        Ok(Self { pause: sealed("pause", PAUSE)?, init: sealed("coracle-init", INIT)? })
    }

    /// pause.
    pub fn pause(&self) -> BorrowedFd<'_> {
        self.pause.as_fd()
    }

    /// container-init.
    pub fn init(&self) -> BorrowedFd<'_> {
        self.init.as_fd()
    }
}

fn sealed(program: &'static str, bytes: &[u8]) -> Result<OwnedFd, ProgramsError> {
    let failed = |source| ProgramsError { program, source };
    let memfd = create(program).map_err(|errno| failed(errno.into()))?;
    let mut rest = bytes;
    while !rest.is_empty() {
        match rustix::io::write(&memfd, rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
    }
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&memfd, seals).map_err(|errno| failed(errno.into()))?;
    Ok(memfd)
}

/// `MFD_EXEC` says that it will be executed, which `vm.memfd_noexec=1` asks for; before Linux 6.3 all
/// memfds could be and the flag was unknown.
fn create(name: &str) -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match memfd_create(name, flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => memfd_create(name, flags),
        created => created,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_cannot_be_changed() {
        let programs = Programs::load().unwrap();
        for (program, bytes) in [(programs.pause(), PAUSE), (programs.init(), INIT)] {
            assert_eq!(rustix::io::pwrite(program, b"x", 0), Err(Errno::PERM));
            assert_eq!(rustix::fs::ftruncate(program, 0), Err(Errno::PERM));
            let length = rustix::fs::fstat(program).unwrap().st_size;
            assert_eq!(length, i64::try_from(bytes.len()).unwrap());
        }
    }

    /// Whether an ELF file of 64 bits asks for a dynamic linker (`PT_INTERP`).
    fn has_interpreter(elf: &[u8]) -> bool {
        let number = |at: usize, size: usize| {
            let mut bytes = [0; 8];
            bytes[..size].copy_from_slice(&elf[at..at + size]);
            usize::try_from(u64::from_le_bytes(bytes)).unwrap()
        };
        assert_eq!(elf[..4], *b"\x7fELF");
        let (headers, size, count) = (number(32, 8), number(54, 2), number(56, 2));
        (0..count).any(|header| number(headers + header * size, 4) == 3)
    }

    #[test]
    fn the_programs_are_static() {
        assert!(!has_interpreter(PAUSE));
        assert!(!has_interpreter(INIT));
        let this = std::fs::read("/proc/self/exe").unwrap();
        assert!(has_interpreter(&this), "the test cannot tell");
    }

    #[test]
    fn pause_is_small_and_cannot_panic() {
        assert!(PAUSE.len() < 32 * 1024, "pause has {} bytes", PAUSE.len());
        let source = b".rs";
        let names_sources = PAUSE.windows(source.len()).any(|window| window == source);
        assert!(!names_sources, "pause names source files, so something in it can panic");
    }
}
