//! The exec protocol of the specification's section 2, from the caller's side.
//!
//! Programs are started by `posix_spawn`: nothing is asked of `Command` that would make it fork, since the caller may
//! have many threads. Each is the leader of a process group of its own, so that one that takes too long ends with what
//! it has started, and is waited for by its pidfd, so that no other child of the caller is reaped.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, OFlags, fcntl_setfl, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use serde_json::{Value, json};

use crate::end::{PATIENCE, wait_for_end};
use crate::environment::{VARIABLES, join_path, variables};
use crate::names::check_kind;
use crate::{Call, CniError, GcCall, StatusCall, code};

/// The longest answer that is read, in bytes. Results are some kilobytes.
const MOST_STDOUT: usize = 4 << 20;
/// How much is kept of what a program says on standard error, in bytes.
const MOST_STDERR: usize = 16 << 10;
/// How much of an answer is shown in a message, in bytes.
const MOST_SHOWN: usize = 2 << 10;

/// How the name of a program's standard input begins; the container id follows.
pub(crate) const STDIN: &str = "cni-stdin:";

/// Executes the program of this type for ADD, DEL or CHECK.
pub(crate) fn execute_call(kind: &str, command: &'static str, call: &Call) -> Result<Vec<u8>, CniError> {
    execute(&Execution {
        kind,
        command,
        path: &call.path,
        variables: variables(call),
        stdin: call.config.to_json(),
        deadline: call.deadline,
    })
}

/// Executes the program of this type for GC.
pub(crate) fn execute_gc(kind: &str, call: &GcCall) -> Result<Vec<u8>, CniError> {
    let valid: Value =
        call.valid.iter().map(|(id, ifname)| json!({"containerID": id, "ifname": ifname})).collect();
    let mut stdin = call.config.to_json();
    if let Value::Object(fields) = &mut stdin {
        // The second name is that of the first text of 1.1.0; libcni says both.
        fields.insert("cni.dev/attachments".to_owned(), valid.clone());
        fields.insert("cni.dev/valid-attachments".to_owned(), valid);
    }
    let (path, deadline) = (&call.path, call.deadline);
    execute(&Execution { kind, command: "GC", path, variables: Vec::new(), stdin, deadline })
}

/// Executes the program of this type for STATUS.
pub(crate) fn execute_status(kind: &str, call: &StatusCall) -> Result<Vec<u8>, CniError> {
    let (path, stdin, deadline) = (&call.path, call.config.to_json(), call.deadline);
    execute(&Execution { kind, command: "STATUS", path, variables: Vec::new(), stdin, deadline })
}

/// What is executed.
struct Execution<'a> {
    kind: &'a str,
    command: &'static str,
    path: &'a [PathBuf],
    variables: Vec<(&'static str, OsString)>,
    stdin: Value,
    deadline: Option<Instant>,
}

