//! From a prepared container to its program: limits, identity, seccomp, Created, Start, execve.
//!
//! The order matters. What needs privilege comes first; then the identity is taken on; the seccomp filter
//! is installed as late as it may be, because nothing says that a profile permits what is done after it.

use std::convert::Infallible;
use std::os::fd::OwnedFd;

use coracle_init::protocol::{Report, receive_start, send_report};
use coracle_linux::{
    Cloned, OwnThreads, SeccompInstruction, clone_sibling, close_on_exec_from, install_seccomp_filter,
    join_new_session_keyring,
};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, fchdir, getcwd, set_dumpable_behavior, umask};
use rustix::thread::{
    set_keep_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use crate::execute::execute;
use crate::failure::{Context, Result, Step, describe};
use crate::hooks;
use crate::plan::{HookPlan, ProcessPlan};
use crate::procfs::PrivateProc;
use crate::root::{Kind, Links, Root};
use crate::{limits, passwd, streams, terminal};

/// Where the program is executed.
#[derive(Debug)]
pub(crate) enum Birth {
    /// In this process, which was started in the right pid namespace.
    Here,
    /// In a child of our parent, born into the pid namespace that `setns` chose. Nothing of ours becomes
    /// visible inside before it has given up its privileges.
    Sibling(OwnThreads),
}

// === impl Birth ===

impl Birth {
    /// A sibling's. To be called while the host's /proc can be seen.
    pub(crate) fn sibling() -> Result<Self> {
        OwnThreads::open().map(Self::Sibling).at(Step::Clone, "opening /proc/self/task")
    }
}

/// Whether the terminal becomes the container's /dev/console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Console {
    Bind,
    Leave,
}

/// Everything a process needs besides its plan.
#[derive(Debug)]
pub(crate) struct Ground<'a> {
    pub(crate) control: &'a OwnedFd,
    pub(crate) root: &'a Root,
    pub(crate) proc: Option<PrivateProc>,
    pub(crate) filter: Option<Filter>,
    pub(crate) birth: Birth,
    /// Of the container, if this is its first process and it has any.
    pub(crate) hooks: Option<HookPlan>,
}

/// A seccomp program, read.
#[derive(Debug)]
pub(crate) struct Filter {
    pub(crate) program: Vec<SeccompInstruction>,
    pub(crate) flags: u32,
}

/// Opens the terminal the plan asks for.
pub(crate) fn open_terminal(plan: &ProcessPlan, ground: &Ground<'_>, console: Console) -> Result<()> {
    if let Some(size) = plan.terminal {
        terminal::open(ground.root, size, ground.control)?;
        if console == Console::Bind {
            terminal::bind_console(ground.root)?;
        }
    }
    Ok(())
}

/// Becomes the process. Returns only with a failure, or in the sibling's stead when that was born.
pub(crate) fn launch(mut plan: ProcessPlan, ground: Ground<'_>) -> Result<Infallible> {
    let mut warnings = Vec::new();
    warnings.extend(leave_session_keyring()?);
    if let Some(proc) = &ground.proc {
        if let Some(score) = plan.oom_score_adj {
            warnings.extend(proc.set_oom_score_adj(score)?);
        }
        if let Some(profile) = &plan.apparmor {
            proc.set_apparmor(profile)?;
        }
        if let Some(label) = &plan.selinux {
            proc.set_selinux(label)?;
        }
    }
    set_home(&mut plan, ground.root);
    let denied = enter_cwd(&plan, ground.root)?.err();
    streams::take(ground.root, plan.uid, plan.terminal.is_some())?;
    // Raising a limit needs privilege, and a limit of open files must not stop what comes before.
    warnings.extend(limits::apply(&plan.limits)?);
    warnings.extend(plan.capabilities.reduce()?);
    umask(plan.umask);
    close_on_exec_from(3).at(Step::Exec, "marking descriptors")?;
    if matches!(ground.birth, Birth::Here) {
        terminal::start_session(plan.terminal.is_some())?;
    }

    let mut filter = ground.filter;
    let early = if plan.seccomp_can_wait() { None } else { filter.take() };
    take_identity(&plan, early)?;
    if denied.is_some() {
        // As the user: a directory of theirs that root is shut out of, as on a network file system.
        if let Err(errno) = enter_cwd(&plan, ground.root)? {
            return Err(errno).on(Step::WorkingDirectory, &plan.cwd, "entering");
        }
    }
    if plan.no_new_privileges {
        set_no_new_privs(true).at(Step::NoNewPrivileges, "setting")?;
    }

    let mut created = Report::Created { pid: None, warnings };
    if let Birth::Sibling(threads) = &ground.birth {
        if let Cloned::Caller(child) =
            clone_sibling(threads).at(Step::Clone, "into the container's pid namespace")?
        {
            if let Report::Created { pid, .. } = &mut created {
                *pid = Some(child.as_raw_nonzero().get());
            }
            report(ground.control, &created)?;
            std::process::exit(0);
        }
        terminal::start_session(plan.terminal.is_some())?;
    } else {
        report(ground.control, &created)?;
    }
    match receive_start(ground.control) {
        Ok(true) => {}
        Ok(false) => return Err(Step::Control.refuse(None, "the agent went away before Start")),
        Err(error) => return Err(Step::Control.refuse(None, error)),
    }
    if let Some(hooks) = &ground.hooks {
        hooks::before_program(hooks, ground.control)?;
    }
    if let Some(filter) = filter {
        install(&filter)?;
    }
    Err(execute(&plan))
}

