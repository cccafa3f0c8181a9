//! A node and pods, of network namespaces alone.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use coracle_cni::{AddResult, Call, CniError, GcCall, NetworkNamespace, PluginConfig, StatusCall};
use coracle_cni_plugins::PLUGINS;
use coracle_linux::{in_network_namespace, socket_in_namespace};
use coracle_tests::namespaces::{Namespace, in_own_network};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, bind, connect, listen, sockopt};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything may take that is expected to come.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Runs a test in a process of its own, whose network namespace is the node's: the test calls this with all it does.
pub(crate) fn on_a_node(work: impl FnOnce(&Node)) {
    in_own_network(|| {
        let place = Place::new("/proc/self/ns/net");
        let node = Node { place, directory: TempDir::new_in("/dev/shm").unwrap() };
        node.place.run("ip link set lo up");
        work(&node);
    });
}

/// Tries until it is so, or too long.
pub(crate) fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !so() {
        assert!(begin.elapsed() < LIMIT, "never: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The node under test, which the process is on.
pub(crate) struct Node {
    pub(crate) place: Place,
    directory: TempDir,
}

impl Node {
    /// A configuration with addresses of these ranges, by host-local.
    pub(crate) fn config(&self, kind: &str, ranges: &[&str], more: Value) -> Value {
        let sets: Vec<Value> = ranges.iter().map(|range| json!([{ "subnet": range }])).collect();
        let mut config = json!({
            "cniVersion": "1.1.0", "name": "net", "type": kind,
            "ipam": {"type": "host-local", "dataDir": self.directory.path(), "ranges": sets},
        });
        merge(&mut config, more);
        config
    }

    /// The addresses that are given of a network.
    pub(crate) fn given(&self, network: &str) -> Vec<String> {
        let Ok(found) = fs::read_dir(self.directory.path().join(network)) else { return Vec::new() };
        let names = found.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.parse::<IpAddr>().is_ok()).collect();
        names.sort();
        names
    }
}

impl Node {
    /// A path in the node's own directory.
    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }
}

fn merge(into: &mut Value, more: Value) {
    let Value::Object(more) = more else { panic!("{more}") };
    into.as_object_mut().unwrap().extend(more);
}

/// A network namespace by its path.
pub(crate) struct Place {
    pub(crate) path: String,
    file: File,
}

impl Place {
    fn new(path: &str) -> Self {
        Self { path: path.to_owned(), file: File::open(path).unwrap() }
    }

