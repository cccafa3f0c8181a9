//! Network interfaces of the host that a device brings (OCI runtime specification, `linux.netDevices`).
//!
//! An interface is moved into the pod's network namespace for the first container that is given it, stays there for the
//! pod's life, and comes back to where it was, with the name, the addresses and the state it had. The kernel would bring
//! hardware back by itself when the namespace ends, under the pod's name for it and at some later time, and would remove
//! anything else. So what was taken stands in [`FILE`] in the pod's directory before it is moved.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use coracle_linux::in_network_namespace;
use coracle_model::NetDevice;
use coracle_netlink::{AddressOptions, Batch, Link, LinkChange, LinkId, Protocol, Socket};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::edits::refuse;
use crate::error::{Error, file, system};
use crate::record;

const EDIT: &str = "network interface";
/// The name of what was taken in a pod's directory.
const FILE: &str = "net-devices.json";
/// The network namespace the calling thread is in.
const OWN: &str = "/proc/thread-self/ns/net";
/// How long the kernel may take to bring hardware back from a namespace that has ended.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// An interface as it was on the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Taken {
    host_name: String,
    name: String,
    up: bool,
    mac: Option<[u8; 6]>,
    /// `veth`, `bridge` and the like; empty for hardware.
    kind: String,
    addresses: Vec<IpNet>,
}

/// A network namespace, and a way to speak of its interfaces.
struct Place {
    namespace: OwnedFd,
    socket: Socket,
}

/// The network namespace of a process that lives, by its pidfd: `IFLA_NET_NS_FD` takes no other.
pub(crate) fn namespace_of(process: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    let opened = in_network_namespace(process, || File::open(OWN)).flatten();
    opened.map(OwnedFd::from).map_err(system("open the pod's network namespace"))
}

/// Moves interfaces into a pod's network namespace, unless they are there. Blocks.
pub(crate) fn take(pod_dir: &Path, namespace: &OwnedFd, devices: &[NetDevice]) -> Result<(), Error> {
    let mut taken = read(pod_dir)?;
    for device in devices {
        let failed = |error| refused(&device.host_name, error);
        let mut host = Place::host().map_err(failed)?;
        let mut pod = Place::of(namespace.as_fd()).map_err(failed)?;
        let link = host.link(&device.host_name).map_err(failed)?;
        let Some(link) = link else {
            // For a container before this one.
            let known = taken.iter().find(|known| known.host_name == device.host_name);
            let name = known.map(|known| known.name.as_str());
            match name.map(|name| pod.link(name)).transpose().map_err(failed)?.flatten() {
                Some(there) if there.name == device.name => continue,
                Some(there) => {
                    let why = format!("is in the pod already, as {}", there.name);
                    return Err(refuse(EDIT, &device.host_name, why));
                }
                None => {
                    let why = "is not on the host; another pod may have it, or it was removed";
                    return Err(refuse(EDIT, &device.host_name, why));
                }
            }
        };
        if pod.link(&device.name).map_err(failed)?.is_some() {
            let why = format!("the pod has an interface of the name {} already", device.name);
            return Err(refuse(EDIT, &device.host_name, why));
        }
        let one = Taken {
            host_name: device.host_name.clone(),
            name: device.name.clone(),
            up: link.up,
            mac: link.mac.map(|mac| mac.0),
            kind: link.kind.clone(),
            addresses: host.addresses(&link).map_err(failed)?,
        };
        taken.retain(|other| other.host_name != one.host_name);
        taken.push(one.clone());
        record::write(&pod_dir.join(FILE), &taken)?;
        // In the pod it is up, as OCI has it.
        transfer(&mut host, &link, &mut pod, &one.name, true, &one.addresses).map_err(failed)?;
    }
    Ok(())
}

/// Moves back what was taken for a pod, from its network namespace if that is there yet. Blocks.
///
/// # Errors
/// When one cannot be moved; the others were, and it can be called again.
pub(crate) fn give_back(pod_dir: &Path, namespace: impl FnOnce() -> Option<OwnedFd>) -> Result<(), Error> {
    let taken = read(pod_dir)?;
    if taken.is_empty() {
        return Ok(());
    }
    let namespace = namespace();
    let mut left = Vec::new();
    let mut first = None;
    for one in taken {
        if let Err(error) = one.give_back(namespace.as_ref()) {
            first.get_or_insert(refused(&one.host_name, error));
            left.push(one);
        }
    }
    let path = pod_dir.join(FILE);
    match left.is_empty() {
        false => record::write(&path, &left)?,
        true => fs::remove_file(&path).map_err(file("remove", path))?,
    }
    first.map_or(Ok(()), Err)
}

