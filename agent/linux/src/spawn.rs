//! Starting a program from a process with threads.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::process::Pid;

/// A program to start by [`spawn`].
#[derive(Clone, Copy, Debug)]
pub struct Spawn<'a> {
    /// The program; a memfd will do. It is executed through `/proc/self/fd`.
    pub program: BorrowedFd<'a>,
    /// Its arguments, the name first. It gets no environment.
    pub arguments: &'a [&'a CStr],
    /// The number its first descriptor gets; those below are inherited.
    pub first: RawFd,
    /// Its descriptors, in order. All others must be closed on exec.
    pub descriptors: &'a [BorrowedFd<'a>],
}

/// Starts a program with `posix_spawn(3)`, in a session of its own, with every signal unblocked and at its
/// default.
///
/// This is the one way for a process with threads to start another: glibc does it by `CLONE_VFORK` with a
/// stack of its own and nothing but system calls in the child.
pub fn spawn(spawn: &Spawn<'_>) -> Result<Pid, Errno> {
    // The program and what goes to the child are duplicated above all places, so that putting one in place
    // never closes another one that is still needed.
    let count = RawFd::try_from(spawn.descriptors.len()).map_err(|_| Errno::MFILE)?;
    let above = spawn.first.checked_add(count).ok_or(Errno::MFILE)?;
    let program = duplicate_above(spawn.program, above)?;
    let sources: Vec<OwnedFd> = spawn
        .descriptors
        .iter()
        .map(|descriptor| duplicate_above(*descriptor, above))
        .collect::<Result<_, _>>()?;
    let path = CString::new(format!("/proc/self/fd/{}", program.as_raw_fd())).map_err(|_| Errno::INVAL)?;

    let mut actions = FileActions::new()?;
    for (place, source) in (spawn.first..).zip(&sources) {
        actions.duplicate(source.as_raw_fd(), place)?;
    }
    let attributes = Attributes::new()?;
    let mut arguments: Vec<*mut libc::c_char> =
        spawn.arguments.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
    arguments.push(std::ptr::null_mut());
    let environment = [std::ptr::null_mut()];

    let mut pid = 0;
    // SAFETY: actions and attributes are initialised; path, arguments and environment are terminated and
    // outlive the call.
    check(unsafe {
        libc::posix_spawn(
            &raw mut pid,
            path.as_ptr(),
            &raw const actions.0,
            &raw const attributes.0,
            arguments.as_ptr(),
            environment.as_ptr(),
        )
    })?;
    Pid::from_raw(pid).ok_or(Errno::CHILD)
}

fn duplicate_above(descriptor: BorrowedFd<'_>, least: RawFd) -> Result<OwnedFd, Errno> {
    rustix::io::fcntl_dupfd_cloexec(descriptor, least)
}

/// The functions of `spawn.h` return their error.
fn check(result: libc::c_int) -> Result<(), Errno> {
    if result == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(result)) }
}

struct FileActions(libc::posix_spawn_file_actions_t);

// === impl FileActions ===

impl FileActions {
    fn new() -> Result<Self, Errno> {
        // SAFETY: an object of integers and pointers may be zero, and init fills it before any use.
        let mut actions = Self(unsafe { std::mem::zeroed() });
        // SAFETY: it is valid for writing.
        check(unsafe { libc::posix_spawn_file_actions_init(&raw mut actions.0) })?;
        Ok(actions)
    }

    fn duplicate(&mut self, from: RawFd, to: RawFd) -> Result<(), Errno> {
        // SAFETY: it was initialised.
        check(unsafe { libc::posix_spawn_file_actions_adddup2(&raw mut self.0, from, to) })
    }
}

impl Drop for FileActions {
    fn drop(&mut self) {
        // SAFETY: it was initialised, and is destroyed once.
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}

struct Attributes(libc::posix_spawnattr_t);

// === impl Attributes ===

impl Attributes {
    fn new() -> Result<Self, Errno> {
        // SAFETY: an object of integers may be zero, and init fills it before any use.
        let mut attributes = Self(unsafe { std::mem::zeroed() });
        // SAFETY: it is valid for writing.
        check(unsafe { libc::posix_spawnattr_init(&raw mut attributes.0) })?;
        let raw = &raw mut attributes.0;
        // SAFETY: a set of integers may be zero, and both are initialised before any use.
        let (mut none, mut all): (libc::sigset_t, libc::sigset_t) = unsafe { std::mem::zeroed() };
        let signals = libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
        let flags = libc::c_short::try_from(signals).map_err(|_| Errno::INVAL)? | libc::POSIX_SPAWN_SETSID;
        // SAFETY: the attributes were initialised, the sets are valid for writing, then for reading.
        unsafe {
            libc::sigemptyset(&raw mut none);
            libc::sigfillset(&raw mut all);
            check(libc::posix_spawnattr_setsigmask(raw, &raw const none))?;
            check(libc::posix_spawnattr_setsigdefault(raw, &raw const all))?;
            check(libc::posix_spawnattr_setflags(raw, flags))?;
        }
        Ok(attributes)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: it was initialised, and is destroyed once.
        unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;

    use rustix::process::{WaitOptions, waitpid};

    use super::*;

    #[test]
    fn descriptors_are_put_in_place_whatever_numbers_they_have() {
        // Crossed on purpose: each would overwrite the other if moved one by one.
        let shell = File::open("/bin/sh").unwrap();
        let (mut output, writer) = std::io::pipe().unwrap();
        let script = rustix::fs::memfd_create("script", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::io::write(&script, b"echo three >&3; cat <&4 >&3; env >&3\n").unwrap();
        rustix::fs::seek(&script, rustix::fs::SeekFrom::Start(0)).unwrap();
        let extra = rustix::fs::memfd_create("extra", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::io::write(&extra, b"four\n").unwrap();
        rustix::fs::seek(&extra, rustix::fs::SeekFrom::Start(0)).unwrap();

        let pid = spawn(&Spawn {
            program: shell.as_fd(),
            arguments: &[c"sh", c"-s"],
            first: 0,
            descriptors: &[script.as_fd(), writer.as_fd(), writer.as_fd(), writer.as_fd(), extra.as_fd()],
        })
        .unwrap();
        drop(writer);
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        let (_, status) = waitpid(Some(pid), WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(0), "{text}");
        assert!(text.starts_with("three\nfour\n"), "{text}");
        assert!(!text.contains("PATH=/usr") && !text.contains("CARGO"), "the environment leaked: {text}");
    }

    #[test]
    fn a_program_that_cannot_be_executed_is_an_error() {
        let text = rustix::fs::memfd_create("text", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::io::write(&text, b"no program").unwrap();
        let spawned = spawn(&Spawn { program: text.as_fd(), arguments: &[c"x"], first: 3, descriptors: &[] });
        assert_eq!(spawned, Err(Errno::NOEXEC));
    }
}
