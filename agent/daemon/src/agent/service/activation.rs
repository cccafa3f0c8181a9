//! The API's socket, handed over: sd_listen_fds(3).

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use anyhow::{Context, bail};
use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType};

/// `SD_LISTEN_FDS_START`.
const FIRST: i32 = 3;

/// Takes the socket that was handed over, of which there has to be one.
pub(super) fn take(number: &str) -> anyhow::Result<UnixListener> {
    if number != "1" {
        bail!("{number} sockets were handed over (LISTEN_FDS), where the agent has one: mend coracle.socket");
    }
    let socket = coracle_linux::take_inherited(FIRST).with_context(|| {
        format!("a socket was to be handed over (LISTEN_FDS), and descriptor {FIRST} is none")
    })?;
    check_kind(socket)
}

fn check_kind(socket: OwnedFd) -> anyhow::Result<UnixListener> {
    let kind = |socket: &OwnedFd| {
        let socket = socket.as_fd();
        Ok::<_, rustix::io::Errno>((socket_domain(socket)?, socket_type(socket)?, socket_acceptconn(socket)?))
    };
    match kind(&socket) {
        Ok((AddressFamily::UNIX, SocketType::STREAM, true)) => {}
        Ok(_) => bail!(
            "the socket that was handed over is no unix stream socket that listens: coracle.socket must have one \
             ListenStream= with a path, and Accept=no"
        ),
        Err(error) => return Err(error).context("what was handed over (LISTEN_FDS) is no socket"),
    }
    let listener = UnixListener::from(socket);
    listener.set_nonblocking(true).context("cannot use the socket that was handed over")?;
    Ok(listener)
}

/// Whether it is where clients look for it.
pub(super) fn check_path(listener: &UnixListener, path: &Path) -> anyhow::Result<()> {
    let address = listener.local_addr().context("cannot tell where the socket is that was handed over")?;
    if address.as_pathname() != Some(path) {
        bail!(
            "the socket that was handed over is {address:?}, and clients look for {}: make ListenStream= of \
             coracle.socket and runDir of the configuration agree, or disable coracle.socket",
            path.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;

    #[test]
    fn a_socket_of_another_kind_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("coracle.sock");
        let refused = |socket: OwnedFd| check_kind(socket).unwrap_err().to_string();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let datagram = UnixDatagram::bind(directory.path().join("datagram")).unwrap();
        let (connected, _peer) = UnixStream::pair().unwrap();
        for socket in [OwnedFd::from(tcp), datagram.into(), connected.into()] {
            assert!(refused(socket).contains("ListenStream="));
        }
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(refused(file.into()), "what was handed over (LISTEN_FDS) is no socket");
        let listener = check_kind(UnixListener::bind(&path).unwrap().into()).unwrap();
        check_path(&listener, &path).unwrap();
        let error = check_path(&listener, Path::new("/run/other/coracle.sock")).unwrap_err().to_string();
        assert!(error.contains("clients look for /run/other/coracle.sock"), "{error}");
    }

    #[test]
    fn more_than_one_socket_is_refused() {
        let error = take("2").unwrap_err().to_string();
        assert!(error.starts_with("2 sockets were handed over"), "{error}");
    }
}
