//! Speaking with pause.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coracle_linux::ReadinessFd;
use coracle_model::ContainerId;
use coracle_pause_wire::{
    Entry, Hello, MAX_DESCRIPTORS, MAX_MESSAGE, Message, NO_ID, Request, VERSION, spawn,
};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, geteuid, pidfd_open, waitid};
use tokio::io::Interest;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinHandle};

use super::error::CONNECT;
use super::launch::socket_address;
use super::packet::{self, Packet};
use super::{Exit, PauseError};

/// How long pause may take to answer. It never waits for anything itself.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to a pod's pause. Any number of callers may use it at once.
#[derive(Debug)]
pub struct PauseClient {
    socket: Arc<ReadinessFd>,
    waiting: Arc<Mutex<Waiting>>,
    hello: Hello,
    pid: Pid,
    pidfd: OwnedFd,
    /// The tasks that read what pause says and watch it die.
    tasks: [AbortHandle; 2],
}

/// What pause tells by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A child ended.
    Exited(Exited),
    /// The connection ended: another agent connected, too much was left unread, or pause is dying. Events
    /// may have been missed: connect again, and list.
    Disconnected,
    /// pause is dead, and was reaped if it was this agent's child. Nothing follows.
    Died,
}

/// A child that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exited {
    /// The container it was. `None` for a helper, an exec'd program or an orphan.
    pub container: Option<ContainerId>,
    /// The pid it had. The event may come before the pid is known from elsewhere.
    pub pid: u32,
    /// How and when it ended.
    pub exit: Exit,
    /// It was pid 1 of the shared pid namespace: every container in there was killed, and none can be
    /// started any more. The sandbox has to be replaced.
    pub reaper: bool,
}

/// A child to start.
#[derive(Clone, Copy, Debug)]
pub struct Spawn<'a> {
    /// The container it is; `None` for a helper, which is forgotten as it ends.
    pub container: Option<ContainerId>,
    /// A pid namespace of its own.
    pub new_pid: bool,
    /// A mount namespace of its own.
    pub new_mount: bool,
    /// The program, executed as `coracle-init` without environment.
    pub program: BorrowedFd<'a>,
    /// Standard input, output and error.
    pub stdio: [BorrowedFd<'a>; 3],
    /// What is descriptor 3 of the child.
    pub control: BorrowedFd<'a>,
    /// The directory of the cgroup (v2) it is born into; pause's own without.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// What pause keeps for the container, at most 16.
    pub held: &'a [BorrowedFd<'a>],
}

/// A child of pause.
#[derive(Debug)]
pub struct Spawned {
    /// Its pid, in the host's namespace.
    pub pid: Pid,
    /// A pidfd of it.
    pub pidfd: OwnedFd,
}

/// A container pause knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Which.
    pub container: ContainerId,
    /// Its pid, in the host's namespace.
    pub pid: u32,
    /// How many descriptors are held for it.
    pub held: u8,
    /// How it ended, unless it lives.
    pub exit: Option<Exit>,
    /// Its end could not be written to the ledger yet, as for want of space; only pause knows it.
    pub unrecorded: bool,
}

/// What was held for a container.
#[derive(Debug, Default)]
pub struct Taken {
    /// A pidfd of it, while it lives.
    pub pidfd: Option<OwnedFd>,
    /// Duplicates of the descriptors, in the order they were given.
    pub held: Vec<OwnedFd>,
}

/// The shared pid namespace.
#[derive(Debug)]
pub struct SharedPid {
    /// Its pid 1.
    pub pidfd: OwnedFd,
    /// Its /proc: a detached mount, for one container.
    pub proc: OwnedFd,
}

/// The requests without an answer.
#[derive(Debug, Default)]
struct Waiting {
    sequence: u32,
    answers: HashMap<u32, oneshot::Sender<Packet>>,
    closed: bool,
}

// === impl PauseClient ===

