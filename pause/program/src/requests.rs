//! One request, one reply.

use coracle_pause_wire::{
    CAPACITY, Hello, Id, MAX_DESCRIPTORS, MAX_HELD, MAX_MESSAGE, Message, NO_ID, PageWriter, Request, Step,
    VERSION,
};

use crate::children::Child;
use crate::descriptors::{Descriptor, Descriptors};
use crate::reaper::Reaper;
use crate::sandbox::{Ending, Sandbox};
use crate::socket::{self, Packet};
use crate::startup::At;
use crate::sys::{
    self, Errno,
    process::{self, Then, Whom},
};
use crate::{exits, spawn};

/// What to do once the reply is on its way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Serve,
    End,
}

type Answer = Result<Message<'static>, (Step, Errno)>;
type Received = Descriptors<MAX_DESCRIPTORS>;

/// Does what the packet asks and answers. An error is one of sending: the connection is of no more use.
pub(crate) fn answer(
    sandbox: &mut Sandbox,
    connection: &Descriptor,
    packet: Packet<'_>,
    buffer: &mut [u8; MAX_MESSAGE],
) -> sys::Result<Next> {
    let (sequence, request) = Request::decode(packet.bytes);
    let mut reply = Reply { connection, sequence, buffer };
    let request = request.map_err(|malformed| {
        let errno = match malformed.step() {
            Step::Kind => sys::ENOSYS,
            Step::Flags => sys::EINVAL,
            _ => sys::EBADMSG,
        };
        (malformed.step(), errno)
    });
    let request = match acceptable(sandbox, &packet).and(request) {
        Ok(request) => request,
        Err(failed) => return reply.error(failed),
    };
    act(sandbox, request, packet.descriptors, &mut reply)
}

/// Whether the packet came whole, and its descriptors leave pause some of its own.
fn acceptable(sandbox: &Sandbox, packet: &Packet<'_>) -> Result<(), (Step, Errno)> {
    if packet.truncated {
        return Err((Step::PassedDescriptors, sys::EMSGSIZE));
    }
    if packet.descriptors.as_slice().iter().any(|fd| *fd >= sandbox.descriptor_limit) {
        return Err((Step::PassedDescriptors, sys::EMFILE));
    }
    Ok(())
}

fn act(
    sandbox: &mut Sandbox,
    request: Request,
    descriptors: Received,
    reply: &mut Reply<'_>,
) -> sys::Result<Next> {
    let takes_descriptors =
        matches!(request, Request::Spawn(_) | Request::Register { .. } | Request::Hold { .. });
    if !takes_descriptors && descriptors.len() != 0 {
        return reply.error((Step::PassedDescriptors, sys::EINVAL));
    }
    match request {
        Request::Hello { lowest, highest } => reply.answer(hello(sandbox, lowest, highest)),
        Request::Spawn(request) => reply.child(spawn::spawn(sandbox, &request, descriptors)),
        Request::Register { pid, id } => reply.child(register(sandbox, pid, id, descriptors)),
        Request::Hold { id } => reply.answer(hold(sandbox, &id, descriptors)),
        Request::Unhold { id, position } => reply.answer(unhold(sandbox, &id, position)),
        Request::List { start } => list(sandbox, start, reply),
        Request::Take { id } => take(sandbox, &id, reply),
        Request::Release { id } => reply.answer(release(sandbox, &id)),
        Request::SharedPid => shared_pid(sandbox, reply),
        Request::Shutdown => match may_end(sandbox) {
            Ok(next) => reply.message(&Message::Done, &[]).map(|()| next),
            Err(failed) => reply.error(failed),
        },
    }
}

fn hello(sandbox: &Sandbox, lowest: u16, highest: u16) -> Answer {
    // This is the first version: what an agent speaks at all includes it, or begins above it.
    if lowest > VERSION || highest < VERSION {
        return Err((Step::Version, sys::EPROTONOSUPPORT));
    }
    Ok(Message::Hello(Hello {
        version: VERSION,
        capacity: CAPACITY as u16,
        pid: sandbox.pid,
        flags: sandbox.flags,
        oom_score_adj_errno: sandbox.oom_score_adj_errno,
    }))
}

fn register(
    sandbox: &mut Sandbox,
    pid: u32,
    id: Id,
    mut descriptors: Received,
) -> Result<(u32, Descriptor), (Step, Errno)> {
    if id == NO_ID {
        return Err((Step::Id, sys::EINVAL));
    }
    if sandbox.children.container(&id).is_some() {
        return Err((Step::Id, sys::EEXIST));
    }
    if descriptors.len() > MAX_HELD {
        return Err((Step::PassedDescriptors, sys::EINVAL));
    }
    if sandbox.reaper.as_ref().is_some_and(|reaper| reaper.pid() == pid) {
        return Err((Step::Child, sys::EPERM));
    }
    // Also for one that ended and was not yet collected: it is then recorded like any other.
    if pid == 0 {
        return Err((Step::Child, sys::EINVAL));
    }
    process::ended(Whom::Pid(pid), Then::Leave).at(Step::Child)?;
    let pidfd = Descriptor::from_raw(process::pidfd_open(pid).at(Step::Pidfd)?);
    let mut held = Descriptors::NONE;
    held.take_from(&mut descriptors, 0);
    match sandbox.children.living(pid) {
        Some((_, child)) if child.id == NO_ID => {
            child.id = id;
            child.held = held;
        }
        Some(_) => return Err((Step::Child, sys::EBUSY)),
        None => {
            let position = sandbox.children.vacancy().ok_or((Step::Capacity, sys::ENOSPC))?;
            sandbox.shared.clear(position);
            let child = Child { id, pid, exit: None, recorded: false, held };
            sandbox.children.fill(position, child);
        }
    }
    Ok((pid, pidfd))
}

