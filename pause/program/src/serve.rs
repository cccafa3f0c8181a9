//! The loop: signals, the connection, new connections.

use coracle_pause_wire::{Entry, MAX_MESSAGE, Message, launch};

use crate::descriptors::Descriptor;
use crate::requests::{self, Next};
use crate::sandbox::{Ending, Sandbox};
use crate::sys::{self, POLLIN, PollFd, Timespec, signal};
use crate::{exits, socket};

/// How long not to look for connections after one could not be accepted for want of memory.
const ACCEPT_PAUSE: Timespec = Timespec { seconds: 0, nanoseconds: 100_000_000 };

static mut INCOMING: [u8; MAX_MESSAGE] = [0; MAX_MESSAGE];
static mut OUTGOING: [u8; MAX_MESSAGE] = [0; MAX_MESSAGE];

/// Serves until pause is to end.
pub(crate) fn serve(mut sandbox: Sandbox) -> ! {
    let (incoming, outgoing) = (&raw mut INCOMING, &raw mut OUTGOING);
    // SAFETY: this function runs once, so these are the only references there ever are.
    let (incoming, outgoing) = unsafe { (&mut *incoming, &mut *outgoing) };
    let mut connection: Option<Descriptor> = None;
    let mut accepting = true;
    loop {
        let mut polled = [
            readable(sandbox.signals.raw()),
            readable(connection.as_ref().map_or(-1, Descriptor::raw)),
            readable(if accepting { launch::SOCKET } else { -1 }),
        ];
        let timeout = if accepting { None } else { Some(ACCEPT_PAUSE) };
        let _ = sys::ppoll(&mut polled, timeout);
        let [signalled, requested, knocked] = polled.map(|polled| polled.revents != 0);
        accepting = true;

        if signalled {
            read_signals(&mut sandbox);
            let childless = exits::collect(&mut sandbox, |entry| report(&mut connection, entry, outgoing));
            match sandbox.ending {
                Ending::WithoutLiving if !sandbox.children.any_alive() => sys::exit(0),
                Ending::WithoutChildren if childless => sys::exit(0),
                _ => {}
            }
        }
        if requested {
            match connection
                .as_ref()
                .map(|connection| serve_one(&mut sandbox, connection, incoming, outgoing))
            {
                Some(Ok(Next::Serve)) | None => {}
                Some(Ok(Next::End)) => sys::exit(0),
                Some(Err(_)) => connection = None,
            }
        }
        if knocked {
            match sys::net::accept(launch::SOCKET) {
                Ok(fd) => {
                    let peer = Descriptor::from_raw(fd);
                    if sys::net::peer_user(fd) == Ok(sandbox.user) {
                        connection = Some(peer);
                    }
                }
                Err(sys::EAGAIN | sys::EINTR | sys::ECONNABORTED) => {}
                Err(_) => accepting = false,
            }
        }
    }
}

fn readable(fd: i32) -> PollFd {
    PollFd { fd, events: POLLIN, revents: 0 }
}

/// Serves one message. An error means the connection is of no more use.
fn serve_one(
    sandbox: &mut Sandbox,
    connection: &Descriptor,
    incoming: &mut [u8; MAX_MESSAGE],
    outgoing: &mut [u8; MAX_MESSAGE],
) -> sys::Result<Next> {
    match socket::receive(connection, incoming) {
        Ok(Some(packet)) => requests::answer(sandbox, connection, packet, outgoing),
        Ok(None) => Err(sys::ECONNABORTED),
        Err(sys::EAGAIN | sys::EINTR) => Ok(Next::Serve),
        Err(errno) => Err(errno),
    }
}

/// Tells the agent of an exit. One that does not read what it is told is disconnected: it finds all exits
/// of containers in the ledger, and knows that it has to look there.
fn report(connection: &mut Option<Descriptor>, entry: &Entry, buffer: &mut [u8; MAX_MESSAGE]) {
    let Some(agent) = connection else { return };
    let Some(length) = Message::Exited(*entry).encode(0, buffer) else { return };
    if socket::send(agent, buffer.get(..length).unwrap_or_default(), &[]).is_err() {
        *connection = None;
    }
}

/// Empties the signalfd, and notes a termination signal.
fn read_signals(sandbox: &mut Sandbox) {
    /// `struct signalfd_siginfo`, which begins with the signal's number.
    const SIZE: usize = 128;
    let mut signals = [0; SIZE];
    while let Ok(SIZE) = sys::read(sandbox.signals.raw(), &mut signals) {
        let [number, ..] = signals;
        if u32::from(number) == signal::SIGTERM || u32::from(number) == signal::SIGINT {
            sandbox.ending = Ending::WithoutLiving;
        }
    }
}
