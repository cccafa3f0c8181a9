//! A node of a test's own: a network namespace, directories, and pods that are namespaces.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use coracle_model::{Container, Name, Pod, PodKey, PodSpec, PodUid};
use coracle_netlink::{Batch, Link, LinkChange, LinkId, Protocol, Socket};
use coracle_network::{Attach, Attached, DefaultNetwork, Network, NetworkError, NetworkSettings};
use coracle_tests::namespaces::{Namespace, in_own_network_with};
use coracle_tests::processes::Pid;
use serde_json::Value;

/// Where Debian's package installs plugins.
const DEBIAN: &str = "/usr/lib/cni";

/// How long plugins may take that are not about that.
const DEADLINE: Duration = Duration::from_secs(60);

/// Runs a test in a process of its own, whose network namespace nobody else has: the test calls this with all it does.
pub(crate) fn in_own_network(work: impl FnOnce()) {
    // Of its own: what the plugins lock (/run/xtables.lock), and the numbers of processes.
    in_own_network_with(&["--mount", "--propagation", "private"], work);
}

/// Tries until it is so, or too long.
pub(crate) fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !so() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Directories, and the driver.
pub(crate) struct Node {
    directory: PathBuf,
    /// Removes it.
    _owned: Option<tempfile::TempDir>,
    pub(crate) deadline: Duration,
}

/// A namespace, as pause holds one.
pub(crate) struct Sandbox {
    /// Until it ends.
    namespace: Option<Namespace>,
    holder: Pid,
    pub(crate) pod: Pod,
    pub(crate) netns: PathBuf,
}

// === impl Node ===

impl Node {
    pub(crate) fn new() -> Self {
        let owned = tempfile::tempdir().unwrap();
        let node = Self { directory: owned.path().to_owned(), _owned: Some(owned), deadline: DEADLINE };
        fs::create_dir(node.path("conf")).unwrap();
        fs::create_dir(node.path("bin")).unwrap();
        // Types of ours run in the process, so Debian's have another name here.
        for plugin in fs::read_dir(DEBIAN).expect("containernetworking-plugins is installed") {
            let name = plugin.unwrap().file_name().into_string().unwrap();
            symlink(Path::new(DEBIAN).join(&name), node.path("bin").join(format!("debian-{name}"))).unwrap();
        }
        let mut netlink = Socket::open(Protocol::Route).unwrap();
        let mut batch = Batch::new();
        batch.change_link(LinkId::Name("lo"), &LinkChange { up: Some(true), ..LinkChange::default() });
        netlink.execute(batch).unwrap();
        node
    }

    /// The one that another process has made there.
    pub(crate) fn at(directory: PathBuf) -> Self {
        Self { directory, _owned: None, deadline: DEADLINE }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(crate) fn configure(&self, list: &Value) {
        fs::write(self.path("conf/10-test.conflist"), list.to_string()).unwrap();
    }

    pub(crate) fn network(&self) -> Network {
        Network::new(NetworkSettings {
            conf_dir: self.path("conf"),
            bin_dirs: vec![self.path("bin")],
            state_dir: self.path("state"),
            default: DefaultNetwork {
                name: "coracle".to_owned(),
                bridge: "coracle0".to_owned(),
                pod_cidrs: vec!["10.83.0.0/24".parse().unwrap(), "fd83::/64".parse().unwrap()],
                data_dir: self.path("addresses"),
            },
            deadline: self.deadline,
        })
        .unwrap()
    }

    /// Waits until these are the host's links, beside loopback: the kernel ends a namespace when it has time.
    pub(crate) fn wait_for_links(&self, expected: &[&str]) {
        eventually(&format!("the links are {expected:?}"), || self.links() == expected);
    }

    /// Installs a plugin.
    pub(crate) fn install(&self, kind: &str, script: &str) {
        let path = self.path("bin").join(kind);
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn links(&self) -> Vec<String> {
        let links: Vec<Link> = Socket::open(Protocol::Route).unwrap().links().unwrap();
        links.into_iter().map(|link| link.name).filter(|name| name != "lo").collect()
    }
}

// === impl Sandbox ===

impl Sandbox {
    pub(crate) fn new(uid: &str) -> Self {
        let namespace = Namespace::new();
        let (holder, netns) = (namespace.pid(), namespace.path());
        Self { namespace: Some(namespace), holder, pod: Self::pod(uid), netns }
    }

    /// The pod of this UID.
    pub(crate) fn pod(uid: &str) -> Pod {
        let name = Name::subdomain(format!("pod-{uid}")).unwrap();
        Pod {
            uid: uid.parse().unwrap(),
            key: PodKey { namespace: Name::label("default").unwrap(), name },
            labels: Default::default(),
            annotations: Default::default(),
            spec: PodSpec::new(vec![Container::new(Name::label("c").unwrap(), "image")]),
            object: String::new(),
        }
    }

    /// The pid of the process that is in the namespace.
    pub(crate) fn holder(&self) -> Pid {
        self.holder
    }

    pub(crate) fn uid(&self) -> &PodUid {
        &self.pod.uid
    }

    pub(crate) fn attach(&self) -> Attach<'_> {
        Attach::of_pod(&self.pod, 0, &self.netns).unwrap()
    }

    pub(crate) fn add(&self, network: &Network) -> Result<Attached, NetworkError> {
        network.add(&self.attach())
    }

    /// What is asked of the kernel in here.
    pub(crate) fn netlink(&self) -> Socket {
        Socket::open_in(Protocol::Route, self.namespace.as_ref().unwrap().as_fd()).unwrap()
    }

    pub(crate) fn inside<T>(&self, work: impl FnOnce() -> T) -> T {
        self.namespace.as_ref().unwrap().inside(work)
    }

    /// Serves one connection, which is told this pod's name.
    pub(crate) fn serve(&self, address: IpAddr, port: u16) -> thread::JoinHandle<SocketAddr> {
        let listener = self.inside(|| TcpListener::bind((address, port)).unwrap());
        let name = self.pod.key.name.to_string();
        thread::spawn(move || {
            let (mut stream, from) = listener.accept().unwrap();
            std::io::Write::write_all(&mut stream, name.as_bytes()).unwrap();
            from
        })
    }

    /// Connects from here, and is told who answers.
    pub(crate) fn ask(&self, to: SocketAddr) -> String {
        let mut stream = self.inside(|| TcpStream::connect_timeout(&to, Duration::from_secs(30)).unwrap());
        let mut text = String::new();
        std::io::Read::read_to_string(&mut stream, &mut text).unwrap();
        text
    }

    /// Ends the namespace, as pause's death does.
    pub(crate) fn end(&mut self) {
        drop(self.namespace.take());
    }
}
