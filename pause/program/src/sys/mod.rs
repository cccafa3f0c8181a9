//! The system calls pause makes, each with safe arguments where it can have them.

#[cfg(target_arch = "aarch64")]
#[path = "aarch64.rs"]
mod arch;
#[cfg(target_arch = "x86_64")]
#[path = "x86_64.rs"]
mod arch;

pub(crate) mod mount;
pub(crate) mod process;
pub(crate) mod signal;

use core::ffi::CStr;

use arch::nr;

/// An error number of the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

/// What a system call returns.
pub(crate) type Result<T = usize> = core::result::Result<T, Errno>;

pub(crate) const EPERM: Errno = Errno(1);
pub(crate) const ENOENT: Errno = Errno(2);
pub(crate) const ESRCH: Errno = Errno(3);
pub(crate) const EINTR: Errno = Errno(4);
pub(crate) const ECHILD: Errno = Errno(10);
pub(crate) const EAGAIN: Errno = Errno(11);
pub(crate) const EBUSY: Errno = Errno(16);
pub(crate) const EEXIST: Errno = Errno(17);
pub(crate) const EINVAL: Errno = Errno(22);
pub(crate) const EMFILE: Errno = Errno(24);
pub(crate) const ENOSPC: Errno = Errno(28);
pub(crate) const ENOSYS: Errno = Errno(38);
pub(crate) const EBADMSG: Errno = Errno(74);
pub(crate) const EMSGSIZE: Errno = Errno(90);
pub(crate) const EPROTONOSUPPORT: Errno = Errno(93);
pub(crate) const ECONNABORTED: Errno = Errno(103);

/// One entry of `ppoll`; a negative descriptor is skipped.
#[repr(C)]
pub(crate) struct PollFd {
    pub(crate) fd: i32,
    pub(crate) events: i16,
    pub(crate) revents: i16,
}

pub(crate) const POLLIN: i16 = 1;

#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Timespec {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: i64,
}

/// A soft and a hard limit.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Rlimit {
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

const O_RDWR: usize = 0o2;
const O_WRONLY: usize = 0o1;
const O_NONBLOCK: usize = 0o4000;
const O_CLOEXEC: usize = 0o2000000;
const AT_FDCWD: usize = -100_isize as usize;

/// Makes system call `number`.
///
/// # Safety
///
/// As for `arch::syscall6`; arguments not given are 0.
#[inline(always)]
unsafe fn call<const N: usize>(number: usize, args: [usize; N]) -> Result {
    // Not a loop: each becomes a constant or a register.
    let arg = |at: usize| args.get(at).copied().unwrap_or(0);
    let all = [arg(0), arg(1), arg(2), arg(3), arg(4), arg(5)];
    // SAFETY: passed on to the caller.
    let result = unsafe { arch::syscall6(number, all) };
    if (-4095..0).contains(&result) { Err(Errno(-result as i32)) } else { Ok(result as usize) }
}

pub(crate) fn exit(code: i32) -> ! {
    loop {
        // SAFETY: takes no pointer.
        let _ = unsafe { call(nr::EXIT_GROUP, [code as usize]) };
    }
}

pub(crate) fn close(fd: i32) {
    // SAFETY: takes no pointer; the owner of the descriptor gives it up.
    let _ = unsafe { call(nr::CLOSE, [fd as usize]) };
}

pub(crate) fn read(fd: i32, buffer: &mut [u8]) -> Result {
    // SAFETY: the kernel writes at most the buffer's length into it.
    unsafe { call(nr::READ, [fd as usize, buffer.as_mut_ptr() as usize, buffer.len()]) }
}

pub(crate) fn write(fd: i32, bytes: &[u8]) -> Result {
    // SAFETY: the kernel reads at most the slice's length.
    unsafe { call(nr::WRITE, [fd as usize, bytes.as_ptr() as usize, bytes.len()]) }
}

pub(crate) fn open_read_write(path: &CStr) -> Result<i32> {
    open(path, O_RDWR | O_CLOEXEC)
}

pub(crate) fn open_write(path: &CStr) -> Result<i32> {
    open(path, O_WRONLY | O_CLOEXEC)
}

