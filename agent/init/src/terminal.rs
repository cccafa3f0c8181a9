//! The process's terminal.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use coracle_init::protocol::{Report, send_report};
use rustix::fs::{FileType, OFlags, fstat, fstatfs, makedev};
use rustix::io::Errno;
use rustix::process::{getpid, getsid, ioctl_tiocsctty, setsid};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::failure::{Context, Result, Step};
use crate::mounts::{attach_at, copy};
use crate::root::{Kind, Links, Root};

/// `DEVPTS_SUPER_MAGIC` of linux/magic.h.
const DEVPTS_SUPER_MAGIC: u64 = 0x1cd1;

/// Opens a terminal in the container's own devpts, sends its master away and makes it standard input,
/// output and error. Its other end comes from the master (`TIOCGPTPEER`), not from a path that could be
/// another's (CVE-2025-52565).
pub(crate) fn open(root: &Root, size: Winsize, control: &OwnedFd) -> Result<()> {
    let path = Path::new("/dev/pts/ptmx");
    let master =
        root.open(path, OFlags::RDWR | OFlags::NOCTTY, Links::Refuse).on(Step::Terminal, path, "opening")?;
    let stat = fstat(&master).on(Step::Terminal, path, "looking at it")?;
    let magic = fstatfs(&master).on(Step::Terminal, path, "looking at its file system")?.f_type;
    let is_ptmx = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == makedev(5, 2)
        && u64::try_from(magic) == Ok(DEVPTS_SUPER_MAGIC);
    if !is_ptmx {
        return Err(Step::Terminal.refuse(Some(path), "is not the ptmx of a devpts"));
    }
    unlockpt(&master).on(Step::Terminal, path, "unlocking")?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let peer = ioctl_tiocgptpeer(&master, flags).on(Step::Terminal, path, "opening its other end")?;
    if size.ws_row != 0 || size.ws_col != 0 {
        tcsetwinsize(&peer, size).at(Step::Terminal, "setting its size")?;
    }
    send_report(control, &Report::Console, Some(master.as_fd()))
        .map_err(|error| Step::Terminal.refuse(None, format_args!("handing it over: {error}")))?;
    dup2_stdin(&peer).at(Step::Terminal, "as standard input")?;
    dup2_stdout(&peer).at(Step::Terminal, "as standard output")?;
    dup2_stderr(&peer).at(Step::Terminal, "as standard error")
}

/// Makes the terminal the container's /dev/console.
pub(crate) fn bind_console(root: &Root) -> Result<()> {
    let path = Path::new("/dev/console");
    let target =
        root.ensure(path, Kind::File, Links::Refuse).on(Step::Terminal, path, "preparing the mount point")?;
    let terminal = copy(rustix::stdio::stdin(), false).on(Step::Terminal, path, "copying the terminal")?;
    attach_at(&terminal, &target).on(Step::Terminal, path, "attaching the terminal")
}

/// Starts a session, with the terminal as its controlling one if there is a terminal.
pub(crate) fn start_session(terminal: bool) -> Result<()> {
    match setsid() {
        // The leader of a group cannot; as the leader of a session it need not.
        Err(Errno::PERM) if getsid(None) == Ok(getpid()) => {}
        result => result.map(drop).at(Step::Terminal, "starting a session")?,
    }
    if terminal {
        ioctl_tiocsctty(rustix::stdio::stdin()).at(Step::Terminal, "taking control of it")?;
    }
    Ok(())
}
