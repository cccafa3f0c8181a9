//! Options of netlink sockets.

use std::ffi::c_int;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// An option of netlink(7) that is on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetlinkOption {
    /// `NETLINK_EXT_ACK`: what is refused is told with a text.
    ExtendedAcknowledgement,
    /// `NETLINK_CAP_ACK`: an error does not repeat the request.
    CappedAcknowledgement,
    /// `NETLINK_GET_STRICT_CHK`: a request that asks for some of many gets those alone.
    StrictChecking,
}

/// Turns an option on.
///
/// # Errors
/// As `setsockopt(2)`.
pub fn set_netlink_option(socket: impl AsFd, option: NetlinkOption) -> Result<(), Errno> {
    let name = match option {
        NetlinkOption::ExtendedAcknowledgement => libc::NETLINK_EXT_ACK,
        NetlinkOption::CappedAcknowledgement => libc::NETLINK_CAP_ACK,
        NetlinkOption::StrictChecking => libc::NETLINK_GET_STRICT_CHK,
    };
    set(socket.as_fd(), name, 1)
}

/// Has a socket told what is told to a multicast group, by its number (`RTNLGRP_*`, `NFNLGRP_*`).
///
/// # Errors
/// As `setsockopt(2)`; `EPERM` where the group is only for those with `CAP_NET_ADMIN`.
pub fn join_netlink_group(socket: impl AsFd, group: u32) -> Result<(), Errno> {
    set(socket.as_fd(), libc::NETLINK_ADD_MEMBERSHIP, group.cast_signed())
}

fn set(socket: BorrowedFd<'_>, name: c_int, value: c_int) -> Result<(), Errno> {
    // SAFETY: the value is a live integer of the length that is given; the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            name,
            (&raw const value).cast(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    crate::errno::check(result.into()).map(drop)
}