    /// Runs a command there, which must succeed, and tells what it says.
    pub(crate) fn run(&self, command: &str) -> String {
        let output = self.try_run(command);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{command}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    fn try_run(&self, command: &str) -> std::process::Output {
        let mut inside = Command::new("nsenter");
        inside.arg(format!("--net={}", self.path)).args(command.split(' ')).output().unwrap()
    }

    /// Whether a ping, one alone, is answered.
    pub(crate) fn pings(&self, to: IpAddr) -> bool {
        self.try_run(&format!("busybox ping -c 1 -W 3 {to}")).status.success()
    }

    pub(crate) fn sysctl(&self, name: &str) -> String {
        let read = || fs::read_to_string(format!("/proc/sys/net/{name}"));
        in_network_namespace(self.as_fd(), read).unwrap().unwrap().trim_end().to_owned()
    }

    /// Makes a pod on this place as on a node.
    pub(crate) fn on(&self, pod: &Pod, config: &Value) -> AddResult {
        in_network_namespace(self.as_fd(), || pod.add(config)).unwrap().unwrap()
    }

    fn socket(&self, like: IpAddr, kind: SocketType) -> OwnedFd {
        let family = if like.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        socket_in_namespace(self.as_fd(), family, kind).unwrap()
    }

    pub(crate) fn listen(&self, address: SocketAddr) -> TcpListener {
        let socket = self.socket(address.ip(), SocketType::STREAM);
        bind(&socket, &address).unwrap();
        listen(&socket, 8).unwrap();
        let listener = TcpListener::from(socket);
        listener.set_nonblocking(false).unwrap();
        listener
    }

    pub(crate) fn connect(&self, address: SocketAddr) -> TcpStream {
        let socket = self.socket(address.ip(), SocketType::STREAM);
        match connect(&socket, &address) {
            Err(Errno::INPROGRESS) => {
                wait(&socket, PollFlags::OUT);
                sockopt::socket_error(&socket).unwrap().unwrap();
            }
            connected => connected.unwrap(),
        }
        let stream = TcpStream::from(socket);
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }

    pub(crate) fn udp(&self, address: SocketAddr) -> UdpSocket {
        let socket = self.socket(address.ip(), SocketType::DGRAM);
        bind(&socket, &address).unwrap();
        let socket = UdpSocket::from(socket);
        socket.set_nonblocking(false).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket
    }
}

fn wait(socket: &OwnedFd, flags: PollFlags) {
    let deadline = Timespec::try_from(LIMIT).unwrap();
    let ready = poll(&mut [PollFd::new(socket, flags)], Some(&deadline)).unwrap();
    assert_eq!(ready, 1, "nothing happened");
}

impl AsFd for Place {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Whether one place reaches another at an address: by ping, TCP and UDP. Tells whom the other one sees.
pub(crate) fn reaches(from: &Place, to: &Place, address: IpAddr) -> IpAddr {
    assert!(from.pings(address), "{address} does not answer a ping");
    let at = SocketAddr::new(address, 0);
    let listener = to.listen(at);
    let mut near = from.connect(listener.local_addr().unwrap());
    let (mut far, peer) = listener.accept().unwrap();
    near.write_all(b"hello").unwrap();
    let mut received = [0; 5];
    far.read_exact(&mut received).unwrap();
    assert_eq!(&received, b"hello");

    let far = to.udp(at);
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let near = from.udp(any.parse().unwrap());
    near.send_to(b"hello", far.local_addr().unwrap()).unwrap();
    let (length, sender) = far.recv_from(&mut received).unwrap();
    assert_eq!((length, sender.ip()), (5, peer.ip()));
    far.send_to(b"olleh", sender).unwrap();
    assert_eq!(near.recv(&mut received).unwrap(), 5);
    peer.ip()
}

/// A network namespace of its own, which goes with this.
pub(crate) struct Pod {
    _namespace: Namespace,
    pub(crate) id: String,
    pub(crate) place: Place,
}

impl Pod {
    pub(crate) fn new(id: &str) -> Self {
        let namespace = Namespace::new();
        let place = Place::new(namespace.path().to_str().unwrap());
        Self { _namespace: namespace, id: id.to_owned(), place }
    }

    /// What a plugin is called with for its interface eth0.
    pub(crate) fn call(&self, config: &Value) -> Call {
        Call {
            container_id: self.id.clone(),
            netns: Some(NetworkNamespace::new(&self.place.path)),
            ifname: "eth0".to_owned(),
            args: Vec::new(),
            path: Vec::new(),
            config: PluginConfig::from_json(config.clone()).unwrap(),
            namespace_ends: false,
            deadline: None,
        }
    }

    pub(crate) fn add(&self, config: &Value) -> Result<AddResult, CniError> {
        add(&self.call(config))
    }

    pub(crate) fn del(&self, config: &Value) -> Result<(), CniError> {
        let call = self.call(config);
        PLUGINS.del(&call.config.kind, &call)
    }

    /// With the result of the ADD.
    pub(crate) fn call_after(&self, config: &Value, result: &AddResult) -> Call {
        let mut call = self.call(config);
        call.config.prev_result = Some(result.clone());
        call
    }

    pub(crate) fn check(&self, config: &Value, result: &AddResult) -> Result<(), CniError> {
        let call = self.call_after(config, result);
        PLUGINS.check(&call.config.kind, &call)
    }

    /// Its addresses, as a result tells them.
    pub(crate) fn addresses(result: &AddResult) -> Vec<IpAddr> {
        result.ips.iter().map(|ip| ip.address.addr()).collect()
    }
}

pub(crate) fn add(call: &Call) -> Result<AddResult, CniError> {
    PLUGINS.add(&call.config.kind, call)
}

pub(crate) fn gc(config: &Value, valid: &[(&str, &str)]) -> Result<(), CniError> {
    let valid = valid.iter().map(|(id, ifname)| ((*id).to_owned(), (*ifname).to_owned())).collect();
    let config = PluginConfig::from_json(config.clone()).unwrap();
    let kind = config.kind.clone();
    PLUGINS.gc(&kind, &GcCall { valid, path: Vec::new(), config, deadline: None })
}

pub(crate) fn status(config: &Value) -> Result<(), CniError> {
    let config = PluginConfig::from_json(config.clone()).unwrap();
    let kind = config.kind.clone();
    PLUGINS.status(&kind, &StatusCall { path: Vec::new(), config, deadline: None })
}