fn open(path: &CStr, flags: usize) -> Result<i32> {
    // SAFETY: the path is terminated by zero.
    unsafe { call(nr::OPENAT, [AT_FDCWD, path.as_ptr() as usize, flags, 0]) }.map(|fd| fd as i32)
}

/// Puts a duplicate that survives `execve` at `to`; the two must differ.
pub(crate) fn dup_to(fd: i32, to: i32) -> Result {
    // SAFETY: takes no pointer.
    unsafe { call(nr::DUP3, [fd as usize, to as usize, 0]) }
}

/// Whether the descriptor is open.
pub(crate) fn is_open(fd: i32) -> bool {
    const F_GETFD: usize = 1;
    // SAFETY: takes no pointer.
    unsafe { call(nr::FCNTL, [fd as usize, F_GETFD]) }.is_ok()
}

pub(crate) fn set_nonblocking(fd: i32) -> Result {
    const F_GETFL: usize = 3;
    const F_SETFL: usize = 4;
    // SAFETY: takes no pointer.
    let flags = unsafe { call(nr::FCNTL, [fd as usize, F_GETFL]) }?;
    // SAFETY: takes no pointer.
    unsafe { call(nr::FCNTL, [fd as usize, F_SETFL, flags | O_NONBLOCK]) }
}

/// Closes every descriptor from `first` on.
pub(crate) fn close_from(first: i32) -> Result {
    // SAFETY: takes no pointer.
    unsafe { call(close_range::NR, [first as usize, u32::MAX as usize, 0]) }
}

/// Has every descriptor from `first` on closed by `execve`.
pub(crate) fn cloexec_from(first: i32) -> Result {
    // SAFETY: takes no pointer.
    unsafe { call(close_range::NR, [first as usize, u32::MAX as usize, close_range::CLOEXEC]) }
}

mod close_range {
    /// The same on every architecture, as all system calls since Linux 5.1.
    pub(super) const NR: usize = 436;
    pub(super) const CLOEXEC: usize = 4;
}

/// A pipe: reading end, writing end.
pub(crate) fn pipe() -> Result<[i32; 2]> {
    let mut ends = [-1; 2];
    // SAFETY: the kernel writes two ints.
    unsafe { call(nr::PIPE2, [ends.as_mut_ptr() as usize, O_CLOEXEC]) }?;
    Ok(ends)
}

pub(crate) fn ppoll(fds: &mut [PollFd], timeout: Option<Timespec>) -> Result {
    let mut timeout = timeout;
    let timeout = timeout.as_mut().map_or(0, |timeout| &raw mut *timeout as usize);
    // SAFETY: the kernel writes into the entries and the time, which live until it returns; the signal
    // mask is left alone.
    unsafe { call(nr::PPOLL, [fds.as_mut_ptr() as usize, fds.len(), timeout, 0, 0]) }
}

/// Nanoseconds of `CLOCK_REALTIME`.
pub(crate) fn wall_clock_ns() -> u64 {
    let mut now = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: the kernel writes one timespec.
    let _ = unsafe { call(nr::CLOCK_GETTIME, [0, &raw mut now as usize]) };
    (now.seconds as u64).wrapping_mul(1_000_000_000).wrapping_add(now.nanoseconds as u64)
}

/// Sets the limit on descriptors; returns the one before.
pub(crate) fn swap_nofile(new: Option<Rlimit>) -> Result<Rlimit> {
    const RLIMIT_NOFILE: usize = 7;
    let mut old = Rlimit { soft: 0, hard: 0 };
    let new = new.as_ref().map_or(0, |new| &raw const *new as usize);
    // SAFETY: the kernel reads one limit, if given, and writes one.
    unsafe { call(nr::PRLIMIT64, [0, RLIMIT_NOFILE, new, &raw mut old as usize]) }?;
    Ok(old)
}

