//! A socket that requests go out of and answers come in by.

use std::borrow::Cow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::{fmt, io};

use coracle_linux::{NetlinkOption, in_network_namespace, set_netlink_option};
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN, NetlinkSerializable,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::sockopt::{
    set_socket_recv_buffer_size, set_socket_recv_buffer_size_force, set_socket_send_buffer_size,
    set_socket_send_buffer_size_force,
};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recvfrom, sendto, socket_with,
};

use crate::datagram::{Part, Parts, Verdict};
use crate::{Batch, Error, Failure, Failures};

/// Room for one datagram. The kernel makes those of dumps 32 KiB at most.
const DATAGRAM: usize = 64 << 10;
/// Room for answers that were not read yet. What is not used costs nothing.
const RECEIVE_BUFFER: usize = 4 << 20;
/// What one answer is counted as in there, at most: the kernel counts what it has allocated.
const ANSWER: usize = 4 << 10;
/// What fits into the kernel's default for what is sent, whatever the host sets (`net.core.wmem_default`).
const SEND_BUFFER: usize = 64 << 10;
/// How long an answer may take that is not there when the system call returns. The kernel has none such today.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };
/// How often a list is asked for that changes while it is told.
const ATTEMPTS: u32 = 16;

/// Which part of the kernel is spoken with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `NETLINK_ROUTE`: links, addresses, routes.
    Route,
    /// `NETLINK_NETFILTER`: nftables, conntrack.
    Netfilter,
}

/// A netlink socket. It belongs to one network namespace for its whole life.
#[derive(Debug)]
pub struct Socket {
    socket: OwnedFd,
    /// The number of the next request.
    next: u32,
    buffer: Vec<u8>,
}

/// A message of the kernel, without its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its place in the batch that it answers; 0 for a dump.
    pub index: usize,
    /// `nlmsg_type`.
    pub kind: u16,
    /// What stands behind the header.
    pub payload: Vec<u8>,
}

/// What became of a batch.
#[derive(Debug)]
pub struct Outcome {
    /// What was asked for, in the order it came.
    pub messages: Vec<Message>,
    /// What was refused, in the order of the batch.
    pub failures: Vec<Failure>,
}

// === impl Protocol ===

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Route => "NETLINK_ROUTE",
            Self::Netfilter => "NETLINK_NETFILTER",
        })
    }
}

impl Protocol {
    /// A bound socket in the namespace given, or the program's own.
    pub(crate) fn socket(self, namespace: Option<BorrowedFd<'_>>) -> Result<OwnedFd, Error> {
        self.try_socket(namespace).map_err(|source| Error::Open { protocol: self, source })
    }

    fn try_socket(self, namespace: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
        let protocol = match self {
            Self::Route => None,
            Self::Netfilter => Some(NETFILTER),
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let make = || socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol);
        let socket = match namespace {
            Some(namespace) => in_network_namespace(namespace, make)??,
            None => make()?,
        };
        set_netlink_option(&socket, NetlinkOption::ExtendedAcknowledgement)?;
        set_netlink_option(&socket, NetlinkOption::CappedAcknowledgement)?;
        if self == Self::Route {
            set_netlink_option(&socket, NetlinkOption::StrictChecking)?;
        }
        enlarge_receive_buffer(&socket, RECEIVE_BUFFER)?;
        bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(socket)
    }
}

/// More than the host's limit where that is allowed, else as much as is.
fn enlarge_receive_buffer(socket: &OwnedFd, size: usize) -> Result<(), Errno> {
    match set_socket_recv_buffer_size_force(socket, size) {
        Err(Errno::PERM) => set_socket_recv_buffer_size(socket, size),
        other => other,
    }
}

// === impl Socket ===

