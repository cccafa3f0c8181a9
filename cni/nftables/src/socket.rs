//! Sockets that are kept open. Closing one of netfilter's waits in the kernel until what was deleted is destroyed (a grace
//! period of RCU and more, tens of milliseconds), whoever has deleted it.

use std::ops::{Deref, DerefMut};
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, PoisonError};

use coracle_netlink::{Protocol, Socket};
use rustix::fs::stat;

use crate::Error;

/// Those that nobody uses. Each keeps its network namespace, so a namespace's number is of one that is there.
static IDLE: Mutex<Vec<(NamespaceId, Socket)>> = Mutex::new(Vec::new());
/// How many of them are kept.
const KEPT: usize = 16;

/// Device and inode of a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NamespaceId(u64, u64);

/// A socket of netfilter's that is put back when it is dropped.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Absent where it is not put back.
    namespace: Option<NamespaceId>,
    /// Taken by `drop` alone.
    socket: Option<Socket>,
}

// === impl Kept ===

impl Kept {
    /// Of the network namespace that the calling thread is in.
    pub(crate) fn take() -> Result<Self, Error> {
        let namespace = stat("/proc/thread-self/ns/net").ok();
        let namespace = namespace.map(|stat| NamespaceId(stat.st_dev, stat.st_ino));
        let (idle, of_others) = {
            let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
            // A namespace that was left is not to be kept.
            let of_others: Vec<_> = idle.extract_if(.., |(of, _)| Some(*of) != namespace).collect();
            (idle.pop().map(|(_, socket)| socket), of_others)
        };
        drop(of_others);
        let socket = match idle {
            Some(socket) => socket,
            None => Socket::open(Protocol::Netfilter)?,
        };
        Ok(Self { namespace, socket: Some(socket) })
    }

    /// Of another network namespace. It is not kept.
    pub(crate) fn open_in(namespace: BorrowedFd<'_>) -> Result<Self, Error> {
        Ok(Self { namespace: None, socket: Some(Socket::open_in(Protocol::Netfilter, namespace)?) })
    }
}

impl Deref for Kept {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        match &self.socket {
            Some(socket) => socket,
            None => unreachable!("only drop takes the socket"),
        }
    }
}

impl DerefMut for Kept {
    fn deref_mut(&mut self) -> &mut Socket {
        match &mut self.socket {
            Some(socket) => socket,
            None => unreachable!("only drop takes the socket"),
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let Some((namespace, socket)) = self.namespace.zip(self.socket.take()) else { return };
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT {
            idle.push((namespace, socket));
        } else {
            // Closing it must not keep others waiting.
            drop(idle);
            drop(socket);
        }
    }
}
