//! A program in a running container, from its start to its end: what probes and hooks execute.
//!
//! It has a cgroup of its own, below the container's, and whoever gives it up has everything killed that it
//! has started, detached or not. What a probe leaves behind is killed as well; what a hook leaves, which is how
//! programs are started beside the container's, is the container's from then on, as under containerd.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use coracle_cgroup::Cgroup;
use coracle_model::{ContainerId, Pod};
use jiff::Timestamp;
use tokio::net::unix::pipe;
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;

use super::exec::{ExecHandle, ExecRequest};
use crate::blocking::blocking;
use crate::error::{Error, system};
use crate::pause::ExitStatus;
use crate::pod::ContainerState;
use crate::runtime::Runtime;

/// A program to be run to its end in a container that runs.
#[derive(Clone, Debug)]
pub struct ExecSyncRequest {
    /// The container's pod.
    pub pod: Arc<Pod>,
    /// The container's name in it.
    pub container: String,
    /// The container.
    pub id: ContainerId,
    /// Program and arguments. Never empty.
    pub command: Vec<String>,
    /// The most bytes of output that are kept. What comes after them is read and dropped.
    pub output_limit: usize,
    /// What the program leaves running when it ends, however it ends, becomes the container's own; otherwise it is
    /// killed.
    pub keep_running: bool,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecSyncOutput {
    /// 0 to 255; 128 plus the signal's number when a signal ended it.
    pub code: i32,
    /// Standard output before standard error.
    pub output: Vec<u8>,
}

impl Runtime {
    /// Runs a program in a container as [`Runtime::exec`] does, and waits for its end, not for that of what
    /// it has left running.
    ///
    /// When this fails or is dropped, the program and whatever it has started is killed.
    ///
    /// # Errors
    /// When the container does not run, the program cannot be executed, or many that were executed before
    /// have not ended though they were killed.
    pub async fn exec_sync(&self, request: ExecSyncRequest) -> Result<ExecSyncOutput, Error> {
        let uid = &request.pod.uid;
        let state = self.inner.pod(uid).ok_or_else(|| Error::NoSandbox(uid.clone()))?;
        let container = state.container(request.id).ok_or(Error::NoContainer(request.id))?;
        let contained = Contained::new(&container).await?;
        let program = ExecRequest {
            pod: request.pod,
            container: request.container,
            id: request.id,
            command: request.command,
            tty: false,
            stdin: false,
        };
        let handle = self.exec_into(program, Some(&contained.cgroup)).await?;
        let ended = to_its_end(handle, request.output_limit).await?;
        contained.end(request.keep_running).await;
        Ok(ended)
    }
}

/// Kills what an agent before this one has executed in a container with [`Runtime::exec_sync`].
pub(super) fn end_execs(container: &ContainerState) {
    if container.has_ended() {
        return;
    }
    // The kernel lists them from its memory, in less time than another thread takes to begin.
    match container.cgroup.execs() {
        Ok(execs) => execs.into_iter().for_each(|exec| drop(tokio::spawn(end(exec, true)))),
        Err(error) => {
            tracing::warn!(container = %container.id, %error, "what was executed in a container is not ended");
        }
    }
}

// --- The cgroup ---

/// The cgroup of an executed program, which ends with this value.
struct Contained {
    cgroup: Cgroup,
    /// What ran in it is the container's now.
    handed_over: bool,
    /// Kept until it is removed.
    permit: Option<OwnedSemaphorePermit>,
}

// === impl Contained ===

impl Contained {
    /// One below a container's.
    async fn new(container: &ContainerState) -> Result<Self, Error> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let permit = Arc::clone(&container.execs).try_acquire_owned();
        let permit = permit.map_err(|_| Error::TooManyExecs(container.id))?;
        // No other has the name, one that another agent has left among them: what was killed is not used again.
        let now = Timestamp::now().as_nanosecond();
        let name = format!("{now:x}-{:x}", COUNT.fetch_add(1, Ordering::Relaxed));
        let container = container.cgroup.clone();
        blocking(move || {
            let cgroup = container.make_exec(&name)?;
            Ok(Self { cgroup, handed_over: false, permit: Some(permit) })
        })
        .await
    }

