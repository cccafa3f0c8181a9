//! Connections, and who their servers see.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use crate::harness::Namespace;

/// How long something that must come may take.
const SOON: Duration = Duration::from_secs(10);
/// How long something is waited for that must not come: the kernel hands on within the call that sends.
const NEVER: Duration = Duration::from_millis(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp,
    Udp,
}

/// A server of either kind.
pub(crate) enum Server {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

fn within<T>(namespace: Option<&Namespace>, work: impl FnOnce() -> T) -> T {
    match namespace {
        Some(namespace) => namespace.inside(work),
        None => work(),
    }
}

impl Server {
    pub(crate) fn new(namespace: Option<&Namespace>, kind: Kind, address: &str) -> Self {
        within(namespace, || match kind {
            Kind::Tcp => {
                let listener = TcpListener::bind(address).unwrap();
                listener.set_nonblocking(true).unwrap();
                Self::Tcp(listener)
            }
            Kind::Udp => Self::Udp(UdpSocket::bind(address).unwrap()),
        })
    }

    /// Reaches it from a namespace, or the host, by an address; says something and hears the answer. Tells whom it
    /// has seen.
    pub(crate) fn reach(&self, from: Option<&Namespace>, address: &str) -> io::Result<IpAddr> {
        let address: SocketAddr = address.parse().unwrap();
        match self {
            Self::Tcp(listener) => {
                let mut client = within(from, || TcpStream::connect_timeout(&address, NEVER))?;
                // The client may be connected to somebody else.
                let (mut server, peer) = listener.accept()?;
                server.set_nonblocking(false)?;
                for stream in [&client, &server] {
                    stream.set_read_timeout(Some(SOON))?;
                }
                let mut heard = [0; 4];
                client.write_all(b"ping")?;
                server.read_exact(&mut heard)?;
                server.write_all(b"pong")?;
                client.read_exact(&mut heard)?;
                assert_eq!(&heard, b"pong");
                Ok(peer.ip())
            }
            Self::Udp(_) => {
                let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let client = within(from, || UdpSocket::bind(any))?;
                client.connect(address)?;
                self.hear(&client)
            }
        }
    }

    /// As [`Self::reach`], by a client of UDP there is.
    pub(crate) fn hear(&self, client: &UdpSocket) -> io::Result<IpAddr> {
        let Self::Udp(server) = self else { panic!("a client of UDP, and a server of TCP") };
        client.set_read_timeout(Some(SOON))?;
        server.set_read_timeout(Some(NEVER))?;
        client.send(b"ping")?;
        let mut heard = [0; 4];
        let (_, peer) = server.recv_from(&mut heard)?;
        server.send_to(b"pong", peer)?;
        client.recv(&mut heard)?;
        assert_eq!(&heard, b"pong");
        Ok(peer.ip())
    }
}
