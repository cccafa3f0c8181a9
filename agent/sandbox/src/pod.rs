//! What the runtime knows of one pod, and how its containers are watched.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coracle_cgroup::{Cgroup, PodCgroup};
use coracle_model::{ContainerId, PodUid};
use tokio::sync::{RwLock, Semaphore, oneshot, watch};

use crate::control::Control;
use crate::error::Error;
use crate::host;
use crate::logs::Taps;
use crate::pause::{Exit, Ledger, PauseClient, read_ledger};
use crate::record::{ContainerRecord, ExitRecord};

/// A pod of the runtime.
pub(crate) struct PodState {
    pub(crate) uid: PodUid,
    pub(crate) dir: PathBuf,
    /// Held for reading by verbs on containers and for writing by those on the sandbox, so that nothing
    /// is made in a sandbox that is being removed. Never held while waiting for a container to end.
    pub(crate) verbs: Arc<RwLock<()>>,
    /// Held while interfaces of the host are moved into the pod or back.
    pub(crate) interfaces: Arc<Mutex<()>>,
    data: Mutex<PodData>,
}

/// The changeable part.
#[derive(Default)]
pub(crate) struct PodData {
    /// What was made, while it is not removed.
    pub(crate) sandbox: Option<Sandbox>,
    /// pause has not told this agent what it holds: it is asked until it does, or is dead. What is known of the
    /// sandbox is what is on record.
    pub(crate) unanswered: bool,
    /// pause died: nothing can be started any more.
    pub(crate) dead: bool,
    /// How often the sandbox was made again.
    pub(crate) attempt: u32,
    /// In order of creation.
    pub(crate) containers: Vec<Arc<ContainerState>>,
    pub(crate) execs: Execs,
}

/// A sandbox that was made.
#[derive(Clone)]
pub(crate) struct Sandbox {
    pub(crate) client: Arc<PauseClient>,
    pub(crate) cgroup: PodCgroup,
}

/// A container of the runtime.
pub(crate) struct ContainerState {
    pub(crate) id: ContainerId,
    pub(crate) dir: PathBuf,
    pub(crate) cgroup: Cgroup,
    /// The container's processes are not all in a pid namespace that ends with the first of them.
    pub(crate) shares_pids: bool,
    data: Mutex<ContainerData>,
    /// The way to init until the program is executed. Held while it is being executed, so that how that went is
    /// known before how the container ended.
    pub(crate) control: tokio::sync::Mutex<Option<Control>>,
    /// For each program executed in it that has a cgroup of its own.
    pub(crate) execs: Arc<Semaphore>,
    /// Whoever is attached to its output.
    pub(crate) taps: Arc<Taps>,
    /// Held while standard input is taken from pause, so that one that is `stdinOnce` is taken once.
    pub(crate) attaching: tokio::sync::Mutex<()>,
    /// Held by whoever completes the container, so that it is done once.
    pub(crate) completing: tokio::sync::Mutex<()>,
    /// Becomes true when the container ended and all it wrote is in its log.
    pub(crate) ended: watch::Sender<bool>,
}

/// So many programs with a cgroup of their own may not have ended in a container. Its probes and hooks have a
/// few; more are hung.
pub(crate) const MOST_EXECS: usize = 16;

/// The changeable part.
pub(crate) struct ContainerData {
    pub(crate) record: ContainerRecord,
    /// Names the first process until it has ended.
    pidfd: Option<Arc<OwnedFd>>,
    /// What exec'd programs inherit, as [`crate::environment`] keeps it, until the container has ended; pause holds
    /// it, too.
    environment: Option<Arc<OwnedFd>>,
    /// The stop signal was sent.
    pub(crate) stopping: bool,
    /// Resolves when both output streams have been read to their end.
    pub(crate) pump: Option<tokio::task::JoinHandle<()>>,
}

