//! Messages with descriptors.

use coracle_pause_wire::{MAX_DESCRIPTORS, MAX_MESSAGE};

use crate::descriptors::{Descriptor, Descriptors};
use crate::sys::{
    self, Errno,
    net::{IoVec, MsgHdr},
};

/// A message received.
pub(crate) struct Packet<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) descriptors: Descriptors<MAX_DESCRIPTORS>,
    /// Bytes or descriptors did not fit.
    pub(crate) truncated: bool,
}

const SOL_SOCKET: i32 = 1;
const SCM_RIGHTS: i32 = 1;
const MSG_TRUNC: i32 = 0x20;
const MSG_CTRUNC: i32 = 0x8;

#[repr(C)]
struct CmsgHdr {
    length: usize,
    level: i32,
    kind: i32,
}

/// A control buffer for one `SCM_RIGHTS` with `MAX_DESCRIPTORS` descriptors. The kernel installs only what
/// fits, so no descriptor can come that is not seen here.
#[repr(C)]
struct Control {
    header: CmsgHdr,
    fds: [i32; MAX_DESCRIPTORS],
}

impl Control {
    const EMPTY: Self = Self { header: CmsgHdr { length: 0, level: 0, kind: 0 }, fds: [-1; MAX_DESCRIPTORS] };
}

/// Receives one message; `None` when the peer is gone.
pub(crate) fn receive<'a>(
    socket: &Descriptor,
    buffer: &'a mut [u8; MAX_MESSAGE],
) -> sys::Result<Option<Packet<'a>>> {
    let mut control = Control::EMPTY;
    let mut iov = IoVec { base: buffer.as_mut_ptr(), length: buffer.len() };
    let mut message = MsgHdr {
        name: 0,
        name_length: 0,
        iov: &raw mut iov,
        iov_length: 1,
        control: (&raw mut control).cast(),
        control_length: size_of::<Control>(),
        flags: 0,
    };
    // SAFETY: buffer and control outlive the call and are as long as said.
    let length = unsafe { sys::net::receive(socket.raw(), &mut message) }?;

    let mut descriptors = Descriptors::NONE;
    let header = &control.header;
    if message.control_length >= size_of::<CmsgHdr>()
        && header.level == SOL_SOCKET
        && header.kind == SCM_RIGHTS
    {
        let count = header.length.saturating_sub(size_of::<CmsgHdr>()) / size_of::<i32>();
        for fd in control.fds.iter().take(count) {
            descriptors.push(*fd);
        }
    }
    // An empty packet looks like the end of the connection and is treated as such.
    if length == 0 {
        return Ok(None);
    }
    Ok(Some(Packet {
        bytes: buffer.get(..length).unwrap_or_default(),
        descriptors,
        truncated: message.flags & (MSG_TRUNC | MSG_CTRUNC) != 0,
    }))
}

/// Sends one message; never waits.
pub(crate) fn send(socket: &Descriptor, bytes: &[u8], descriptors: &[i32]) -> sys::Result<()> {
    let mut control = Control::EMPTY;
    let length = size_of::<CmsgHdr>() + size_of_val(descriptors);
    for (to, from) in control.fds.iter_mut().zip(descriptors) {
        *to = *from;
    }
    control.header = CmsgHdr { length, level: SOL_SOCKET, kind: SCM_RIGHTS };
    if descriptors.len() > MAX_DESCRIPTORS {
        return Err(Errno(sys::EINVAL.0));
    }
    let mut iov = IoVec { base: bytes.as_ptr().cast_mut(), length: bytes.len() };
    let message = MsgHdr {
        name: 0,
        name_length: 0,
        iov: &raw mut iov,
        iov_length: 1,
        control: (&raw mut control).cast(),
        // CMSG_SPACE rounds up to 8 where CMSG_LEN does not; the kernel takes either for the last one.
        control_length: if descriptors.is_empty() { 0 } else { length },
        flags: 0,
    };
    // SAFETY: bytes and control outlive the call and are as long as said; sending only reads.
    unsafe { sys::net::send(socket.raw(), &message) }.map(drop)
}