impl PauseClient {
    /// Connects to the pause of the pod with this directory. Whoever was connected before is disconnected.
    ///
    /// # Errors
    /// `ECONNREFUSED` or `ENOENT` of the step "connect to pause" when none lives there.
    pub async fn connect(
        directory: BorrowedFd<'_>,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Event>), PauseError> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .map_err(PauseError::at("make a socket"))?;
        let connected = socket_address(directory).and_then(|address| connect(&socket, &address));
        connected.map_err(PauseError::at(CONNECT))?;
        // pause itself called listen, so this is pause.
        let peer = socket_peercred(&socket).map_err(PauseError::at("ask who the peer is"))?;
        if peer.uid != geteuid() {
            return Err(PauseError::at(CONNECT)(Errno::PERM));
        }
        let pidfd =
            pidfd_open(peer.pid, PidfdFlags::empty()).map_err(PauseError::at("open a pidfd of pause"))?;
        let watched = pidfd.try_clone().map_err(PauseError::at_io("duplicate the pidfd of pause"))?;

        let socket = ReadinessFd::new(socket, Interest::READABLE | Interest::WRITABLE)
            .map_err(PauseError::at_io("watch the socket"))?;
        let watched = ReadinessFd::new(watched, Interest::READABLE)
            .map_err(PauseError::at_io("watch the pidfd of pause"))?;
        let socket = Arc::new(socket);
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let (events, receiver) = mpsc::unbounded_channel();
        let reader = tokio::spawn(read(Arc::clone(&socket), Arc::clone(&waiting), events.clone()));
        let tasks = [reader.abort_handle(), tokio::spawn(watch(watched, reader, events)).abort_handle()];
        let hello = Hello { version: VERSION, capacity: 0, pid: 0, flags: 0, oom_score_adj_errno: 0 };
        let mut client = Self { socket, waiting, hello, pid: peer.pid, pidfd, tasks };
        client.hello = client.greet().await?;
        Ok((client, receiver))
    }

    /// Settles the version. The answer also proves that the pidfd is pause's: the peer lived after the
    /// pidfd was opened, so its pid was not another's then.
    async fn greet(&self) -> Result<Hello, PauseError> {
        let request = "hello";
        let packet = self.request(request, &Request::Hello { lowest: 1, highest: VERSION }, &[]).await?;
        match message(request, &packet)? {
            Message::Hello(hello) if hello.version != VERSION => {
                Err(unexpected(request, "a version not offered"))
            }
            Message::Hello(hello) if i32::try_from(hello.pid) != Ok(self.pid.as_raw_nonzero().get()) => {
                Err(unexpected(request, "another process's pid"))
            }
            Message::Hello(hello) => Ok(hello),
            _ => Err(unexpected(request, "another kind of message")),
        }
    }

    /// pause's pid.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// A pidfd of pause.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Why pause could not protect itself from the OOM killer, if the host refused.
    pub fn oom_score_adj_refused(&self) -> Option<Errno> {
        let errno = self.hello.oom_score_adj_errno;
        (errno != 0).then(|| Errno::from_raw_os_error(errno))
    }

    /// Starts a child. That a step in the child failed before its program ran is told when it is reported
    /// as exited.
    pub async fn spawn(&self, child: &Spawn<'_>) -> Result<Spawned, PauseError> {
        let mut flags = 0;
        for (wanted, flag) in [
            (child.new_pid, spawn::NEWPID),
            (child.new_mount, spawn::NEWNS),
            (child.cgroup.is_some(), spawn::INTO_CGROUP),
        ] {
            if wanted {
                flags |= flag;
            }
        }
        let mut descriptors = vec![child.program];
        descriptors.extend(child.stdio);
        descriptors.push(child.control);
        descriptors.extend(child.cgroup);
        descriptors.extend(child.held);
        let id = child.container.map_or(NO_ID, |container| *container.as_bytes());
        let request = Request::Spawn(coracle_pause_wire::Spawn { flags, id });
        self.child("spawn", &request, &descriptors).await
    }