/// Makes the interface `lo` of this network namespace go up.
pub(crate) fn bring_loopback_up() -> Result<()> {
    const AF_UNIX: usize = 1;
    const SOCK_DGRAM: usize = 2;
    const SIOCGIFFLAGS: usize = 0x8913;
    const SIOCSIFFLAGS: usize = 0x8914;
    const IFF_UP: i16 = 1;

    #[repr(C)]
    struct Ifreq {
        name: [u8; 16],
        flags: i16,
        rest: [u8; 22],
    }

    let mut request = Ifreq { name: *b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0", flags: 0, rest: [0; 22] };
    let address = &raw mut request as usize;
    // Any socket carries these requests; this family is there even where IPv4 is not.
    // SAFETY: takes no pointer.
    let socket = unsafe { call(nr::SOCKET, [AF_UNIX, SOCK_DGRAM | O_CLOEXEC, 0]) }?;
    // SAFETY: the kernel reads and writes one ifreq.
    let result = unsafe { call(nr::IOCTL, [socket, SIOCGIFFLAGS, address]) }.and_then(|_| {
        request.flags |= IFF_UP;
        // SAFETY: the kernel reads one ifreq.
        unsafe { call(nr::IOCTL, [socket, SIOCSIFFLAGS, &raw mut request as usize]) }
    });
    close(socket as i32);
    result.map(drop)
}

pub(crate) mod net {
    //! Sockets; the messages themselves are in `crate::socket`.

    use super::{Errno, O_CLOEXEC, O_NONBLOCK, Result, call, nr};

    #[repr(C)]
    pub(crate) struct IoVec {
        pub(crate) base: *mut u8,
        pub(crate) length: usize,
    }

    #[repr(C)]
    pub(crate) struct MsgHdr {
        pub(crate) name: usize,
        pub(crate) name_length: u32,
        pub(crate) iov: *mut IoVec,
        pub(crate) iov_length: usize,
        pub(crate) control: *mut u8,
        pub(crate) control_length: usize,
        pub(crate) flags: i32,
    }

    const MSG_DONTWAIT: usize = 0x40;
    const MSG_NOSIGNAL: usize = 0x4000;
    const MSG_CMSG_CLOEXEC: usize = 0x4000_0000;

    pub(crate) fn listen(socket: i32, backlog: i32) -> Result {
        // SAFETY: takes no pointer.
        unsafe { call(nr::LISTEN, [socket as usize, backlog as usize]) }
    }

    /// A connection, non-blocking.
    pub(crate) fn accept(socket: i32) -> Result<i32> {
        // SAFETY: no address is asked for.
        unsafe { call(nr::ACCEPT4, [socket as usize, 0, 0, O_CLOEXEC | O_NONBLOCK]) }.map(|fd| fd as i32)
    }

    /// The effective user of the peer when it connected.
    pub(crate) fn peer_user(socket: i32) -> Result<u32> {
        const SOL_SOCKET: usize = 1;
        const SO_PEERCRED: usize = 17;
        let mut credentials = [u32::MAX; 3];
        let mut length = size_of_val(&credentials) as u32;
        let args = [
            socket as usize,
            SOL_SOCKET,
            SO_PEERCRED,
            credentials.as_mut_ptr() as usize,
            &raw mut length as usize,
        ];
        // SAFETY: the kernel writes pid, uid and gid, and how much it wrote.
        unsafe { call(nr::GETSOCKOPT, args) }?;
        let [_, user, _] = credentials;
        if length as usize == size_of_val(&credentials) { Ok(user) } else { Err(Errno(22)) }
    }

    /// # Safety
    ///
    /// The pointers in `message` must be valid for their lengths, for reading.
    pub(crate) unsafe fn send(socket: i32, message: &MsgHdr) -> Result {
        let args = [socket as usize, &raw const *message as usize, MSG_DONTWAIT | MSG_NOSIGNAL];
        // SAFETY: passed on to the caller.
        unsafe { call(nr::SENDMSG, args) }
    }

    /// # Safety
    ///
    /// The pointers in `message` must be valid for their lengths, for writing.
    pub(crate) unsafe fn receive(socket: i32, message: &mut MsgHdr) -> Result {
        let args = [socket as usize, &raw mut *message as usize, MSG_DONTWAIT | MSG_CMSG_CLOEXEC];
        // SAFETY: passed on to the caller.
        unsafe { call(nr::RECVMSG, args) }
    }
}

/// Zeroed memory that stays shared with children, until they execute a program.
pub(crate) fn map_shared(length: usize) -> Result {
    const PROT_READ_WRITE: usize = 3;
    const MAP_SHARED_ANONYMOUS: usize = 0x21;
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory in use.
    unsafe { call(nr::MMAP, [0, length, PROT_READ_WRITE, MAP_SHARED_ANONYMOUS, usize::MAX, 0]) }
}
