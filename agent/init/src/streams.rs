//! Standard input, output and error.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{FileType, OFlags, Stat, Uid, fchown, fstat};
use rustix::io::Errno;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout, stderr, stdin, stdout};

use crate::devices::is_null_device;
use crate::failure::{Context, Result, Step};
use crate::root::{Links, Root};

/// Puts a descriptor in the place of one of the streams.
type Replace = fn(BorrowedFd<'_>) -> std::result::Result<(), Errno>;

const LOOKING: &str = "looking at standard input, output and error";

/// Makes the streams the container's own.
///
/// A pipe or terminal is given to the user, who could else not open /dev/stdout. The null device is opened
/// anew, in the container: through the host's own, its root could change the mode of the host's file.
pub(crate) fn take(root: &Root, user: Uid, terminal: bool) -> Result<()> {
    let streams: [(BorrowedFd<'_>, Replace); 3] = [
        (stdin(), |null| dup2_stdin(null)),
        (stdout(), |null| dup2_stdout(null)),
        (stderr(), |null| dup2_stderr(null)),
    ];
    for (stream, replace) in streams {
        let stat = fstat(stream).at(Step::StandardStreams, LOOKING)?;
        if is_null_device(&stat) {
            replace_null(root, replace)?;
        } else if (terminal || is_pipe(&stat)) && stat.st_uid != user.as_raw() {
            fchown(stream, Some(user), None).at(Step::StandardStreams, "giving them to the user")?;
        }
    }
    Ok(())
}

fn replace_null(root: &Root, replace: Replace) -> Result<()> {
    let path = Path::new("/dev/null");
    let step = Step::StandardStreams;
    // Looked at before it is opened: to open something else can do something.
    let found = root.open(path, OFlags::PATH, Links::Refuse).on(step, path, "finding the container's")?;
    if !is_null_device(&fstat(&found).on(step, path, "looking at the container's")?) {
        return Err(step.refuse(Some(path), "the container's is not the null device"));
    }
    let null = root.open(path, OFlags::RDWR, Links::Refuse).on(step, path, "opening the container's")?;
    if !is_null_device(&fstat(&null).on(step, path, "looking at the container's")?) {
        return Err(step.refuse(Some(path), "the container's is not the null device"));
    }
    replace(null.as_fd()).on(step, path, "putting the container's in place")
}

fn is_pipe(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Fifo
}