    /// Makes a child that was born by `CLONE_PARENT` a container, and holds descriptors for it.
    pub async fn register(
        &self,
        container: ContainerId,
        pid: u32,
        held: &[BorrowedFd<'_>],
    ) -> Result<Spawned, PauseError> {
        self.child("register", &Request::Register { pid, id: *container.as_bytes() }, held).await
    }

    /// Has pause keep more descriptors for a container.
    pub async fn hold(&self, container: ContainerId, held: &[BorrowedFd<'_>]) -> Result<(), PauseError> {
        self.done("hold", &Request::Hold { id: *container.as_bytes() }, held).await
    }

    /// Has pause close one of the descriptors it keeps for a container; those behind it move up.
    pub async fn unhold(&self, container: ContainerId, position: u16) -> Result<(), PauseError> {
        self.done("unhold", &Request::Unhold { id: *container.as_bytes(), position }, &[]).await
    }

    /// Every container pause knows, those that ended and were not released included.
    pub async fn list(&self) -> Result<Vec<Listed>, PauseError> {
        let request = "list";
        let mut all = Vec::new();
        let mut start = 0;
        loop {
            let packet = self.request(request, &Request::List { start }, &[]).await?;
            let Message::Page { next, entries } = message(request, &packet)? else {
                return Err(unexpected(request, "another kind of message"));
            };
            for entry in entries.iter() {
                all.push(entry.ok_or(unexpected(request, "a malformed entry"))?.into());
            }
            match next {
                0 => return Ok(all),
                next if next <= start => return Err(unexpected(request, "pages without end")),
                next => start = next,
            }
        }
    }

    /// Duplicates of what is held for a container, and a pidfd while it lives.
    pub async fn take(&self, container: ContainerId) -> Result<Taken, PauseError> {
        let request = "take";
        let packet = self.request(request, &Request::Take { id: *container.as_bytes() }, &[]).await?;
        let Message::Taken { alive, held } = message(request, &packet)? else {
            return Err(unexpected(request, "another kind of message"));
        };
        let mut descriptors = packet.descriptors.into_iter();
        let pidfd = if alive { descriptors.next() } else { None };
        let taken = Taken { pidfd, held: descriptors.collect() };
        if taken.pidfd.is_some() != alive || taken.held.len() != usize::from(held) {
            return Err(unexpected(request, "another number of descriptors"));
        }
        Ok(taken)
    }

    /// Has pause forget a container that ended, and close what it held.
    pub async fn release(&self, container: ContainerId) -> Result<(), PauseError> {
        self.done("release", &Request::Release { id: *container.as_bytes() }, &[]).await
    }

    /// The shared pid namespace, with a /proc for one container.
    pub async fn shared_pid(&self) -> Result<SharedPid, PauseError> {
        let request = "shared pid namespace";
        let packet = self.request(request, &Request::SharedPid, &[]).await?;
        let Message::SharedPid = message(request, &packet)? else {
            return Err(unexpected(request, "another kind of message"));
        };
        let [pidfd, proc] = <[OwnedFd; 2]>::try_from(packet.descriptors)
            .map_err(|_| unexpected(request, "another number of descriptors"))?;
        Ok(SharedPid { pidfd, proc })
    }

    /// Has pause end. Refused while a container is not released or a child lives. It has ended when its
    /// death is reported.
    pub async fn shutdown(&self) -> Result<(), PauseError> {
        self.done("shutdown", &Request::Shutdown, &[]).await
    }

    async fn child(
        &self,
        name: &'static str,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Spawned, PauseError> {
        let packet = self.request(name, request, descriptors).await?;
        let Message::Child { pid } = message(name, &packet)? else {
            return Err(unexpected(name, "another kind of message"));
        };
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(unexpected(name, "no pid"))?;
        let [pidfd] = <[OwnedFd; 1]>::try_from(packet.descriptors)
            .map_err(|_| unexpected(name, "another number of descriptors"))?;
        Ok(Spawned { pid, pidfd })
    }

    async fn done(
        &self,
        name: &'static str,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), PauseError> {
        let packet = self.request(name, request, descriptors).await?;
        match message(name, &packet)? {
            Message::Done => Ok(()),
            _ => Err(unexpected(name, "another kind of message")),
        }
    }

    /// Sends a request and waits for its answer.
    async fn request(
        &self,
        name: &'static str,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Packet, PauseError> {
        if descriptors.len() > MAX_DESCRIPTORS {
            return Err(PauseError::Agent { step: "pass so many descriptors to pause", errno: Errno::MFILE });
        }
        let (sender, receiver) = oneshot::channel();
        let sequence = lock(&self.waiting).add(sender).ok_or(PauseError::Disconnected { request: name })?;
        // Also when this is cancelled or fails.
        let _forget = Forget { waiting: &self.waiting, sequence };
        let mut buffer = [0; MAX_MESSAGE];
        let bytes = request
            .encode(sequence, &mut buffer)
            .and_then(|length| buffer.get(..length))
            .ok_or(unexpected(name, "a request that is too long"))?;
        let answered = async {
            packet::send(&self.socket, bytes, descriptors).await.map_err(
                |error| match Errno::from_io_error(&error) {
                    Some(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) | None => {
                        PauseError::Disconnected { request: name }
                    }
                    Some(errno) => PauseError::Agent { step: "send a request to pause", errno },
                },
            )?;
            receiver.await.map_err(|_| PauseError::Disconnected { request: name })
        };
        tokio::time::timeout(TIMEOUT, answered)
            .await
            .map_err(|_| PauseError::Timeout { request: name, after: TIMEOUT })?
    }
}

impl Drop for PauseClient {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// The message of an answer, or the error it is.
fn message<'a>(request: &'static str, packet: &'a Packet) -> Result<Message<'a>, PauseError> {
    match Message::decode(&packet.bytes) {
        Some((_, Message::Error { step, errno })) => {
            Err(PauseError::Refused { request, step, errno: Errno::from_raw_os_error(errno) })
        }
        Some((_, message)) => Ok(message),
        None => Err(unexpected(request, "a malformed message")),
    }
}

fn unexpected(request: &'static str, what: &'static str) -> PauseError {
    PauseError::Protocol { request, what }
}

/// Reads until the connection ends.
async fn read(socket: Arc<ReadinessFd>, waiting: Arc<Mutex<Waiting>>, events: mpsc::UnboundedSender<Event>) {
    while let Ok(Some(packet)) = packet::receive(&socket).await {
        match Message::decode(&packet.bytes) {
            Some((0, Message::Exited(entry))) => {
                if let Some(exited) = exited(&entry) {
                    // Nobody listens any more: the client is about to be dropped.
                    let _ = events.send(Event::Exited(exited));
                }
            }
            Some((sequence, _)) => {
                if let Some(waiter) = lock(&waiting).answers.remove(&sequence) {
                    // Cancelled: what came with it is closed.
                    let _ = waiter.send(packet);
                }
            }
            // A later version's event, which this agent did not ask for.
            None => tracing::warn!("pause sent a message this version does not know"),
        }
    }
    lock(&waiting).close();
    let _ = events.send(Event::Disconnected);
}

/// Waits until pause is dead, and reaps it if it is this agent's child. Tells when all it said before its
/// death was told.
async fn watch(pidfd: ReadinessFd, reader: JoinHandle<()>, events: mpsc::UnboundedSender<Event>) {
    if pidfd.readable().await.is_ok() {
        // ECHILD when an agent before this one started it.
        let _ = waitid(WaitId::PidFd(pidfd.get_ref().as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        let _ = reader.await;
        let _ = events.send(Event::Died);
    }
}

fn exited(entry: &Entry) -> Option<Exited> {
    Some(Exited {
        container: (entry.id != NO_ID).then(|| ContainerId::from_bytes(entry.id)),
        pid: entry.pid,
        exit: entry.exit?.into(),
        reaper: entry.reaper,
    })
}

impl From<Entry> for Listed {
    fn from(entry: Entry) -> Self {
        Self {
            container: ContainerId::from_bytes(entry.id),
            pid: entry.pid,
            held: entry.held,
            exit: entry.exit.map(Exit::from),
            unrecorded: entry.unrecorded,
        }
    }
}

// === impl Waiting ===

impl Waiting {
    /// A sequence nobody waits with; `None` once the connection ended. 0 is for events.
    fn add(&mut self, answer: oneshot::Sender<Packet>) -> Option<u32> {
        if self.closed {
            return None;
        }
        loop {
            self.sequence = self.sequence.wrapping_add(1).max(1);
            if !self.answers.contains_key(&self.sequence) {
                self.answers.insert(self.sequence, answer);
                return Some(self.sequence);
            }
        }
    }

    fn close(&mut self) {
        self.closed = true;
        self.answers.clear();
    }
}

/// No code panics while it holds the lock, and each leaves the table whole.
fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a request off the table when nobody waits any more.
struct Forget<'a> {
    waiting: &'a Mutex<Waiting>,
    sequence: u32,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(self.waiting).answers.remove(&self.sequence);
    }
}