    /// Kills what is left of the program, or hands it to the container.
    async fn end(mut self, keep: bool) {
        let cgroup = self.cgroup.clone();
        let done = blocking(move || {
            if keep {
                return Ok(cgroup.hand_over()?);
            }
            cgroup.kill()?;
            Ok(false)
        });
        match done.await {
            Ok(handed_over) => self.handed_over = handed_over,
            Err(error) => {
                let cgroup = self.cgroup.path();
                tracing::warn!(cgroup = %cgroup.display(), %error, "what was executed is not ended at once");
            }
        }
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        // Without a runtime the agent ends, and the next one does it.
        let Ok(runtime) = Handle::try_current() else { return };
        let (ending, permit) = (end(self.cgroup.clone(), !self.handed_over), self.permit.take());
        runtime.spawn(async move {
            ending.await;
            drop(permit);
        });
    }
}

/// Ends what runs in an executed program's cgroup and removes it, however long that takes: a process that hangs
/// in the kernel holds up no thread.
async fn end(cgroup: Cgroup, kill: bool) {
    let path = cgroup.path();
    let ended = async {
        if kill {
            let cgroup = cgroup.clone();
            blocking(move || Ok(cgroup.kill()?)).await?;
        }
        cgroup.wait_empty().await?;
        blocking(move || Ok(cgroup.remove()?)).await
    };
    if let Err(error) = ended.await {
        tracing::warn!(cgroup = %path.display(), %error, "what was executed goes with its container only");
    }
}

// --- The output ---

/// Reads what a program writes until it has ended.
async fn to_its_end(handle: ExecHandle, limit: usize) -> Result<ExecSyncOutput, Error> {
    let ExecHandle { stdout, stderr, exit, .. } = handle;
    let (mut stdout, mut stderr) = (Capture::new(stdout, limit)?, Capture::new(stderr, limit)?);
    let mut exit = std::pin::pin!(exit.wait());
    let status = loop {
        tokio::select! {
            status = &mut exit => break status?,
            read = stdout.ready(), if stdout.is_open() => read?,
            read = stderr.ready(), if stderr.is_open() => read?,
        }
    };
    // What it wrote before its end is in the pipes, if it was not read yet. Whoever it has left behind may
    // hold them open.
    stdout.read()?;
    stderr.read()?;
    let mut output = stdout.kept;
    output.extend(stderr.kept);
    output.truncate(limit);
    let code = match status {
        ExitStatus::Code(code) => code,
        ExitStatus::Signal(signal) => 128 + signal,
    };
    Ok(ExecSyncOutput { code, output })
}

/// The beginning of what comes out of a pipe.
struct Capture {
    pipe: Option<pipe::Receiver>,
    kept: Vec<u8>,
    limit: usize,
}

/// As much as a pipe holds, so that a writer that does not end does not keep a reader.
const READ_LIMIT: usize = 64 * 1024;

// === impl Capture ===

impl Capture {
    fn new(pipe: Option<OwnedFd>, limit: usize) -> Result<Self, Error> {
        let pipe = pipe.map(pipe::Receiver::from_owned_fd).transpose();
        Ok(Self { pipe: pipe.map_err(system("watch a program's output"))?, kept: Vec::new(), limit })
    }

    fn is_open(&self) -> bool {
        self.pipe.is_some()
    }

    /// Waits until there is something to read, and reads it.
    async fn ready(&mut self) -> Result<(), Error> {
        if let Some(pipe) = &self.pipe {
            pipe.readable().await.map_err(system("read a program's output"))?;
        }
        self.read()
    }

    /// Reads what is there.
    fn read(&mut self) -> Result<(), Error> {
        let mut buffer = [0; 4096];
        let mut read = 0;
        while let Some(pipe) = self.pipe.as_ref().filter(|_| read < READ_LIMIT) {
            match pipe.try_read(&mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(count) => {
                    read += count;
                    let room = self.limit.saturating_sub(self.kept.len());
                    self.kept.extend_from_slice(&buffer[..count.min(room)]);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(system("read a program's output")(error)),
            }
        }
        Ok(())
    }
}