/// Exec'd programs of a pod that somebody waits for.
///
/// pause reports their exits by pid, and the report may come before init has said which pid it is.
#[derive(Default)]
pub(crate) struct Execs {
    waiting: HashMap<u32, oneshot::Sender<Exit>>,
    /// Exits nobody waits for, and which of all reports each was, newest last: most are those of init's intermediate
    /// processes.
    unclaimed: std::collections::VecDeque<(u64, u32, Exit)>,
    reported: u64,
}

/// More exits than this cannot lie between a process's birth and its init telling of it.
const UNCLAIMED: usize = 128;

// === impl PodState ===

impl PodState {
    pub(crate) fn new(uid: PodUid, dir: PathBuf) -> Self {
        Self { uid, dir, verbs: Arc::default(), interfaces: Arc::default(), data: Mutex::default() }
    }

    pub(crate) fn data(&self) -> MutexGuard<'_, PodData> {
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sandbox, if pause lives.
    pub(crate) fn live_sandbox(&self) -> Option<Sandbox> {
        let data = self.data();
        data.sandbox.clone().filter(|_| !data.dead)
    }

    /// The sandbox, for what cannot be done without it.
    pub(crate) fn sandbox(&self) -> Result<Sandbox, Error> {
        match self.live_sandbox() {
            Some(sandbox) => Ok(sandbox),
            None if self.data().unanswered => Err(Error::Unanswered(self.uid.clone())),
            None => Err(Error::NoSandbox(self.uid.clone())),
        }
    }

    /// How a container ended, if pause has written it down.
    pub(crate) fn recorded_exit(&self, id: ContainerId) -> Option<Exit> {
        self.ledger().exits.iter().find(|exit| exit.container == id).map(|exit| exit.exit)
    }

    /// What pause has written down. Without a ledger (no pause was ever started) nobody has ended either.
    pub(crate) fn ledger(&self) -> Ledger {
        let Ok(dir) = host::open_dir(&self.dir) else { return Ledger::default() };
        read_ledger(dir.as_fd()).unwrap_or_default()
    }

    pub(crate) fn container(&self, id: ContainerId) -> Option<Arc<ContainerState>> {
        self.data().containers.iter().find(|container| container.id == id).cloned()
    }

    /// The directory of a container's files.
    pub(crate) fn container_dir(&self, id: ContainerId) -> PathBuf {
        self.containers_dir().join(id.to_string())
    }

    pub(crate) fn containers_dir(&self) -> PathBuf {
        self.dir.join("containers")
    }
}

// === impl ContainerState ===

impl ContainerState {
    pub(crate) fn new(
        dir: PathBuf,
        cgroup: Cgroup,
        pidfd: Option<OwnedFd>,
        environment: Option<OwnedFd>,
        shares_pids: bool,
        record: ContainerRecord,
        control: Option<Control>,
    ) -> Self {
        let ended = record.exit.is_some();
        let id = record.id;
        let (pidfd, environment) = (pidfd.map(Arc::new), environment.map(Arc::new));
        let data = ContainerData { record, pidfd, environment, stopping: false, pump: None };
        let ended = watch::Sender::new(ended);
        Self {
            id,
            dir,
            cgroup,
            shares_pids,
            data: Mutex::new(data),
            control: tokio::sync::Mutex::new(control),
            execs: Arc::new(Semaphore::new(MOST_EXECS)),
            taps: Arc::default(),
            attaching: tokio::sync::Mutex::default(),
            completing: tokio::sync::Mutex::default(),
            ended,
        }
    }

    pub(crate) fn data(&self) -> MutexGuard<'_, ContainerData> {
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first process, unless it had ended when pause was asked for it, or the container has.
    pub(crate) fn pidfd(&self) -> Option<Arc<OwnedFd>> {
        self.data().pidfd.clone()
    }

    /// What exec'd programs inherit, unless the container had ended when pause was asked for it, or has since.
    pub(crate) fn environment(&self) -> Option<Arc<OwnedFd>> {
        self.data().environment.clone()
    }