/// What a program has said.
#[derive(Default)]
struct Said {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// Why a program is ended before it has answered.
enum GivenUp {
    TookTooLong,
    SaysTooMuch,
    Unwatched(&'static str, io::Error),
}

/// Executes it and returns standard output, if it succeeds.
fn execute(execution: &Execution<'_>) -> Result<Vec<u8>, CniError> {
    let Execution { kind, command, .. } = *execution;
    let program = find(kind, execution.path)?;
    let started = Instant::now();
    let failed = |step: &str, error: &dyn std::fmt::Display| {
        CniError::new(code::PLUGIN_FAILED, format!("plugin {kind}: {step} {}: {error}", program.display()))
    };

    let stdin = standard_input(execution).map_err(|error| failed("cannot prepare the input of", &error))?;
    let mut process = Command::new(&program);
    for name in VARIABLES {
        process.env_remove(name);
    }
    process
        .env("CNI_COMMAND", command)
        .env("CNI_PATH", join_path(execution.path)?)
        .envs(execution.variables.iter().map(|(name, value)| (name, value)))
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = process.spawn().map_err(|error| failed("cannot execute", &error))?;

    let mut said = Said::default();
    let watched = watch(&mut child, &mut said, execution.deadline);
    if watched.is_err() {
        // The leader is not reaped yet, so the number of its group is nobody else's.
        let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
        if let Err(error) = ended(&child) {
            // One that hangs in the kernel holds nobody up; whenever it ends, it is reaped.
            let _ = thread::Builder::new().spawn(move || child.wait());
            return Err(failed("was told to end, and does not:", &error));
        }
    }
    let status = child.wait().map_err(|error| failed("cannot wait for", &error))?;
    tracing::debug!(
        plugin = kind,
        command,
        program = %program.display(),
        %status,
        took = ?started.elapsed(),
        stderr = %String::from_utf8_lossy(&said.stderr),
        "executed a plugin"
    );

    let why = match watched {
        Ok(()) if status.success() => return Ok(said.stdout),
        Ok(()) => return Err(failure(execution, &program, status, &said)),
        Err(GivenUp::TookTooLong) => {
            format!("has not answered after {:.1} s, and was ended", started.elapsed().as_secs_f32())
        }
        Err(GivenUp::SaysTooMuch) => format!("answered with more than {MOST_STDOUT} bytes, and was ended"),
        Err(GivenUp::Unwatched(step, error)) => {
            format!("was ended, because it cannot be watched: {step}: {error}")
        }
    };
    Err(CniError {
        code: code::PLUGIN_FAILED,
        msg: format!("plugin {kind}: {command}: {} {why}", program.display()),
        details: excerpt(&said.stderr),
    })
}

/// The program of this type: the first that can be executed.
fn find(kind: &str, path: &[PathBuf]) -> Result<PathBuf, CniError> {
    check_kind(kind)?;
    let executable = |program: &Path| {
        program
            .metadata()
            .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    path.iter().map(|directory| directory.join(kind)).find(|program| executable(program)).ok_or_else(|| {
        let directories: Vec<_> = path.iter().map(|directory| directory.display().to_string()).collect();
        let searched =
            if directories.is_empty() { "no directory".to_owned() } else { directories.join(", ") };
        let msg = format!(
            "plugin {kind}: there is no such program (searched: {searched}). Install the plugin there"
        );
        CniError::new(code::PLUGIN_FAILED, msg)
    })
}

/// Standard input from memory: a program that does not read it holds nobody up. Its name says whose the program is.
fn standard_input(execution: &Execution<'_>) -> io::Result<Stdio> {
    let id = execution.variables.iter().find(|(name, _)| *name == "CNI_CONTAINERID");
    let id = id.map(|(_, id)| id.to_string_lossy()).unwrap_or_default();
    let mut file = File::from(memfd_create(format!("{STDIN}{id}"), MemfdFlags::CLOEXEC)?);
    file.write_all(execution.stdin.to_string().as_bytes())?;
    file.rewind()?;
    Ok(file.into())
}

/// Reads what it says until it has ended. What it leaves running is not waited for, also when it holds the pipes.
fn watch(child: &mut Child, said: &mut Said, deadline: Option<Instant>) -> Result<(), GivenUp> {
    let unwatched =
        |step: &'static str| move |error: rustix::io::Errno| GivenUp::Unwatched(step, error.into());
    let exit = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).map_err(unwatched("pidfd_open"))?;
    let mut stdout = child.stdout.take().map(OwnedFd::from);
    let mut stderr = child.stderr.take().map(OwnedFd::from);
    for pipe in [&stdout, &stderr].into_iter().flatten() {
        fcntl_setfl(pipe, OFlags::NONBLOCK).map_err(unwatched("fcntl"))?;
    }
    loop {
        let mut waited = vec![PollFd::new(&exit, PollFlags::IN)];
        waited.extend([&stdout, &stderr].into_iter().flatten().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(GivenUp::TookTooLong);
        }
        let left = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        match poll(&mut waited, left.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(unwatched("poll")(error)),
        }
        // Looked at before the pipes are read: all it has said is in them then.
        let ended = waited.first().is_some_and(|exit| !exit.revents().is_empty());
        drain(&mut stdout, &mut said.stdout, MOST_STDOUT + 1)
            .map_err(|error| GivenUp::Unwatched("read", error))?;
        drain(&mut stderr, &mut said.stderr, MOST_STDERR)
            .map_err(|error| GivenUp::Unwatched("read", error))?;
        if said.stdout.len() > MOST_STDOUT {
            return Err(GivenUp::SaysTooMuch);
        }
        if ended {
            return Ok(());
        }
    }
}

/// Waits for the end of a program that was killed, but not for ever.
fn ended(child: &Child) -> io::Result<()> {
    let exit = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    wait_for_end(&exit, Instant::now() + PATIENCE)
}

/// Reads what a pipe has, and keeps it up to so many bytes. At its end the pipe is closed.
fn drain(pipe: &mut Option<OwnedFd>, kept: &mut Vec<u8>, most: usize) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    // Bounded, so that one who never stops to write does not outlast the deadline.
    for _ in 0..64 {
        let Some(open) = pipe else { return Ok(()) };
        match rustix::io::read(open.as_fd(), &mut buffer) {
            Ok(0) => *pipe = None,
            Ok(read) => {
                let read = read.min(most.saturating_sub(kept.len()));
                kept.extend(buffer.iter().take(read));
            }
            Err(rustix::io::Errno::AGAIN) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// What a program that failed has said of it: the specification's section 5, "Error", or else whatever there is.
fn failure(execution: &Execution<'_>, program: &Path, status: ExitStatus, said: &Said) -> CniError {
    let Execution { kind, command, .. } = execution;
    if let Some(error) = error_of(&said.stdout) {
        return error;
    }
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => status.to_string(),
    };
    let details =
        [&said.stderr, &said.stdout].into_iter().map(|bytes| excerpt(bytes)).find(|text| !text.is_empty());
    CniError {
        code: code::PLUGIN_FAILED,
        msg: format!(
            "plugin {kind}: {command}: {} {how}, and no error in the form of CNI",
            program.display()
        ),
        details: details.unwrap_or_default(),
    }
}

/// The error a plugin has printed. A program in Go leaves out what is empty or zero.
fn error_of(stdout: &[u8]) -> Option<CniError> {
    let json: Value = serde_json::from_slice(stdout).ok()?;
    let text = |name| json.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let code = json.get("code").and_then(Value::as_u64).and_then(|code| u32::try_from(code).ok());
    let (msg, details) = (text("msg"), text("details"));
    if msg.is_empty() && details.is_empty() {
        return None;
    }
    Some(CniError { code: code.unwrap_or_default(), msg, details })
}

/// Beginning and end of what was said: where a program crashes it says why first, else last.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim();
    if text.len() <= MOST_SHOWN {
        return text.to_owned();
    }
    let bounds = || text.char_indices().map(|(at, _)| at);
    let head = bounds().take_while(|at| *at <= MOST_SHOWN / 4).last().unwrap_or_default();
    let tail = bounds().find(|at| text.len() - at <= MOST_SHOWN / 4 * 3).unwrap_or(text.len());
    format!("{} [...] {}", text.get(..head).unwrap_or_default(), text.get(tail..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginning_and_end_are_shown_of_what_is_long() {
        assert_eq!(excerpt(b" short\n"), "short");
        let long = format!("panic: {}the end", "ä".repeat(5000));
        let shown = excerpt(long.as_bytes());
        assert!(shown.starts_with("panic: ä") && shown.ends_with("äthe end"), "{shown}");
        assert!(shown.len() <= MOST_SHOWN + " [...] ".len());
        assert_eq!(excerpt(&[0xff]), "\u{fffd}");
    }
}
