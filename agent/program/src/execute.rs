//! The execution of a program.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, OFlags, fcntl_setfl, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::end::{PATIENCE, wait_for_end};
use crate::error::ProgramError;
use crate::said::drain;

/// How much is kept of what a program says on standard error, in bytes.
const MOST_STDERR: usize = 16 << 10;

/// A program to execute.
#[derive(Debug)]
pub struct Program<'a> {
    /// Its path.
    pub path: &'a Path,
    /// The name it is called by; its path, if there is none.
    pub name: Option<&'a OsStr>,
    /// Its arguments, without its name.
    pub arguments: &'a [OsString],
    /// Whether it has the caller's variables beside its own.
    pub inherits: bool,
    /// Variables it does not inherit.
    pub without: &'a [&'a str],
    /// Variables it has in any case.
    pub variables: &'a [(&'a OsStr, &'a OsStr)],
    /// What the file in memory is called that is its standard input: it can be told by it.
    pub stdin_name: &'a str,
    /// What stands on its standard input.
    pub stdin: &'a [u8],
    /// The most it may answer, in bytes.
    pub most_stdout: usize,
    /// When it must have ended.
    pub deadline: Option<Instant>,
}

/// A program that has ended by itself.
pub struct Answer {
    /// How.
    pub status: ExitStatus,
    /// Its answer.
    pub stdout: Vec<u8>,
    /// What it said beside, up to 16 KiB.
    pub stderr: Vec<u8>,
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

// === impl Program ===

impl Program<'_> {
    /// Executes it and waits for its end, but for no longer than until the deadline: then it is killed, with what it has
    /// started. What it leaves running by itself is not waited for.
    ///
    /// # Errors
    /// [`ProgramError`], unless it has ended by itself, however that was.
    pub fn execute(&self) -> Result<Answer, ProgramError> {
        let started = Instant::now();
        let stdin = self.standard_input().map_err(ProgramError::Input)?;
        let mut process = Command::new(self.path);
        if let Some(name) = self.name {
            process.arg0(name);
        }
        if !self.inherits {
            process.env_clear();
        }
        for name in self.without {
            process.env_remove(name);
        }
        process
            .args(self.arguments)
            .envs(self.variables.iter().copied())
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = process.spawn().map_err(ProgramError::Execute)?;

        let mut said = Said::default();
        let watched = self.watch(&mut child, &mut said);
        if watched.is_err() {
            // The leader is not reaped yet, so the number of its group is nobody else's.
            let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
            if let Err(error) = ended(&child) {
                // One that hangs in the kernel holds nobody up; whenever it ends, it is reaped.
                let _ = thread::Builder::new().spawn(move || child.wait());
                return Err(ProgramError::DoesNotEnd(error));
            }
        }
        let status = child.wait().map_err(ProgramError::Wait)?;
        let Said { stdout, stderr } = said;
        match watched {
            Ok(()) => Ok(Answer { status, stdout, stderr }),
            Err(GivenUp::TookTooLong) => Err(ProgramError::TookTooLong { after: started.elapsed(), stderr }),
            Err(GivenUp::SaysTooMuch) => Err(ProgramError::SaysTooMuch { most: self.most_stdout, stderr }),
            Err(GivenUp::Unwatched(step, source)) => Err(ProgramError::Unwatched { step, source, stderr }),
        }
    }

    /// Standard input from memory: a program that does not read it holds nobody up.
    fn standard_input(&self) -> io::Result<Stdio> {
        let mut file = File::from(memfd_create(self.stdin_name, MemfdFlags::CLOEXEC)?);
        file.write_all(self.stdin)?;
        file.rewind()?;
        Ok(file.into())
    }

    /// Reads what it says until it has ended. What it leaves running is not waited for, also when it holds the pipes.
    fn watch(&self, child: &mut Child, said: &mut Said) -> Result<(), GivenUp> {
        let unwatched =
            |step: &'static str| move |error: rustix::io::Errno| GivenUp::Unwatched(step, error.into());
        let exit =
            pidfd_open(Pid::from_child(child), PidfdFlags::empty()).map_err(unwatched("pidfd_open"))?;
        let mut stdout = child.stdout.take().map(OwnedFd::from);
        let mut stderr = child.stderr.take().map(OwnedFd::from);
        for pipe in [&stdout, &stderr].into_iter().flatten() {
            fcntl_setfl(pipe, OFlags::NONBLOCK).map_err(unwatched("fcntl"))?;
        }
        loop {
            let mut waited = vec![PollFd::new(&exit, PollFlags::IN)];
            let pipes = [&stdout, &stderr].into_iter().flatten();
            waited.extend(pipes.map(|pipe| PollFd::new(pipe, PollFlags::IN)));
            let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
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
            drain(&mut stdout, &mut said.stdout, self.most_stdout.saturating_add(1))
                .map_err(|error| GivenUp::Unwatched("read", error))?;
            drain(&mut stderr, &mut said.stderr, MOST_STDERR)
                .map_err(|error| GivenUp::Unwatched("read", error))?;
            if said.stdout.len() > self.most_stdout {
                return Err(GivenUp::SaysTooMuch);
            }
            if ended {
                return Ok(());
            }
        }
    }
}

/// Waits for the end of a program that was killed, but not for ever.
fn ended(child: &Child) -> io::Result<()> {
    let exit = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    wait_for_end(&exit, Instant::now() + PATIENCE)
}
