//! What the kernel tells by itself.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use coracle_linux::join_netlink_group;
use rustix::io::Errno;

use crate::datagram::Parts;
use crate::socket::receive;
use crate::{Error, Protocol};

/// Room for one datagram.
const DATAGRAM: usize = 64 << 10;

/// A socket that is told what is told to multicast groups. Its descriptor is readable when there is something.
#[derive(Debug)]
pub struct Subscription {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

/// What was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A message.
    Message {
        /// `nlmsg_type`.
        kind: u16,
        /// What stands behind the header.
        payload: Vec<u8>,
    },
    /// More was told than there was room for, and nobody knows what: whoever wants to know looks.
    Missed,
}

// === impl Subscription ===

impl Subscription {
    /// To groups by their numbers (`RTNLGRP_*`, `NFNLGRP_*`), in the namespace given or the program's own.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn open(
        protocol: Protocol,
        namespace: Option<BorrowedFd<'_>>,
        groups: &[u32],
    ) -> Result<Self, Error> {
        let socket = protocol.socket(namespace)?;
        for group in groups {
            join_netlink_group(&socket, *group)
                .map_err(|errno| Error::Open { protocol, source: errno.into() })?;
        }
        Ok(Self { socket, buffer: vec![0; DATAGRAM] })
    }

    /// What was told since, as far as it is one datagram; `None` when nothing is there. Never waits: the descriptor
    /// tells when there is more.
    ///
    /// # Errors
    /// As `recv(2)`.
    pub fn take(&mut self) -> Result<Option<Vec<Notice>>, Error> {
        let what = "listen to the kernel";
        let datagram = match receive(&self.socket, &mut self.buffer, false) {
            Ok(Some(datagram)) => datagram,
            Ok(None) => return Ok(None),
            Err(Errno::NOBUFS) => return Ok(Some(vec![Notice::Missed])),
            Err(source) => return Err(Error::Receive { what: what.into(), source }),
        };
        let notices = Parts(datagram).map(|part| match part {
            Ok(part) => Notice::Message { kind: part.kind, payload: part.payload.to_vec() },
            Err(_) => Notice::Missed,
        });
        Ok(Some(notices.collect()))
    }
}

impl AsFd for Subscription {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
