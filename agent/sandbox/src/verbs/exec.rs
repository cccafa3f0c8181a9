//! One more program in a running container.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use coracle_cgroup::Cgroup;
use coracle_init::protocol::{Config, ExecConfig, Namespace, Seccomp, Setup};
use coracle_model::{ContainerId, Pod};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::Winsize;
use tokio::sync::oneshot;

use crate::control::Control;
use crate::environment;
use crate::error::{Error, system};
use crate::init_end::explained;
use crate::pause::{Exit, ExitStatus, Spawn};
use crate::runtime::Runtime;
use crate::spec::{self, ProcessRequest};

/// A program to be run in a container that runs.
#[derive(Clone, Debug)]
pub struct ExecRequest {
    /// The container's pod.
    pub pod: Arc<Pod>,
    /// The container's name in it.
    pub container: String,
    /// The container.
    pub id: ContainerId,
    /// Program and arguments. Never empty.
    pub command: Vec<String>,
    /// It gets a terminal.
    pub tty: bool,
    /// Standard input is a pipe rather than /dev/null.
    pub stdin: bool,
}

/// A program that was executed. Dropping it closes the caller's ends; the program is not killed.
#[derive(Debug)]
pub struct ExecHandle {
    /// The writing end of standard input, if asked for and there is no terminal.
    pub stdin: Option<OwnedFd>,
    /// The reading end of standard output; none with a terminal.
    pub stdout: Option<OwnedFd>,
    /// The reading end of standard error; none with a terminal.
    pub stderr: Option<OwnedFd>,
    /// The terminal.
    pub terminal: Option<Terminal>,
    /// How it ended.
    pub exit: ProgramExit,
}

/// A terminal, from the side of whoever watches it.
#[derive(Debug)]
pub struct Terminal(OwnedFd);

/// The end of an exec'd program.
#[derive(Debug)]
pub struct ProgramExit(oneshot::Receiver<Exit>);

impl Runtime {
    /// Runs a program in a container, as the container's user, with its environment, limits and filters;
    /// returns once it was executed.
    ///
    /// # Errors
    /// When the container does not run, or the program cannot be executed.
    pub async fn exec(&self, request: ExecRequest) -> Result<ExecHandle, Error> {
        self.exec_into(request, None).await
    }

    /// [`Runtime::exec`], into a cgroup below the container's where one is given.
    pub(super) async fn exec_into(
        &self,
        request: ExecRequest,
        cgroup: Option<&Cgroup>,
    ) -> Result<ExecHandle, Error> {
        let (pod, id) = (&request.pod, request.id);
        let state = self.inner.pod(&pod.uid).ok_or_else(|| Error::NoSandbox(pod.uid.clone()))?;
        let _verb = state.verbs.read().await;
        let sandbox = state.sandbox()?;
        let container = state.container(id).ok_or(Error::NoContainer(id))?;
        let specified = pod.container(&request.container).ok_or(Error::NoContainer(id))?;
        let record = container.data().record.clone();
        let pidfd = container.pidfd().filter(|_| record.started_at.is_some() && !container.has_ended());
        let pidfd = pidfd.ok_or(Error::NotRunning(id))?;

        let kept = container.environment().map(|kept| environment::read(&kept));
        let kept = kept.unwrap_or_else(|| Err(std::io::ErrorKind::NotFound.into()));
        let env = inherited(kept.map_err(system("read the container's environment"))?, request.tty);

        let granted = spec::granted(&specified.security, &self.inner.facts.capabilities);
        let seccomp_default = self.inner.settings().seccomp_default;
        let seccomp = self.inner.seccomp.of(pod, specified, &granted, seccomp_default)?;
        let mut process = spec::process(ProcessRequest {
            args: request.command.clone(),
            env: &env,
            cwd: &record.cwd,
            user: &record.user,
            tty: request.tty,
            security: &specified.security,
            granted: &granted,
            host: &self.inner.facts,
        })?;
        process.set_oom_score_adj(Some(spec::oom_score_adj(pod, specified, &self.inner.facts)));
        let attachment = match cgroup {
            Some(cgroup) => cgroup.attachment()?,
            None => container.cgroup.attachment_beside(pidfd.as_fd())?,
        };
        let streams = Streams::new(request.tty, request.stdin)?;
        let (control, init_end) = Control::pair()?;
        let since = state.data().execs.reported();
        let spawned = sandbox
            .client
            .spawn(&Spawn {
                container: None,
                new_pid: false,
                new_mount: false,
                program: self.inner.programs.init(),
                stdio: streams.theirs.each_ref().map(AsFd::as_fd),
                control: init_end.as_fd(),
                cgroup: attachment.into.as_ref().map(AsFd::as_fd),
                held: &[],
            })
            .await?;
        drop(init_end);

        let mut setup = Setup::new();
        let config = ExecConfig {
            process,
            container: setup.pass(pidfd.as_fd()),
            namespaces: joined(pod),
            cgroup_procs: attachment.procs.iter().map(|procs| setup.pass(procs.as_fd())).collect(),
            seccomp: seccomp
                .as_ref()
                .map(|filter| Seccomp { program: setup.pass(filter.program()), flags: filter.flags() }),
        };
        let first = spawned.pid.as_raw_nonzero().get().unsigned_abs();
        let cgroup = cgroup.unwrap_or(&container.cgroup);
        let prepared = async {
            control.send_setup(setup, &Config::Exec(Box::new(config)))?;
            control.prepared(Duration::ZERO).await
        };
        let prepared = explained(prepared.await, &state, first, since, cgroup).await?;
        // Born anew where a pid namespace had to be joined.
        let pid = prepared.pid.unwrap_or(first);
        let exit = state.data().execs.wait(pid, since);
        control.start(Duration::ZERO).await?;
        Ok(ExecHandle {
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
            terminal: prepared.console.map(Terminal),
            exit: ProgramExit(exit),
        })
    }
}

