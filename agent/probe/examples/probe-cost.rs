//! What a thousand HTTP probes a second cost, and whether they keep their beat.
//!
//! usage: probe-cost [SECONDS]
//!
//! The readiness probes of a thousand pods ask servers in a process of its own, once with their beats spread over the
//! second and once with all in step; in the prober's own network namespace and, where the caller is root, in another.
//! Each pod has a listener of its own, as pods do: one for all would have to take a thousand connections at once, and
//! what its backlog has no room for is tried again by the kernel after a second, when the probe has timed out.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark has no figures to give then"
)]

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coracle_linux::socket_in_namespace;
use coracle_model::{
    Container, ContainerId, Handler, HttpGet, Name, Pod, PodKey, PodSpec, PodUid, PortRef, Probe, Probes,
    Scheme,
};
use coracle_probe::{Endpoint, ExecOutput, Findings, Node, Probed, Prober, Target, Telling};
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, sleep};

const PROBES: usize = 1000;
const PERIOD: Duration = Duration::from_secs(1);
/// Not measured: connections and allocations settle.
const WARM_UP: Duration = Duration::from_secs(3);

fn main() {
    let argument = std::env::args().nth(1);
    if argument.as_deref() == Some("serve") {
        return runtime().block_on(serve());
    }
    let seconds = argument.map_or(30, |text| text.parse().expect("usage: probe-cost [SECONDS]"));
    println!("| {PROBES} HTTP probes a second | processor time of the prober | late, p99 / most | drift |");
    println!("|---|---|---|---|");
    // Two are open for each probe under way, here and where it is answered.
    coracle_linux::raise_descriptor_limit().unwrap();
    let places: &[bool] = if rustix::process::geteuid().is_root() { &[true, false] } else { &[false] };
    for inside in places {
        for spread in [true, false] {
            measure(*inside, spread, Duration::from_secs(seconds));
        }
    }
}

/// As the agent's.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

// --- The server ---

async fn serve() {
    coracle_linux::raise_descriptor_limit().unwrap();
    let mut ports = Vec::new();
    for _ in 0..PROBES {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        ports.push(listener.local_addr().unwrap().port().to_string());
        tokio::spawn(serve_one(listener));
    }
    println!("{}", ports.join(" "));
    io::stdout().flush().unwrap();
    std::future::pending().await
}

async fn serve_one(listener: TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
                .await;
        });
    }
}

struct Server {
    child: Child,
    ports: Vec<u16>,
    /// A pidfd, where it is in a network namespace of its own.
    inside: Option<OwnedFd>,
}

impl Server {
    /// `inside`: in another network namespace.
    fn start(inside: bool) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut command = if inside {
            let mut command = Command::new("unshare");
            command.args(["--net", "sh", "-c", "ip link set lo up && exec \"$0\" serve"]).arg(program);
            command
        } else {
            let mut command = Command::new(program);
            command.arg("serve");
            command
        };
        let mut child = command.stdout(Stdio::piped()).spawn().expect("util-linux's unshare is installed");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
        let inside = inside.then(|| pidfd_open(pid, PidfdFlags::empty()).unwrap());
        let ports = line.split_whitespace().map(|port| port.parse().expect("a port")).collect();
        Self { child, ports, inside }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// --- The prober ---

/// Connects as the agent does, and notes when each container was asked.
struct Asked {
    inside: Option<OwnedFd>,
    times: Vec<Mutex<Vec<Instant>>>,
    failures: Mutex<Vec<String>>,
}

impl Node for Asked {
    async fn exec(&self, _: &Target, _: Vec<String>, _: bool) -> Result<ExecOutput, String> {
        Err("no program is run here".to_owned())
    }

    fn pod_address(&self, _: &Target) -> Option<std::net::IpAddr> {
        None
    }

    async fn connect(&self, target: &Target, endpoint: Endpoint) -> io::Result<TcpStream> {
        let now = Instant::now();
        let [high, low, ..] = *target.id.as_bytes();
        self.times[usize::from(high) << 8 | usize::from(low)].lock().unwrap().push(now);
        let (Endpoint::Pod(address) | Endpoint::Network(address)) = endpoint;
        match &self.inside {
            // As the agent, which has to let go of a pod while it connects.
            Some(inside) => connect_in(inside.try_clone()?, address).await,
            None => TcpStream::connect(address).await,
        }
    }

    fn tell(&self, _: &Target, telling: Telling) {
        self.failures.lock().unwrap().push(telling.message);
    }

