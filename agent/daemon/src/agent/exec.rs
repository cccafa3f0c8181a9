//! From the runtime's exec and attach to the server's: descriptors become streams.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use coracle_linux::ReadinessFd;
use coracle_sandbox::pause::ExitStatus;
use coracle_sandbox::{Error, ExecHandle, LiveOutput, ProgramExit, Runtime, Terminal};
use coracle_server::{AttachRequest, ExecError, ExecExit, ExecRequest, ExecSession, TerminalSize};
use futures_util::FutureExt;
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::unix::pipe;

/// The size of a container's terminal is set, and its input written, by duplicates of a master that pause
/// holds.
pub(super) async fn attach(runtime: Runtime, request: AttachRequest) -> Result<ExecSession, ExecError> {
    let AttachRequest { pod, container, container_id: id, stdin, stdout, stderr } = request;
    let wanted = coracle_sandbox::AttachRequest { pod, container: container.clone(), id, stdin };
    let attached = runtime.attach(wanted).await.map_err(|error| refused(container, error))?;
    let failed =
        |error: io::Error| ExecError::Failed(format!("cannot watch the container's streams: {error}"));
    let terminal = attached.terminal.map(|terminal| Shared::new(terminal.into_master())).transpose();
    let terminal = terminal.map_err(failed)?.map(Arc::new);
    let input: Option<Box<dyn AsyncWrite + Send + Unpin>> = match (&terminal, attached.stdin) {
        (Some(terminal), _) if stdin => Some(Box::new(End(Arc::clone(terminal)))),
        (None, Some(pipe)) => Some(Box::new(pipe::Sender::from_owned_fd(pipe).map_err(failed)?)),
        _ => None,
    };
    let output = |output: LiveOutput, wanted: bool| -> Option<Box<dyn AsyncRead + Send + Unpin>> {
        if wanted { Some(Box::new(output)) } else { None }
    };
    let end = attached.end;
    let exit = async move {
        match end.wait().await {
            Ok(()) => Ok(ExecExit { code: 0 }),
            Err(error) => Err(ExecError::Failed(error.to_string())),
        }
    };
    Ok(ExecSession {
        stdin: input,
        stdout: output(attached.stdout, stdout),
        stderr: output(attached.stderr, stderr),
        resize: terminal.map(|terminal| Box::new(move |size| terminal.resize(size)) as _),
        exit: exit.boxed(),
    })
}

fn refused(container: String, error: Error) -> ExecError {
    match error {
        Error::NotRunning(_) | Error::NoContainer(_) | Error::NoSandbox(_) => {
            ExecError::NotRunning(container)
        }
        error => ExecError::Failed(error.to_string()),
    }
}

/// Starts a program and gives its streams.
pub(super) async fn exec(runtime: Runtime, request: ExecRequest) -> Result<ExecSession, ExecError> {
    let container = request.container.clone();
    let handle = runtime
        .exec(coracle_sandbox::ExecRequest {
            pod: request.pod,
            container: request.container,
            id: request.container_id,
            command: request.command,
            tty: request.tty,
            stdin: request.stdin,
        })
        .await
        .map_err(|error| refused(container, error))?;
    let ExecHandle { stdin, stdout, stderr, terminal, exit } = handle;
    let failed = |error: io::Error| ExecError::Failed(format!("cannot watch the program's streams: {error}"));
    let exit = wait(exit).boxed();
    if let Some(terminal) = terminal {
        let shared = Arc::new(Shared::new(terminal.into_master()).map_err(failed)?);
        let resized = Arc::clone(&shared);
        return Ok(ExecSession {
            stdin: request.stdin.then(|| Box::new(End(Arc::clone(&shared))) as _),
            stdout: request.stdout.then(|| Box::new(End(shared)) as _),
            stderr: None,
            resize: Some(Box::new(move |size| resized.resize(size))),
            exit,
        });
    }
    let reader = |pipe: Option<OwnedFd>,
                  wanted: bool|
     -> Result<Option<Box<dyn AsyncRead + Send + Unpin>>, ExecError> {
        // One that is not wanted closes here: the program gets SIGPIPE, as with a closed terminal.
        match pipe.filter(|_| wanted) {
            Some(pipe) => Ok(Some(Box::new(pipe::Receiver::from_owned_fd(pipe).map_err(failed)?))),
            None => Ok(None),
        }
    };
    Ok(ExecSession {
        stdin: match stdin {
            Some(pipe) => Some(Box::new(pipe::Sender::from_owned_fd(pipe).map_err(failed)?)),
            None => None,
        },
        stdout: reader(stdout, request.stdout)?,
        stderr: reader(stderr, request.stderr)?,
        resize: None,
        exit,
    })
}

async fn wait(exit: ProgramExit) -> Result<ExecExit, ExecError> {
    match exit.wait().await {
        Ok(ExitStatus::Code(code)) => Ok(ExecExit { code }),
        Ok(ExitStatus::Signal(signal)) => Ok(ExecExit { code: 128 + signal }),
        Err(error) => Err(ExecError::Failed(error.to_string())),
    }
}

/// A terminal's master, which is both input and output.
struct Shared(ReadinessFd);

/// One direction of it. The terminal hangs up when both are dropped.
struct End(Arc<Shared>);

// === impl Shared ===

impl Shared {
    fn new(master: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&master, true)?;
        ReadinessFd::new(master, Interest::READABLE | Interest::WRITABLE).map(Self)
    }

    fn resize(&self, size: TerminalSize) -> io::Result<()> {
        Terminal::resize(self.0.get_ref().as_fd(), size.width, size.height)
    }
}

// === impl End ===

impl AsyncRead for End {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.0.poll_read_ready(cx))?;
            let result = rustix::io::read(self.0.0.get_ref(), buf.initialize_unfilled());
            match result {
                Ok(count) => {
                    buf.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // Nobody has the terminal open any more: its end.
                Err(Errno::IO) => return Poll::Ready(Ok(())),
                Err(Errno::AGAIN) => guard.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.0.poll_write_ready(cx))?;
            match rustix::io::write(self.0.0.get_ref(), bytes) {
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(Errno::AGAIN) => guard.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
