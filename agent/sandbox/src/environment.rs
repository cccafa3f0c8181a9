//! A container's environment, for programs that are executed in it later.
//!
//! Values of Secrets may be in it, so it must not be written to the run directory, which may lie on a disk.
//! It is kept in a memfd instead, which pause holds with the container's pipes: the next agent takes it
//! from there, and it goes with the container. The environment of the container's first process would not
//! do: programs write over it.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, memfd_create};

/// More than the kernel would take at `execve`.
const MAX_BYTES: u64 = 64 << 20;

const SEALS: SealFlags =
    SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// Writes it into a memfd that nobody can change any more.
pub(crate) fn keep(environment: &[(String, String)]) -> io::Result<OwnedFd> {
    let bytes = serde_json::to_vec(environment)?;
    let memory = memfd_create("coracle-environment", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut written = 0;
    while written < bytes.len() {
        written += rustix::io::pwrite(&memory, &bytes[written..], written as u64)?;
    }
    fcntl_add_seals(&memory, SEALS)?;
    Ok(memory)
}

/// Reads what [`keep`] has written. Refuses what it has not.
pub(crate) fn read(memory: &OwnedFd) -> io::Result<Vec<(String, String)>> {
    if !fcntl_get_seals(memory)?.contains(SEALS) {
        return Err(io::Error::other("it can be written to"));
    }
    let size = u64::try_from(fstat(memory)?.st_size).unwrap_or(u64::MAX);
    if size > MAX_BYTES {
        return Err(io::Error::other("it is too large"));
    }
    let mut bytes = vec![0; size as usize];
    let mut read = 0;
    while read < bytes.len() {
        // Not by the file's offset: whoever holds the same file shares it.
        match rustix::io::pread(memory, &mut bytes[read..], read as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => read += count,
        }
    }
    Ok(serde_json::from_slice(&bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_can_be_read_by_everybody_who_holds_it_and_written_by_nobody() {
        let environment = [("A".to_owned(), "b=c\nd".to_owned()), ("É".to_owned(), String::new())];
        let kept = keep(&environment).unwrap();
        let held = kept.try_clone().unwrap();
        for _ in 0..2 {
            assert_eq!(read(&kept).unwrap(), environment);
            assert_eq!(read(&held).unwrap(), environment);
        }
        assert!(rustix::io::pwrite(&held, b"x", 0).is_err());
        let (pipe, _) = rustix::pipe::pipe().unwrap();
        assert!(read(&pipe).is_err());
        let open = memfd_create("test", MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::io::write(&open, b"[]").unwrap();
        assert!(read(&open).is_err());
    }
}
