//! A node for probes: connections are real, programs are scripted.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coracle_model::{
    Container, ContainerId, EnvVar, Handler, HttpGet, Name, Pod, PodKey, PodSpec, PodUid, PortRef, Probe,
    Probes, Scheme,
};
use coracle_probe::{Checker, Endpoint, ExecOutput, Node, Outcome, Target, Telling, attempt};
use tokio::net::TcpStream;
use tokio::time::Instant;

pub(crate) type Script = Box<dyn Fn(&Target, &[String]) -> Answer + Send + Sync>;

/// What a scripted program does.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Exit(i32, &'static str),
    Cannot(&'static str),
    /// Runs so long, then exits with the code.
    Takes(Duration, i32),
}

/// What was asked of the node, and when, counted from its making.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Exec(Vec<String>),
    /// A program ran to its end, or (false) was given up.
    Ended(bool),
    Connect(Endpoint),
    Told(Telling),
    Changed(PodUid),
}

pub(crate) struct TestNode {
    script: Script,
    start: Instant,
    seen: Arc<Mutex<Vec<(Duration, Seen)>>>,
    /// The pod's.
    pub(crate) address: Option<IpAddr>,
}

impl TestNode {
    pub(crate) fn new() -> Self {
        Self::scripted(|_, _| Answer::Exit(0, ""))
    }

    pub(crate) fn scripted(script: impl Fn(&Target, &[String]) -> Answer + Send + Sync + 'static) -> Self {
        Self { script: Box::new(script), start: Instant::now(), seen: Arc::default(), address: None }
    }

    fn note(&self, seen: Seen) {
        self.seen.lock().unwrap().push((self.start.elapsed(), seen));
    }

    pub(crate) fn seen(&self) -> Vec<(Duration, Seen)> {
        self.seen.lock().unwrap().clone()
    }

    /// What was told, as `reason: message`.
    pub(crate) fn told(&self) -> Vec<String> {
        let told = self.seen().into_iter().filter_map(|(_, seen)| match seen {
            Seen::Told(telling) => Some(format!("{}: {}", telling.reason, telling.message)),
            _ => None,
        });
        told.collect()
    }

    /// At which second, and fraction, programs named `name` were executed.
    pub(crate) fn executed(&self, name: &str) -> Vec<f64> {
        let times = self.seen().into_iter().filter_map(|(at, seen)| match seen {
            Seen::Exec(command) if command[0] == name => Some(at.as_secs_f64()),
            _ => None,
        });
        times.collect()
    }
}

/// Notes that a program was given up, unless it ended.
struct Running {
    seen: Arc<Mutex<Vec<(Duration, Seen)>>>,
    start: Instant,
    ended: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.seen.lock().unwrap().push((self.start.elapsed(), Seen::Ended(self.ended)));
    }
}

impl Node for TestNode {
    async fn exec(&self, target: &Target, command: Vec<String>, _: bool) -> Result<ExecOutput, String> {
        let answer = (self.script)(target, &command);
        self.note(Seen::Exec(command));
        let mut running = Running { seen: Arc::clone(&self.seen), start: self.start, ended: false };
        let (code, output) = match answer {
            Answer::Exit(code, output) => (code, output),
            Answer::Cannot(why) => return Err(why.to_owned()),
            Answer::Takes(time, code) => {
                tokio::time::sleep(time).await;
                (code, "")
            }
        };
        running.ended = true;
        Ok(ExecOutput { code, output: output.as_bytes().to_vec() })
    }

    fn pod_address(&self, _: &Target) -> Option<IpAddr> {
        self.address
    }

    async fn connect(&self, _: &Target, endpoint: Endpoint) -> io::Result<TcpStream> {
        self.note(Seen::Connect(endpoint));
        let (Endpoint::Pod(address) | Endpoint::Network(address)) = endpoint;
        TcpStream::connect(address).await
    }

    fn tell(&self, _: &Target, telling: Telling) {
        self.note(Seen::Told(telling));
    }

    fn changed(&self, pod: &PodUid) {
        self.note(Seen::Changed(pod.clone()));
    }
}

// --- Values ---

pub(crate) fn exec(name: &str) -> Handler {
    Handler::Exec(vec![name.to_owned()])
}

pub(crate) fn http_get(port: u16, path: &str) -> HttpGet {
    HttpGet {
        host: None,
        port: PortRef::Number(port),
        path: path.to_owned(),
        scheme: Scheme::Http,
        headers: Vec::new(),
    }
}

/// Every second, from the start, for one second; three failures fail it.
pub(crate) fn probe(handler: Handler) -> Probe {
    Probe {
        handler,
        initial_delay: Duration::ZERO,
        timeout: Duration::from_secs(1),
        period: Duration::from_secs(1),
        success_threshold: 1,
        failure_threshold: 3,
        termination_grace_period: None,
    }
}

pub(crate) fn id(number: u8) -> ContainerId {
    ContainerId::from_bytes([number; 32])
}

/// A pod whose container `main` has these probes and a port named `web`.
pub(crate) fn pod(probes: Probes) -> Arc<Pod> {
    pod_with(|main| main.probes = probes)
}

pub(crate) fn pod_with(change: impl FnOnce(&mut Container)) -> Arc<Pod> {
    let mut main = Container::new(Name::label("main").unwrap(), "image");
    main.env = vec![EnvVar { name: "A".to_owned(), value: coracle_model::EnvValue::Literal("a".to_owned()) }];
    change(&mut main);
    Arc::new(Pod {
        uid: "0b8a9c1e-8b5e-4b43-9d0c-0d6b8f3d6a11".parse().unwrap(),
        key: PodKey { namespace: Name::label("default").unwrap(), name: Name::label("web").unwrap() },
        labels: Default::default(),
        annotations: Default::default(),
        spec: PodSpec::new(vec![main]),
        object: "{}".to_owned(),
    })
}

pub(crate) fn target(pod: Arc<Pod>) -> Target {
    Target { pod, container: Name::label("main").unwrap(), id: id(1) }
}

/// One attempt of a handler by a node, for at most a second.
pub(crate) async fn ask(node: &TestNode, handler: Handler) -> Outcome {
    ask_for(node, handler, Duration::from_secs(1)).await
}

pub(crate) async fn ask_for(node: &TestNode, handler: Handler, timeout: Duration) -> Outcome {
    let checker = Checker::new().unwrap();
    attempt(&checker, node, &target(pod(Probes::default())), &handler, timeout).await
}

/// A port of loopback nobody listens on.
pub(crate) async fn free_port() -> u16 {
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    listener.local_addr().unwrap().port()
}