impl Socket {
    /// Of the network namespace the program is in.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn open(protocol: Protocol) -> Result<Self, Error> {
        Ok(Self::new(protocol.socket(None)?))
    }

    /// Of another network namespace: an open `/proc/<pid>/ns/net`, or a pidfd.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn open_in(protocol: Protocol, namespace: BorrowedFd<'_>) -> Result<Self, Error> {
        Ok(Self::new(protocol.socket(Some(namespace))?))
    }

    fn new(socket: OwnedFd) -> Self {
        Self { socket, next: 1, buffer: vec![0; DATAGRAM] }
    }

    /// Has a batch done, all of whose requests must succeed. Tells what was asked for in it.
    ///
    /// # Errors
    /// [`Error::Refused`] when one at least was; the others may have been done.
    pub fn execute(&mut self, batch: Batch) -> Result<Vec<Message>, Error> {
        self.attempt(batch)?.into_result()
    }

    /// Has a batch done, and tells what became of each request.
    ///
    /// # Errors
    /// When it could not be sent, or what became of it is not known.
    pub fn attempt(&mut self, mut batch: Batch) -> Result<Outcome, Error> {
        let mut outcome = Outcome { messages: Vec::new(), failures: Vec::new() };
        let Some(first) = batch.requests().first() else { return Ok(outcome) };
        let what = first.what.clone();
        let length = batch.len();
        let base = self.next;
        self.next = self.next.wrapping_add(u32::try_from(length).unwrap_or(u32::MAX));
        let room = length.saturating_mul(ANSWER);
        if room > RECEIVE_BUFFER {
            enlarge_receive_buffer(&self.socket, room)
                .map_err(|source| Error::Send { what: what.clone(), source })?;
        }
        self.send(batch.numbered(base)).map_err(|source| Error::Send { what: what.clone(), source })?;

        let requests = batch.requests();
        let mut waiting: Vec<bool> = requests.iter().map(|request| request.acknowledged).collect();
        let mut left = waiting.iter().filter(|waiting| **waiting).count();
        while left > 0 {
            // A transaction that is refused as a whole is answered in one, and the answer is there with the system
            // call's return. So what is not there then is not waited for.
            let received = receive(&self.socket, &mut self.buffer, outcome.failures.is_empty())
                .map_err(|source| Error::Receive { what: what.clone(), source })?;
            let Some(datagram) = received else { break };
            for part in Parts(datagram) {
                let part = part.map_err(|reason| Error::Malformed { what: what.clone(), reason })?;
                // What answers an earlier batch, whose answers were given up, is of no interest.
                let index = part.sequence.wrapping_sub(base) as usize;
                let Some(request) = requests.get(index) else { continue };
                match part.kind {
                    NLMSG_NOOP => {}
                    NLMSG_OVERRUN => return Err(Error::Receive { what, source: Errno::NOBUFS }),
                    NLMSG_ERROR => {
                        let Some(verdict) = Verdict::of_error(part) else {
                            let reason = "an acknowledgement is cut off";
                            return Err(Error::Malformed { what, reason });
                        };
                        left -= usize::from(std::mem::take(&mut waiting[index]));
                        if let Some(errno) = verdict.errno {
                            let what = request.what.clone();
                            outcome.failures.push(Failure { index, what, errno, text: verdict.text });
                        }
                    }
                    kind => {
                        outcome.messages.push(Message { index, kind, payload: part.payload.to_vec() });
                    }
                }
            }
        }
        if left > 0 && outcome.failures.is_empty() {
            let unanswered = waiting.iter().position(|waiting| *waiting).unwrap_or_default();
            return Err(Error::Unanswered { what: requests[unanswered].what.clone() });
        }
        outcome.failures.sort_by_key(|failure| failure.index);
        Ok(outcome)
    }

    /// Asks for a list. One that changes while it is told is asked for again.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Changing`], and what can be wrong with sending and receiving.
    pub fn dump(
        &mut self,
        what: impl Into<Cow<'static, str>>,
        message: &impl NetlinkSerializable,
    ) -> Result<Vec<Message>, Error> {
        let what = what.into();
        for _ in 0..ATTEMPTS {
            if let Some(messages) = self.try_dump(&what, message)? {
                return Ok(messages);
            }
        }
        Err(Error::Changing { what, attempts: ATTEMPTS })
    }

    /// `None` when it changed meanwhile.
    fn try_dump(
        &mut self,
        what: &str,
        message: &impl NetlinkSerializable,
    ) -> Result<Option<Vec<Message>>, Error> {
        let named = || Cow::from(what.to_owned());
        let mut batch = Batch::new();
        batch.push_unacknowledged(named(), NLM_F_DUMP, message);
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.send(batch.numbered(number)).map_err(|source| Error::Send { what: named(), source })?;

        let refused = |verdict: Verdict, errno| {
            Failures::one(Failure { index: 0, what: named(), errno, text: verdict.text })
        };
        let malformed = |reason| Error::Malformed { what: named(), reason };
        let (mut messages, mut changed) = (Vec::new(), false);
        loop {
            let received = receive(&self.socket, &mut self.buffer, true)
                .map_err(|source| Error::Receive { what: named(), source })?;
            let Some(datagram) = received else { return Err(Error::Unanswered { what: named() }) };
            for part in Parts(datagram) {
                let part: Part<'_> = part.map_err(malformed)?;
                if part.sequence != number {
                    continue;
                }
                changed |= part.flags & NLM_F_DUMP_INTR != 0;
                let verdict = match part.kind {
                    NLMSG_NOOP => continue,
                    NLMSG_OVERRUN => {
                        return Err(Error::Receive { what: named(), source: Errno::NOBUFS });
                    }
                    NLMSG_ERROR => {
                        Verdict::of_error(part).ok_or_else(|| malformed("an acknowledgement is cut off"))?
                    }
                    NLMSG_DONE => Verdict::of_done(part),
                    kind => {
                        messages.push(Message { index: 0, kind, payload: part.payload.to_vec() });
                        continue;
                    }
                };
                return match verdict.errno {
                    // Both are told of a list that changed; the second by those nftables makes.
                    Some(Errno::INTR) => Ok(None),
                    Some(errno) => Err(refused(verdict, errno).into()),
                    None => Ok((!changed).then_some(messages)),
                };
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Errno> {
        if bytes.len() > SEND_BUFFER {
            // The kernel takes some of it for its own bookkeeping, and doubles what it is told.
            match set_socket_send_buffer_size_force(&self.socket, bytes.len()) {
                Err(Errno::PERM) => set_socket_send_buffer_size(&self.socket, bytes.len())?,
                other => other?,
            }
        }
        let kernel = SocketAddrNetlink::new(0, 0);
        retry_on_intr(|| sendto(&self.socket, bytes, SendFlags::empty(), &kernel)).map(drop)
    }
}

/// The next datagram of the kernel. `None` when there is none: at once, or not within [`PATIENCE`].
pub(crate) fn receive<'a>(
    socket: &OwnedFd,
    buffer: &'a mut [u8],
    wait: bool,
) -> Result<Option<&'a [u8]>, Errno> {
    let length = loop {
        match retry_on_intr(|| recvfrom(socket, &mut *buffer, RecvFlags::TRUNC)) {
            Ok((_, length, sender)) => {
                // Other programs may send to a port, too.
                let sender = sender.and_then(|sender| SocketAddrNetlink::try_from(sender).ok());
                if sender.is_some_and(|sender| sender.pid() == 0) {
                    break length;
                }
            }
            Err(Errno::AGAIN) if !wait || !readable(socket)? => return Ok(None),
            Err(Errno::AGAIN) => {}
            Err(errno) => return Err(errno),
        }
    };
    buffer.get(..length).map(Some).ok_or(Errno::MSGSIZE)
}

fn readable(socket: &OwnedFd) -> Result<bool, Errno> {
    let mut sockets = [PollFd::new(socket, PollFlags::IN)];
    Ok(retry_on_intr(|| poll(&mut sockets, Some(&PATIENCE)))? > 0)
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

// === impl Outcome ===

impl Outcome {
    /// Forgets that the request at a place was refused, if it was for this reason.
    #[must_use]
    pub fn tolerate(mut self, index: usize, errno: Errno) -> Self {
        self.failures.retain(|failure| failure.index != index || failure.errno != errno);
        self
    }

    /// What was asked for, unless something was refused.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn into_result(self) -> Result<Vec<Message>, Error> {
        let mut failures = self.failures.into_iter();
        match failures.next() {
            None => Ok(self.messages),
            Some(first) => Err(Failures { first, others: failures.collect() }.into()),
        }
    }
}

// === impl Failures ===

impl Failures {
    fn one(first: Failure) -> Self {
        Self { first, others: Vec::new() }
    }
}
