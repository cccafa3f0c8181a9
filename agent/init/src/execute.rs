//! The last step: the user's program.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use coracle_init::protocol::Failure;
use coracle_linux::execve;
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;

use crate::failure::{Context, Step, describe};
use crate::plan::ProcessPlan;

/// Executes the program. Returns only when that failed.
pub(crate) fn execute(plan: &ProcessPlan) -> Failure {
    let Some(program) = plan.arguments.first() else {
        return Step::Exec.refuse(None, "no program");
    };
    if program.as_bytes().contains(&b'/') {
        return match attempt(program, plan) {
            Ok(never) => match never {},
            Err(errno) => explain(program, program, errno),
        };
    }
    // As execvp(3): the first that is there decides, but one that may not be executed is passed over.
    let mut denied = None;
    for directory in search_path(&plan.environment) {
        let mut candidate = directory.to_vec();
        if !candidate.is_empty() {
            candidate.push(b'/');
        }
        candidate.extend_from_slice(program.as_bytes());
        let Ok(candidate) = CString::new(candidate) else { continue };
        match attempt(&candidate, plan) {
            Ok(never) => match never {},
            Err(Errno::NOENT) if !exists(&candidate) => {}
            Err(Errno::NOTDIR) => {}
            Err(Errno::ACCESS) => denied = denied.or(Some(candidate)),
            Err(errno) => return explain(program, &candidate, errno),
        }
    }
    match denied {
        Some(candidate) => explain(program, &candidate, Errno::ACCESS),
        None => Failure {
            message: format!("exec: {:?}: executable file not found in $PATH", show(program)),
            step: Step::Exec.name().to_owned(),
            path: Some(show(program)),
            errno: Some(Errno::NOENT.raw_os_error()),
        },
    }
}

fn attempt(program: &CStr, plan: &ProcessPlan) -> Result<std::convert::Infallible, Errno> {
    execve(program, &plan.arguments, &plan.environment)
}

fn explain(asked: &CStr, tried: &CStr, errno: Errno) -> Failure {
    let why = match errno {
        Errno::NOENT if exists(tried) => {
            "no such file or directory: it is there, but not the interpreter or dynamic loader it names"
                .to_owned()
        }
        Errno::NOEXEC => {
            "exec format error: neither a program for this machine nor a script with #!".to_owned()
        }
        Errno::ACCESS => "permission denied: not a file this user may execute".to_owned(),
        errno => describe(errno),
    };
    let path = Path::new(std::ffi::OsStr::from_bytes(tried.to_bytes()));
    let failed: Result<(), Errno> = Err(errno);
    let named = failed.on(Step::Exec, path, "").err();
    Failure {
        step: Step::Exec.name().to_owned(),
        path: named.and_then(|failure| failure.path),
        errno: Some(errno.raw_os_error()),
        message: format!("exec: {:?}: {why}", show(asked)),
    }
}

fn exists(path: &CStr) -> bool {
    accessat(CWD, path, Access::EXISTS, AtFlags::empty()).is_ok()
}

fn show(text: &CStr) -> String {
    text.to_string_lossy().into_owned()
}

/// The directories of `PATH`, of which the last counts as it does for a shell; an empty one is the working
/// directory.
fn search_path(environment: &[CString]) -> impl Iterator<Item = &[u8]> {
    let path = environment.iter().rev().find_map(|entry| entry.to_bytes().strip_prefix(b"PATH="));
    path.into_iter().flat_map(|path| path.split(|byte| *byte == b':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_path_is_the_containers() {
        let environment = [c"A=b".to_owned(), c"PATH=/bin:/usr/bin".to_owned()];
        let found: Vec<&[u8]> = search_path(&environment).collect();
        assert_eq!(found, [&b"/bin"[..], b"/usr/bin"]);
        assert_eq!(search_path(&[]).count(), 0);
    }
}