/// Moves a link, and brings it into the state it is to have there.
fn transfer(
    from: &mut Place,
    link: &Link,
    to: &mut Place,
    name: &str,
    up: bool,
    addresses: &[IpNet],
) -> io::Result<()> {
    let mut batch = Batch::new();
    batch.move_link(LinkId::Index(link.index), name, to.namespace.as_fd());
    from.socket.execute(batch).map_err(io::Error::other)?;
    let moved = to.link(name)?.ok_or_else(|| io::Error::other("it is not where it was moved to"))?;
    restore(to, &moved, name, up, addresses)
}

fn restore(place: &mut Place, link: &Link, name: &str, up: bool, addresses: &[IpNet]) -> io::Result<()> {
    let mut batch = Batch::new();
    if link.name != name {
        batch.rename_link(LinkId::Index(link.index), name);
    }
    batch.change_link(LinkId::Index(link.index), &LinkChange { up: Some(up), ..LinkChange::default() });
    for address in addresses {
        batch.add_address(link.index, *address, AddressOptions::default());
    }
    place.socket.execute(batch).map(drop).map_err(io::Error::other)
}

fn read(pod_dir: &Path) -> Result<Vec<Taken>, Error> {
    Ok(record::read(&pod_dir.join(FILE))?.unwrap_or_default())
}

fn refused(host_name: &str, error: io::Error) -> Error {
    refuse(EDIT, host_name, error.to_string())
}

// === impl Taken ===

impl Taken {
    fn give_back(&self, namespace: Option<&OwnedFd>) -> io::Result<()> {
        let mut host = Place::host()?;
        if let Some(namespace) = namespace {
            let mut pod = Place::of(namespace.as_fd())?;
            if let Some(link) = pod.link(&self.name)? {
                return transfer(&mut pod, &link, &mut host, &self.host_name, self.up, &self.addresses);
            }
        }
        // It was never moved, or is back. What the kernel brings back has the name it had in the pod.
        let deadline = Instant::now() + PATIENCE;
        loop {
            if host.link(&self.host_name)?.is_some() {
                return Ok(());
            }
            if let Some(link) = host.link(&self.name)?.filter(|link| self.is(link)) {
                return restore(&mut host, &link, &self.host_name, self.up, &self.addresses);
            }
            // The kernel clears namespaces away one after another, and removes what is no hardware.
            if !self.kind.is_empty() || Instant::now() >= deadline {
                tracing::warn!(interface = self.host_name, "an interface that a pod was given is gone");
                return Ok(());
            }
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// Whether a link of the host is this one: another may have its name.
    fn is(&self, link: &Link) -> bool {
        self.kind.is_empty()
            && link.kind.is_empty()
            && self.mac.is_some()
            && link.mac.map(|mac| mac.0) == self.mac
    }
}

// === impl Place ===

impl Place {
    /// Where the agent is.
    fn host() -> io::Result<Self> {
        let namespace = File::open(OWN)?.into();
        Ok(Self { namespace, socket: Socket::open(Protocol::Route).map_err(io::Error::other)? })
    }

    fn of(namespace: BorrowedFd<'_>) -> io::Result<Self> {
        let socket = Socket::open_in(Protocol::Route, namespace).map_err(io::Error::other)?;
        Ok(Self { namespace: namespace.try_clone_to_owned()?, socket })
    }

    fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        self.socket.link(LinkId::Name(name)).map_err(io::Error::other)
    }

    /// Those that lead beyond the link: the kernel makes the others.
    fn addresses(&mut self, link: &Link) -> io::Result<Vec<IpNet>> {
        let all = self.socket.addresses(Some(link.index)).map_err(io::Error::other)?;
        Ok(all
            .into_iter()
            .filter(|address| address.global && !address.removed)
            .map(|one| one.address)
            .collect())
    }
}