    fn changed(&self, _: &PodUid) {}
}

async fn connect_in(inside: OwnedFd, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket_in_namespace(inside.as_fd(), AddressFamily::INET, SocketType::STREAM)?;
    TcpSocket::from_std_stream(socket.into()).connect(address).await
}

fn pod(number: usize, port: u16) -> Arc<Pod> {
    let mut main = Container::new(Name::label("main").unwrap(), "image");
    main.probes.readiness = Some(Probe {
        handler: Handler::HttpGet(HttpGet {
            host: None,
            port: PortRef::Number(port),
            path: "/healthz".to_owned(),
            scheme: Scheme::Http,
            headers: Vec::new(),
        }),
        initial_delay: Duration::ZERO,
        timeout: PERIOD,
        period: PERIOD,
        success_threshold: 1,
        failure_threshold: 3,
        termination_grace_period: None,
    });
    main.probes = Probes { readiness: main.probes.readiness, ..Probes::default() };
    Arc::new(Pod {
        uid: format!("0b8a9c1e-8b5e-4b43-9d0c-0d6b8f3d{number:04x}").parse().unwrap(),
        key: PodKey {
            namespace: Name::label("default").unwrap(),
            name: Name::label(format!("pod-{number}")).unwrap(),
        },
        labels: Default::default(),
        annotations: Default::default(),
        spec: PodSpec::new(vec![main]),
        object: "{}".to_owned(),
    })
}

fn measure(inside: bool, spread: bool, length: Duration) {
    let server = Server::start(inside);
    let (ports, target) =
        (server.ports.clone(), server.inside.as_ref().map(|inside| inside.try_clone().unwrap()));
    let runtime = runtime();
    let (cost, node) = runtime.block_on(async move {
        let times = (0..PROBES).map(|_| Mutex::default()).collect();
        let prober = Prober::new(Asked { inside: target, times, failures: Mutex::default() }).unwrap();
        for (number, port) in ports.iter().enumerate() {
            let mut id = [0; 32];
            id[..2].copy_from_slice(&u16::try_from(number).unwrap().to_be_bytes());
            let probed = Probed {
                id: ContainerId::from_bytes(id),
                name: Name::label("main").unwrap(),
                running: Duration::ZERO,
                // What is known is taken over, with a jitter.
                known: spread.then(|| Findings { started: true, ..Findings::default() }),
                readiness_only: false,
            };
            prober.set_probed(&pod(number, *port), vec![probed]);
        }
        sleep(WARM_UP).await;
        let (began, before) = (Instant::now(), processor_time());
        sleep(length).await;
        let cost = (processor_time() - before).as_secs_f64() / began.elapsed().as_secs_f64();
        assert!(prober.findings(&pod(0, ports[0]).uid).values().all(|found| found.ready));
        let failures = prober.node().failures.lock().unwrap().clone();
        assert!(failures.is_empty(), "{} probes failed: {:?}", failures.len(), failures.first());
        let times: Vec<Vec<Instant>> =
            prober.node().times.iter().map(|times| times.lock().unwrap().clone()).collect();
        (cost, times)
    });
    let (mut late, mut drift) = (Vec::new(), Duration::ZERO);
    for times in &node {
        // The earliest a beat was ever met says where it lies.
        let lateness = |nth: usize| times[nth].duration_since(times[0]).saturating_sub(PERIOD * nth as u32);
        // The last may be under way.
        let expected = (WARM_UP + length).as_secs() as usize - 1;
        assert!(times.len() >= expected, "a probe was run {} times in {expected} s", times.len());
        late.extend((0..times.len()).map(lateness));
        // What the last ten were late at best, beyond what the first ten were.
        let least = |range: std::ops::Range<usize>| range.map(lateness).min().unwrap_or_default();
        let last = times.len();
        drift = drift.max(least(last - 10..last).saturating_sub(least(0..10)));
    }
    late.sort_unstable();
    println!(
        "| {}{} | {:.1} % of a core | {:.1} / {:.1} ms | {:.1} ms |",
        if spread { "spread" } else { "in step" },
        if inside { ", in another network namespace" } else { "" },
        cost * 100.0,
        late[late.len() * 99 / 100].as_secs_f64() * 1e3,
        late.last().unwrap().as_secs_f64() * 1e3,
        drift.as_secs_f64() * 1e3,
    );
}

/// What this process has used, without its children.
fn processor_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}
