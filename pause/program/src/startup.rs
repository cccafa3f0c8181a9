//! From the entry point to a sandbox that serves.

use core::ffi::CStr;

use coracle_pause_wire::{StartupStatus, Step, VERSION, launch, sandbox};

use crate::children::Children;
use crate::descriptors::Descriptor;
use crate::reaper::Reaper;
use crate::sandbox::{Ending, Sandbox};
use crate::shared::SharedPage;
use crate::sys::{self, Errno, Rlimit, process, signal};

/// As far above the pod's processes as the kubelet puts its own sandbox.
const OOM_SCORE_ADJ: &[u8] = b"-998";

/// Descriptors kept for pause's own needs: a connection, a pidfd, a pipe.
const RESERVED_DESCRIPTORS: i32 = 16;

/// The table of children is large and mostly never touched: in zeroed memory of its own, not on the stack.
static mut CHILDREN: Children = Children::EMPTY;

/// The command line, as the kernel left it on the stack.
pub(crate) struct Arguments {
    flags: u32,
    cgroups: usize,
    host_name: &'static [u8],
}

type Started<T> = Result<T, (Step, Errno)>;

/// Starts, and says on the status pipe how that went.
pub(crate) fn start(arguments: Option<Arguments>) -> Sandbox {
    // Before anything else: nothing the starter ignored or left unblocked may interfere.
    signal::default_dispositions();
    let oom_score_adj_errno = lower_oom_score_adj();
    let started = arguments
        .ok_or((Step::Arguments, sys::EINVAL))
        .and_then(|arguments| set_up(&arguments, oom_score_adj_errno));
    let status = StartupStatus {
        version: VERSION,
        failed: started.as_ref().err().map(|(step, errno)| (*step, errno.0)),
        oom_score_adj_errno,
        pid: process::getpid(),
    };
    let written = sys::write(launch::STATUS, &status.encode());
    sys::close(launch::STATUS);
    match (started, written) {
        (Ok(sandbox), Ok(_)) => sandbox,
        // Also when whoever started pause is gone. The next agent may have looked before pause listened, and
        // started another one: two must not live.
        _ => sys::exit(1),
    }
}

fn set_up(arguments: &Arguments, oom_score_adj_errno: i32) -> Started<Sandbox> {
    let cgroups_end = launch::CGROUPS + arguments.cgroups as i32;
    put_descriptors_in_order(cgroups_end).at(Step::Descriptors)?;
    let nofile = raise_descriptor_limit().at(Step::Descriptors)?;

    process::set_name(c"pause");
    process::set_not_dumpable();
    signal::set_mask(signal::ALL).at(Step::Signals)?;
    let wanted =
        signal::set_of(signal::SIGCHLD) | signal::set_of(signal::SIGTERM) | signal::set_of(signal::SIGINT);
    let signals = Descriptor::from_raw(signal::signalfd(wanted).at(Step::Signals)?);
    let shared = SharedPage::map().at(Step::SharedPage)?;

    // Into the cgroups first: what the namespaces cost is the pod's.
    for fd in launch::CGROUPS..cgroups_end {
        sys::write(fd, b"0").at(Step::Cgroup)?;
        sys::close(fd);
    }
    unshare(arguments)?;
    process::become_subreaper().at(Step::Subreaper)?;
    let reaper = if arguments.flags & sandbox::SHARED_PID != 0 { Some(Reaper::start(shared)?) } else { None };
    sys::net::listen(launch::SOCKET, 16).at(Step::Listen)?;

    let children = &raw mut CHILDREN;
    Ok(Sandbox {
        flags: arguments.flags,
        pid: process::getpid(),
        user: process::geteuid(),
        oom_score_adj_errno,
        nofile,
        descriptor_limit: i32::try_from(nofile.hard).unwrap_or(i32::MAX).saturating_sub(RESERVED_DESCRIPTORS),
        shared,
        signals,
        reaper,
        // SAFETY: this function runs once, so this is the only reference there ever is.
        children: unsafe { &mut *children },
        ending: Ending::No,
    })
}

