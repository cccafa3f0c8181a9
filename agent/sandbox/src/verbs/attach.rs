//! Watching a running container's output, and feeding its input.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use coracle_model::{ContainerId, Pod};
use coracle_pause_wire::Step;
use rustix::fs::{FileType, fstat};
use tokio::sync::watch;

use super::exec::Terminal;
use crate::error::Error;
use crate::logs::{HELD_OUTPUT, LiveOutput, Tap};
use crate::pause::{PauseClient, PauseError};
use crate::runtime::Runtime;

/// A container to attach to.
#[derive(Clone, Debug)]
pub struct AttachRequest {
    /// The container's pod.
    pub pod: Arc<Pod>,
    /// The container's name in it.
    pub container: String,
    /// The container.
    pub id: ContainerId,
    /// Its standard input is wanted.
    pub stdin: bool,
}

/// A client of a container. Dropping it detaches, which the container notices at most by the end of its
/// standard input, if it is `stdinOnce`.
#[derive(Debug)]
pub struct Attachment {
    /// The writing end of standard input, when it is wanted and there is one and no terminal.
    pub stdin: Option<OwnedFd>,
    /// Standard output, or what the terminal shows, from now on.
    pub stdout: LiveOutput,
    /// Standard error from now on.
    pub stderr: LiveOutput,
    /// The container's terminal. Its output is `stdout`, and must not be read from here.
    pub terminal: Option<Terminal>,
    /// The end of the container.
    pub end: ContainerEnd,
}

/// The end of a container, for one that is attached to it.
#[derive(Debug)]
pub struct ContainerEnd {
    ended: watch::Receiver<bool>,
    cut_off: watch::Receiver<bool>,
    id: ContainerId,
}

impl Runtime {
    /// Attaches to a container that runs. Others may be attached as well.
    ///
    /// The standard input of a `stdinOnce` container goes to the first who wants it, and ends with it,
    /// whatever becomes of the agent. Any other stays open, because pause holds it.
    ///
    /// # Errors
    /// When the container does not run, or pause does not give what it holds.
    pub async fn attach(&self, request: AttachRequest) -> Result<Attachment, Error> {
        let (pod, id) = (&request.pod, request.id);
        let state = self.inner.pod(&pod.uid).ok_or_else(|| Error::NoSandbox(pod.uid.clone()))?;
        let _verb = state.verbs.read().await;
        let sandbox = state.sandbox()?;
        let container = state.container(id).ok_or(Error::NoContainer(id))?;
        let specified = pod.container(&request.container).ok_or(Error::NoContainer(id))?;
        let (tty, started) = {
            let record = &container.data().record;
            (record.tty, record.started_at.is_some())
        };
        if !started || container.has_ended() {
            return Err(Error::NotRunning(id));
        }

        let (stdin, terminal) = if tty {
            let (_, master) = held(&sandbox.client, id, FileType::CharacterDevice).await?.unzip();
            (None, master.map(Terminal::new))
        } else if request.stdin && specified.stdin {
            let _attaching = container.attaching.lock().await;
            let found = held(&sandbox.client, id, FileType::Fifo).await?;
            if let (Some((position, _)), true) = (&found, specified.stdin_once) {
                let_go(&sandbox.client, id, *position).await?;
            }
            (found.map(|(_, stdin)| stdin), None)
        } else {
            (None, None)
        };
        let Tap { stdout, stderr, cut_off } = container.taps.attach();
        let end = ContainerEnd { ended: container.ended.subscribe(), cut_off, id };
        Ok(Attachment { stdin, stdout, stderr, terminal, end })
    }
}

/// What the container reads from, a pipe or a terminal, out of what pause holds; and its position there.
async fn held(pause: &PauseClient, id: ContainerId, kind: FileType) -> Result<Option<(u16, OwnedFd)>, Error> {
    // The output comes first, and is pipes as well.
    let beside = pause.take(id).await?.held.into_iter().zip(0..).skip(HELD_OUTPUT);
    let is_it = |descriptor: &OwnedFd| {
        fstat(descriptor).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == kind)
    };
    Ok(beside.map(|(descriptor, position)| (position, descriptor)).find(|(_, descriptor)| is_it(descriptor)))
}

/// Has pause close its writing end of standard input.
async fn let_go(pause: &PauseClient, id: ContainerId, position: u16) -> Result<(), Error> {
    match pause.unhold(id, position).await {
        Err(PauseError::Refused { step: Step::Kind, .. }) => {
            tracing::warn!(container = %id, "the pod's pause is of an older version: standard input stays open after the first client");
            Ok(())
        }
        done => Ok(done?),
    }
}

// === impl ContainerEnd ===

impl ContainerEnd {
    /// Resolves when the container has ended and its output is complete.
    ///
    /// # Errors
    /// [`Error::ClientBehind`], at once, when the output was not read as fast as it came.
    pub async fn wait(mut self) -> Result<(), Error> {
        tokio::select! {
            // Waiting fails when the container was forgotten, which it was not before it had ended.
            _ = self.ended.wait_for(|ended| *ended) => {}
            // And this when no output is read any more: then nobody is cut off.
            Ok(_) = self.cut_off.wait_for(|cut_off| *cut_off) => {}
        }
        if *self.cut_off.borrow() { Err(Error::ClientBehind(self.id)) } else { Ok(()) }
    }
}