fn hold(sandbox: &mut Sandbox, id: &Id, mut descriptors: Received) -> Answer {
    let (_, child) = sandbox.children.container(id).ok_or((Step::Container, sys::ENOENT))?;
    if descriptors.len() == 0 || child.held.len() + descriptors.len() > MAX_HELD {
        return Err((Step::PassedDescriptors, sys::EINVAL));
    }
    child.held.take_from(&mut descriptors, 0);
    Ok(Message::Done)
}

fn unhold(sandbox: &mut Sandbox, id: &Id, position: u16) -> Answer {
    let (_, child) = sandbox.children.container(id).ok_or((Step::Container, sys::ENOENT))?;
    match child.held.remove(position.into()) {
        Some(closed) => drop(closed),
        None => return Err((Step::Held, sys::EINVAL)),
    }
    Ok(Message::Done)
}

fn list(sandbox: &mut Sandbox, start: u16, reply: &mut Reply<'_>) -> sys::Result<Next> {
    exits::record_the_unrecorded(sandbox);
    let mut page = PageWriter::new(&mut *reply.buffer, reply.sequence);
    let mut next = 0;
    for (position, child) in sandbox.children.positions().skip_while(|(at, _)| *at < usize::from(start)) {
        if child.id != NO_ID && !page.push(&child.entry()) {
            next = position as u16;
            break;
        }
    }
    let length = page.finish(next).ok_or(sys::EMSGSIZE)?;
    reply.bytes(length, &[])
}

fn take(sandbox: &mut Sandbox, id: &Id, reply: &mut Reply<'_>) -> sys::Result<Next> {
    let Some((_, child)) = sandbox.children.container(id) else {
        return reply.error((Step::Container, sys::ENOENT));
    };
    // The child was not reaped, so its pid is its own.
    let pidfd = match child.exit {
        None => match process::pidfd_open(child.pid) {
            Ok(pidfd) => Some(Descriptor::from_raw(pidfd)),
            Err(errno) => return reply.error((Step::Pidfd, errno)),
        },
        Some(_) => None,
    };
    let mut fds = [-1; MAX_HELD + 1];
    let mut count = 0;
    let all = pidfd.iter().map(Descriptor::raw).chain(child.held.as_slice().iter().copied());
    for (to, fd) in fds.iter_mut().zip(all) {
        *to = fd;
        count += 1;
    }
    let message = Message::Taken { alive: pidfd.is_some(), held: child.held.len() as u8 };
    reply.message(&message, fds.get(..count).unwrap_or_default()).map(|()| Next::Serve)
}

fn release(sandbox: &mut Sandbox, id: &Id) -> Answer {
    let (position, child) = sandbox.children.container(id).ok_or((Step::Container, sys::ENOENT))?;
    if child.exit.is_none() {
        return Err((Step::Alive, sys::EBUSY));
    }
    sandbox.children.forget(position);
    Ok(Message::Done)
}

fn shared_pid(sandbox: &mut Sandbox, reply: &mut Reply<'_>) -> sys::Result<Next> {
    let shared = match &sandbox.reaper {
        Some(reaper) => reaper.share(sandbox.shared),
        None => Err((Step::ReaperAbsent, sys::ENOENT)),
    };
    match shared {
        Ok((pidfd, proc)) => reply.message(&Message::SharedPid, &[pidfd, proc.raw()]).map(|()| Next::Serve),
        Err(failed) => reply.error(failed),
    }
}

/// No container is left, and no other child lives but those of the shared pid namespace, which end now.
fn may_end(sandbox: &mut Sandbox) -> Result<Next, (Step, Errno)> {
    if !sandbox.children.is_empty() {
        return Err((Step::Alive, sys::EBUSY));
    }
    if sandbox.reaper.as_ref().is_some_and(Reaper::kill) {
        sandbox.ending = Ending::WithoutChildren;
        return Ok(Next::Serve);
    }
    match process::ended(Whom::Any, Then::Leave) {
        Err(sys::ECHILD) => Ok(Next::End),
        _ => Err((Step::Alive, sys::EBUSY)),
    }
}

/// Where the reply to one request goes.
struct Reply<'a> {
    connection: &'a Descriptor,
    sequence: u32,
    buffer: &'a mut [u8; MAX_MESSAGE],
}

// === impl Reply ===

impl Reply<'_> {
    fn bytes(&mut self, length: usize, descriptors: &[i32]) -> sys::Result<Next> {
        let bytes = self.buffer.get(..length).unwrap_or_default();
        socket::send(self.connection, bytes, descriptors).map(|()| Next::Serve)
    }

    fn message(&mut self, message: &Message<'_>, descriptors: &[i32]) -> sys::Result<()> {
        let length = message.encode(self.sequence, self.buffer).ok_or(sys::EMSGSIZE)?;
        self.bytes(length, descriptors).map(drop)
    }

    fn error(&mut self, (step, errno): (Step, Errno)) -> sys::Result<Next> {
        self.message(&Message::Error { step, errno: errno.0 }, &[]).map(|()| Next::Serve)
    }

    fn answer(&mut self, answer: Answer) -> sys::Result<Next> {
        match answer {
            Ok(message) => self.message(&message, &[]).map(|()| Next::Serve),
            Err(failed) => self.error(failed),
        }
    }

    fn child(&mut self, child: Result<(u32, Descriptor), (Step, Errno)>) -> sys::Result<Next> {
        match child {
            Ok((pid, pidfd)) => self.message(&Message::Child { pid }, &[pidfd.raw()]).map(|()| Next::Serve),
            Err(failed) => self.error(failed),
        }
    }
}