/// Takes a new session keyring: that of the agent, and of the administrator who has started it, would else be
/// every container's. A program that is added to a container has one of its own, too: by a name, as runc has it, a
/// root of any other container could join it.
fn leave_session_keyring() -> Result<Option<String>> {
    match join_new_session_keyring() {
        // Without the call a container has no way to a keyring either: it is under the same kernel and filters.
        Ok(()) | Err(Errno::NOSYS | Errno::PERM) => Ok(None),
        Err(errno @ Errno::DQUOT) => Ok(Some(format!(
            "session keyring: it is the agent's, for want of a new one: {}",
            describe(errno)
        ))),
        Err(errno) => Err(errno).at(Step::Identity, "taking a new session keyring"),
    }
}

fn report(control: &OwnedFd, report: &Report) -> Result<()> {
    send_report(control, report, None).map_err(|error| Step::Control.refuse(None, error))
}

fn set_home(plan: &mut ProcessPlan, root: &Root) {
    if plan.environment.iter().any(|entry| entry.to_bytes().starts_with(b"HOME=")) {
        return;
    }
    let home = [b"HOME=", passwd::home(root, plan.uid).to_bytes()].concat();
    if let Ok(home) = std::ffi::CString::new(home) {
        plan.environment.push(home);
    }
}

/// Makes the working directory if it is missing.
pub(crate) fn make_cwd(plan: &ProcessPlan, root: &Root) -> Result<()> {
    match root.ensure(&plan.cwd, Kind::Directory, Links::Follow) {
        // Whether it can be entered is seen when it is.
        Err(Errno::ACCESS | Errno::PERM | Errno::LOOP) => Ok(()),
        result => result.map(drop).on(Step::WorkingDirectory, &plan.cwd, "making it"),
    }
}

/// Enters the working directory; the inner error is that permission was denied.
fn enter_cwd(plan: &ProcessPlan, root: &Root) -> Result<std::result::Result<(), Errno>> {
    let path = &plan.cwd;
    let step = Step::WorkingDirectory;
    let opened = root.open(path, OFlags::PATH | OFlags::DIRECTORY, Links::Follow);
    match opened.and_then(|directory| fchdir(&directory)) {
        Ok(()) => {}
        Err(errno @ (Errno::ACCESS | Errno::PERM)) => return Ok(Err(errno)),
        Err(Errno::LOOP) => {
            let why = "leads through a symbolic link that is not followed, or through too many";
            return Err(step.refuse(Some(path), why));
        }
        Err(errno) => return Err(errno).on(step, path, "entering"),
    }
    // getcwd(2): "(unreachable)" is in front of what is not beneath the root (CVE-2024-21626).
    let current = getcwd(Vec::new()).on(step, path, "looking where it is")?;
    if !current.as_bytes().starts_with(b"/") {
        return Err(step.refuse(Some(path), "is outside the root file system"));
    }
    Ok(Ok(()))
}

/// Takes on the user's identity and capabilities. An `early` filter is installed just before the privilege
/// to do so goes.
fn take_identity(plan: &ProcessPlan, early: Option<Filter>) -> Result<()> {
    plan.capabilities.limit_bounding()?;
    // Else setresuid would empty the permitted set.
    set_keep_capabilities(true).at(Step::Capabilities, "keeping them over the change of user")?;
    set_thread_groups(&plan.groups).at(Step::Identity, "setting the supplementary groups")?;
    set_thread_res_gid(plan.gid, plan.gid, plan.gid).at(Step::Identity, "setting the group")?;
    set_thread_res_uid(plan.uid, plan.uid, plan.uid).at(Step::Identity, "setting the user")?;
    // The change of identity may have made this process traceable: it still holds the control socket.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).at(Step::Identity, "forbidding to be traced")?;
    if let Some(filter) = early {
        plan.capabilities.raise_all()?;
        install(&filter)?;
    }
    plan.capabilities.apply()
}

fn install(filter: &Filter) -> Result<()> {
    install_seccomp_filter(&filter.program, filter.flags).at(Step::Seccomp, "installing the filter")
}
