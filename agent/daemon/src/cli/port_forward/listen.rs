//! Listening where users of a forward connect to.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::net::sockopt::set_ipv6_v6only;
use tokio::net::{TcpListener, TcpSocket};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// The addresses to listen on, and whether the port may be forwarded without this one: of those that
/// `localhost` stands for, one is enough.
pub(super) fn addresses(words: &[String]) -> anyhow::Result<BTreeMap<IpAddr, bool>> {
    let mut addresses = BTreeMap::new();
    for word in words {
        if word == "localhost" {
            for address in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
                addresses.entry(address).or_insert(true);
            }
        } else {
            let address = word.parse().map_err(|_| anyhow::anyhow!("{word} is not a valid IP"))?;
            addresses.insert(address, false);
        }
    }
    Ok(addresses)
}

/// Listens with one port on all addresses; a free one for 0.
///
/// # Errors
/// What went wrong, when it cannot be listened on an address that is needed.
pub(super) fn listen(addresses: &BTreeMap<IpAddr, bool>, mut port: u16) -> Result<Vec<TcpListener>, String> {
    let (mut listeners, mut errors) = (Vec::new(), Vec::new());
    let mut failed = false;
    for (address, optional) in addresses {
        let address = SocketAddr::new(*address, port);
        match listen_at(address) {
            Ok((listener, bound)) => {
                port = bound;
                listeners.push(listener);
            }
            Err(error) => {
                failed |= !optional;
                errors.push(format!("unable to create listener: Error listen {address}: {error}"));
            }
        }
    }
    if failed || listeners.is_empty() {
        return Err(format!("Listeners failed to create with the following errors: [{}]", errors.join(" ")));
    }
    Ok(listeners)
}

fn listen_at(address: SocketAddr) -> io::Result<(TcpListener, u16)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if address.is_ipv6() {
        // Each address is for its own family: `::` is not to take `0.0.0.0` as well.
        set_ipv6_v6only(&socket, true)?;
    }
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn addresses_are_ips_or_localhost() {
        let found = addresses(&words(&["localhost", "10.0.0.1", "127.0.0.1"])).unwrap();
        let expected = [("10.0.0.1", false), ("127.0.0.1", false), ("::1", true)];
        assert_eq!(found, expected.map(|(text, optional)| (text.parse().unwrap(), optional)).into());
        assert_eq!(addresses(&words(&["web"])).unwrap_err().to_string(), "web is not a valid IP");
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_said() {
        let addresses = addresses(&words(&["127.0.0.1"])).unwrap();
        let first = listen(&addresses, 0).unwrap();
        let port = first[0].local_addr().unwrap().port();
        assert_ne!(port, 0);
        let error = listen(&addresses, port).unwrap_err();
        let expected = format!(
            "Listeners failed to create with the following errors: \
             [unable to create listener: Error listen 127.0.0.1:{port}: Address already in use"
        );
        assert!(error.starts_with(&expected), "{error}");
    }
}