/// The namespaces a program joins; the others it shares with pause.
fn joined(pod: &Pod) -> Vec<Namespace> {
    let mut joined = vec![Namespace::Mount, Namespace::Cgroup];
    if !pod.spec.host.pid {
        joined.push(Namespace::Pid);
    }
    joined
}

fn inherited(mut environment: Vec<(String, String)>, tty: bool) -> Vec<(String, String)> {
    if tty && !environment.iter().any(|(name, _)| name == "TERM") {
        environment.push(("TERM".to_owned(), "xterm".to_owned()));
    }
    environment
}

/// Both ends of an exec'd program's standard streams.
struct Streams {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    theirs: [OwnedFd; 3],
}

// === impl Streams ===

impl Streams {
    fn new(tty: bool, stdin: bool) -> Result<Self, Error> {
        let null = || super::create::open_null();
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(system("make a pipe"));
        if tty {
            return Ok(Self { stdin: None, stdout: None, stderr: None, theirs: [null()?, null()?, null()?] });
        }
        let (stdin_read, stdin) = if stdin {
            let (read, write) = pipe()?;
            (read, Some(write))
        } else {
            (null()?, None)
        };
        let (stdout, stdout_write) = pipe()?;
        let (stderr, stderr_write) = pipe()?;
        Ok(Self {
            stdin,
            stdout: Some(stdout),
            stderr: Some(stderr),
            theirs: [stdin_read, stdout_write, stderr_write],
        })
    }
}

// === impl Terminal ===

impl Terminal {
    pub(super) fn new(master: OwnedFd) -> Self {
        Self(master)
    }

    /// The terminal's master.
    pub fn master(&self) -> &OwnedFd {
        &self.0
    }

    /// Gives the master away.
    pub fn into_master(self) -> OwnedFd {
        self.0
    }

    /// Sets the size in characters; the programs in it get SIGWINCH.
    ///
    /// # Errors
    /// When the terminal refuses.
    pub fn resize(master: impl AsFd, columns: u16, rows: u16) -> std::io::Result<()> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(rustix::termios::tcsetwinsize(master, size)?)
    }
}

// === impl ProgramExit ===

impl ProgramExit {
    /// The exit code, or the signal that ended it.
    ///
    /// # Errors
    /// [`Error::ExitUnknown`] when the sandbox went away, so that nobody knows.
    pub async fn wait(self) -> Result<ExitStatus, Error> {
        Ok(self.0.await.map_err(|_| Error::ExitUnknown)?.status)
    }
}