/// Returns the errno of a refusal, 0 for success: lowering it needs CAP_SYS_RESOURCE, which a container
/// that holds a node may lack. pause then only is a likelier victim.
fn lower_oom_score_adj() -> i32 {
    let lowered = sys::open_write(c"/proc/self/oom_score_adj").and_then(|fd| {
        let written = sys::write(fd, OOM_SCORE_ADJ);
        sys::close(fd);
        written
    });
    lowered.err().map_or(0, |errno| errno.0)
}

/// `/dev/null` at 0 to 2, what belongs to pause from 3 to `end`, nothing after.
fn put_descriptors_in_order(end: i32) -> sys::Result<()> {
    if !(launch::SOCKET..end).all(sys::is_open) {
        return Err(Errno(9));
    }
    sys::close_from(end)?;
    let null = sys::open_read_write(c"/dev/null")?;
    for standard in 0..=2 {
        if standard != null {
            sys::dup_to(null, standard)?;
        }
    }
    if null > 2 {
        sys::close(null);
    }
    sys::cloexec_from(launch::SOCKET)?;
    sys::set_nonblocking(launch::SOCKET)?;
    Ok(())
}

/// Raises the soft limit to the hard one; returns what it was before.
fn raise_descriptor_limit() -> sys::Result<Rlimit> {
    let before = sys::swap_nofile(None)?;
    sys::swap_nofile(Some(Rlimit { soft: before.hard, hard: before.hard }))?;
    Ok(before)
}

fn unshare(arguments: &Arguments) -> Started<()> {
    let namespaces = [
        (sandbox::NEWNET, process::CLONE_NEWNET),
        (sandbox::NEWIPC, process::CLONE_NEWIPC),
        (sandbox::NEWUTS, process::CLONE_NEWUTS),
    ];
    let flags = namespaces
        .iter()
        .filter(|(flag, _)| arguments.flags & flag != 0)
        .fold(0, |flags, (_, namespace)| flags | namespace);
    if flags != 0 {
        process::unshare(flags).at(Step::Unshare)?;
    }
    if arguments.flags & sandbox::NEWNET != 0 {
        sys::bring_loopback_up().at(Step::Loopback)?;
    }
    if arguments.flags & sandbox::NEWUTS != 0 && !arguments.host_name.is_empty() {
        process::set_host_name(arguments.host_name).at(Step::Hostname)?;
    }
    Ok(())
}

/// Names the step that failed.
pub(crate) trait At<T> {
    fn at(self, step: Step) -> Result<T, (Step, Errno)>;
}

impl<T> At<T> for sys::Result<T> {
    fn at(self, step: Step) -> Result<T, (Step, Errno)> {
        self.map_err(|errno| (step, errno))
    }
}

// === impl Arguments ===

impl Arguments {
    /// `None` when they are not those of `coracle_pause_wire::launch`.
    ///
    /// # Safety
    ///
    /// `stack` must be the stack pointer the kernel started this process with.
    pub(crate) unsafe fn from_stack(stack: *const usize) -> Option<Self> {
        // SAFETY: argc, then as many pointers to terminated strings, which live as long as the process.
        let (count, argument) = unsafe {
            let argument = |n: usize| CStr::from_ptr(*stack.add(1 + n) as *const _).to_bytes();
            (*stack, argument)
        };
        if count != 4 {
            return None;
        }
        let flags = number(argument(1), 16)?;
        let cgroups = number(argument(2), 10)? as usize;
        let valid = flags & !sandbox::ALL == 0 && cgroups <= launch::MAX_CGROUPS;
        valid.then(|| Self { flags, cgroups, host_name: argument(3) })
    }
}

fn number(digits: &[u8], radix: u32) -> Option<u32> {
    u32::from_str_radix(core::str::from_utf8(digits).ok()?, radix).ok()
}
