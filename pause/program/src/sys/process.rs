//! Processes and namespaces.

use core::ffi::CStr;

use super::{EINTR, Errno, Result, call, nr};

pub(crate) const CLONE_VFORK: u64 = 0x4000;
pub(crate) const CLONE_FILES: u64 = 0x400;
pub(crate) const CLONE_PIDFD: u64 = 0x1000;
pub(crate) const CLONE_NEWNS: u64 = 0x2_0000;
pub(crate) const CLONE_NEWCGROUP: u64 = 0x200_0000;
pub(crate) const CLONE_NEWUTS: u64 = 0x400_0000;
pub(crate) const CLONE_NEWIPC: u64 = 0x800_0000;
pub(crate) const CLONE_NEWPID: u64 = 0x2000_0000;
pub(crate) const CLONE_NEWNET: u64 = 0x4000_0000;
pub(crate) const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args` as of Linux 5.7.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Which side of a clone this is.
pub(crate) enum Side {
    /// The child, with a copy of this memory.
    Child,
    /// The parent: the child's pid, and its pidfd if `CLONE_PIDFD` was asked for.
    Parent { pid: u32, pidfd: i32 },
}

/// Clones this process. The child has a copy of the memory (`CLONE_VM` is not to be given), so it may do
/// all its parent may.
pub(crate) fn clone(flags: u64, exit_signal: u32, cgroup: Option<i32>) -> Result<Side> {
    const NR_CLONE3: usize = 435;
    let mut pidfd: i32 = -1;
    let mut args = CloneArgs {
        flags,
        pidfd: &raw mut pidfd as u64,
        exit_signal: u64::from(exit_signal),
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup as u64;
    }
    // SAFETY: the kernel reads the arguments and writes the pidfd. Without CLONE_VM the child returns on
    // a copy of this stack.
    match unsafe { call(NR_CLONE3, [&raw mut args as usize, size_of::<CloneArgs>()]) }? {
        0 => Ok(Side::Child),
        pid => Ok(Side::Parent { pid: pid as u32, pidfd }),
    }
}

/// What `waitid` says of an ended child.
#[derive(Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) pid: u32,
    /// `CLD_*`.
    pub(crate) code: i32,
    pub(crate) status: i32,
}

/// Whom to wait for.
#[derive(Clone, Copy)]
pub(crate) enum Whom {
    Any,
    Pid(u32),
}

/// Whether to leave the ended child for another wait.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Leave,
    Reap,
}

/// An ended child; `None` while there is none. `ECHILD` when there is nobody to wait for.
pub(crate) fn ended(whom: Whom, then: Then) -> Result<Option<Ended>> {
    const WNOHANG: usize = 1;
    wait_with(whom, then, WNOHANG)
}

/// Waits for this child to end, and reaps it.
pub(crate) fn wait_and_reap(pid: u32) {
    while wait_with(Whom::Pid(pid), Then::Reap, 0) == Err(EINTR) {}
}

fn wait_with(whom: Whom, then: Then, options: usize) -> Result<Option<Ended>> {
    const P_ALL: usize = 0;
    const P_PID: usize = 1;
    const WEXITED: usize = 4;
    const WNOWAIT: usize = 0x0100_0000;
    /// Children whose exit signal is not SIGCHLD, too.
    const WALL: usize = 0x4000_0000;

    #[repr(C)]
    struct SigInfo {
        signo: i32,
        errno: i32,
        code: i32,
        padding: i32,
        pid: i32,
        uid: u32,
        status: i32,
        rest: [u32; 25],
    }

    let mut info =
        SigInfo { signo: 0, errno: 0, code: 0, padding: 0, pid: 0, uid: 0, status: 0, rest: [0; 25] };
    let (kind, id) = match whom {
        Whom::Any => (P_ALL, 0),
        Whom::Pid(pid) => (P_PID, pid as usize),
    };
    let leave = if then == Then::Leave { WNOWAIT } else { 0 };
    let args = [kind, id, &raw mut info as usize, WEXITED | WALL | leave | options, 0];
    // SAFETY: the kernel writes one siginfo of 128 bytes.
    unsafe { call(nr::WAITID, args) }?;
    let ended = Ended { pid: info.pid as u32, code: info.code, status: info.status };
    Ok((info.pid != 0).then_some(ended))
}

impl PartialEq for Ended {
    fn eq(&self, other: &Self) -> bool {
        self.pid == other.pid
    }
}

/// Executes the program behind the descriptor with one argument and no environment. Returns only on
/// failure.
pub(crate) fn execute(program: i32, name: &CStr) -> Errno {
    const AT_EMPTY_PATH: usize = 0x1000;
    let arguments = [name.as_ptr() as usize, 0];
    let environment = [0_usize];
    let args = [
        program as usize,
        c"".as_ptr() as usize,
        arguments.as_ptr() as usize,
        environment.as_ptr() as usize,
        AT_EMPTY_PATH,
    ];
    // SAFETY: path, arguments and environment are terminated by zero.
    match unsafe { call(nr::EXECVEAT, args) } {
        Err(errno) => errno,
        Ok(_) => Errno(0),
    }
}

pub(crate) fn getpid() -> u32 {
    // SAFETY: takes no pointer and cannot fail.
    unsafe { call(nr::GETPID, []) }.map_or(0, |pid| pid as u32)
}

pub(crate) fn geteuid() -> u32 {
    // SAFETY: takes no pointer and cannot fail.
    unsafe { call(nr::GETEUID, []) }.map_or(u32::MAX, |user| user as u32)
}

pub(crate) fn pidfd_open(pid: u32) -> Result<i32> {
    const NR_PIDFD_OPEN: usize = 434;
    // SAFETY: takes no pointer.
    unsafe { call(NR_PIDFD_OPEN, [pid as usize, 0]) }.map(|fd| fd as i32)
}

pub(crate) fn pidfd_send_signal(pidfd: i32, signal: u32) -> Result {
    const NR_PIDFD_SEND_SIGNAL: usize = 424;
    // SAFETY: no siginfo is given.
    unsafe { call(NR_PIDFD_SEND_SIGNAL, [pidfd as usize, signal as usize, 0, 0]) }
}

pub(crate) fn unshare(flags: u64) -> Result {
    // SAFETY: takes no pointer; no namespace flag touches memory.
    unsafe { call(nr::UNSHARE, [flags as usize]) }
}

/// Joins namespaces of the process behind the pidfd (Linux 5.8).
pub(crate) fn setns(pidfd: i32, flags: u64) -> Result {
    // SAFETY: takes no pointer.
    unsafe { call(nr::SETNS, [pidfd as usize, flags as usize]) }
}

pub(crate) fn set_host_name(name: &[u8]) -> Result {
    // SAFETY: the kernel reads the slice.
    unsafe { call(nr::SETHOSTNAME, [name.as_ptr() as usize, name.len()]) }
}

fn prctl(option: usize, argument: usize) -> Result {
    // SAFETY: the callers below pass numbers, or a name terminated by zero to PR_SET_NAME.
    unsafe { call(nr::PRCTL, [option, argument]) }
}

pub(crate) fn become_subreaper() -> Result {
    const PR_SET_CHILD_SUBREAPER: usize = 36;
    prctl(PR_SET_CHILD_SUBREAPER, 1)
}

pub(crate) fn set_name(name: &'static CStr) {
    const PR_SET_NAME: usize = 15;
    let _ = prctl(PR_SET_NAME, name.as_ptr() as usize);
}

pub(crate) fn set_not_dumpable() {
    const PR_SET_DUMPABLE: usize = 4;
    let _ = prctl(PR_SET_DUMPABLE, 0);
}

/// Dies with its parent.
pub(crate) fn set_parent_death_signal(signal: u32) -> Result {
    const PR_SET_PDEATHSIG: usize = 1;
    prctl(PR_SET_PDEATHSIG, signal as usize)
}

/// Gives up every capability for good: bounding, ambient, inheritable, permitted and effective sets, and
/// what an execution could give.
pub(crate) fn give_up_privileges() -> Result<()> {
    const PR_CAPBSET_DROP: usize = 24;
    const PR_SET_NO_NEW_PRIVS: usize = 38;
    const PR_CAP_AMBIENT: usize = 47;
    const PR_CAP_AMBIENT_CLEAR_ALL: usize = 4;
    const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;

    // Up to the first the kernel does not know.
    for capability in 0..64 {
        match prctl(PR_CAPBSET_DROP, capability) {
            Ok(_) => {}
            Err(super::EINVAL) if capability > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)?;
    prctl(PR_SET_NO_NEW_PRIVS, 1)?;
    let header = [LINUX_CAPABILITY_VERSION_3, 0];
    let sets = [0_u32; 6];
    // SAFETY: the kernel reads a header and, for version 3, two times three words.
    unsafe { call(nr::CAPSET, [header.as_ptr() as usize, sets.as_ptr() as usize]) }.map(drop)
}