    /// What pause had of a container that is taken over, which is done once.
    pub(crate) fn taken_over(&self, pidfd: Option<OwnedFd>, environment: Option<OwnedFd>) {
        let mut data = self.data();
        data.pidfd = pidfd.map(Arc::new);
        data.environment = environment.map(Arc::new);
    }

    /// Lets go of what only a container that runs needs: one that ended is kept, to be told of, until the next has.
    pub(crate) fn let_go(&self) {
        let mut data = self.data();
        (data.pidfd, data.environment) = (None, None);
    }

    /// Whether it was never ordered to start, and has not ended either.
    pub(crate) fn is_to_start(&self) -> bool {
        let data = self.data();
        data.record.exit.is_none() && data.record.started_at.is_none()
    }

    pub(crate) fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Returns when the container has ended and its log is complete.
    pub(crate) async fn wait_ended(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// Notes how it ended. The first word counts.
    pub(crate) fn set_exit(&self, exit: ExitRecord) -> Option<ContainerRecord> {
        let mut data = self.data();
        if data.record.exit.is_some() {
            return None;
        }
        data.record.exit = Some(exit);
        Some(data.record.clone())
    }

    /// Where the container's record lies.
    pub(crate) fn record_path(&self) -> PathBuf {
        self.dir.join(crate::record::CONTAINER)
    }
}

/// Where the cursor of a container's log lies.
pub(crate) fn cursor_path(container_dir: &Path) -> PathBuf {
    container_dir.join("log.cursor")
}

// === impl Execs ===

impl Execs {
    /// Ends were told to nobody: those who wait learn that theirs is lost.
    pub(crate) fn forget(&mut self) {
        self.waiting.clear();
        self.unclaimed.clear();
    }

    /// How many exits were reported so far.
    pub(crate) fn reported(&self) -> u64 {
        self.reported
    }

    /// Waits for the exit of `pid`, which may have been reported already, but not among the first `since`, from before
    /// the process was started: that was another one, whose pid the kernel has given anew.
    pub(crate) fn wait(&mut self, pid: u32, since: u64) -> oneshot::Receiver<Exit> {
        let (sender, receiver) = oneshot::channel();
        match self.unclaimed.iter().position(|(number, of, _)| *of == pid && *number >= since) {
            Some(at) => {
                if let Some((_, _, exit)) = self.unclaimed.remove(at) {
                    let _ = sender.send(exit);
                }
            }
            None => {
                self.waiting.insert(pid, sender);
            }
        }
        receiver
    }

    /// An exit was reported.
    pub(crate) fn exited(&mut self, pid: u32, exit: Exit) {
        match self.waiting.remove(&pid) {
            // Whoever waited may have gone away.
            Some(sender) => drop(sender.send(exit)),
            None => {
                if self.unclaimed.len() == UNCLAIMED {
                    self.unclaimed.pop_front();
                }
                self.unclaimed.push_back((self.reported, pid, exit));
            }
        }
        self.reported += 1;
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::pause::ExitStatus;

    fn exit(code: i32) -> Exit {
        Exit { status: ExitStatus::Code(code), time: Timestamp::UNIX_EPOCH, failed: None }
    }

    #[test]
    fn the_end_of_a_process_is_not_taken_for_that_of_a_later_one_with_its_pid() {
        let mut execs = Execs::default();
        execs.exited(7, exit(0));
        let since = execs.reported();
        let mut later = execs.wait(7, since);
        assert!(later.try_recv().is_err(), "it runs");
        execs.exited(7, exit(3));
        assert_eq!(later.try_recv().unwrap(), exit(3));
        // One that ended before anybody came to wait for it.
        let since = execs.reported();
        execs.exited(8, exit(4));
        assert_eq!(execs.wait(8, since).try_recv().unwrap(), exit(4));
        // Also after the connection broke: what is counted goes on.
        let since = execs.reported();
        execs.forget();
        execs.exited(9, exit(5));
        assert_eq!(execs.wait(9, since).try_recv().unwrap(), exit(5));
    }
}
