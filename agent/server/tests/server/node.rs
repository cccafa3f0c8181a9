//! A node whose containers are processes of this machine.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use coracle_model::{
    ConfigKey, ConfigKind, ConfigObject, ContainerId, ContainerState, ContainerStatus, EphemeralContainer,
    Event, EventType, Name, ObjectReference, Pod, PodPhase, PodStatus, QosClass, Running, Terminated,
    Waiting,
};
use coracle_server::{
    Amounts, AttachRequest, EphemeralError, ExecError, ExecExit, ExecRequest, ExecSession, ForwardError,
    Forwarded, Node, NodeStatus, PodEntry, PortForwardRequest, Problem, SystemInfo, TerminalSize,
};
use futures_util::future::{BoxFuture, FutureExt};
use jiff::Timestamp;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::unix::pipe;
use tokio::sync::watch;

pub(crate) struct TestNode {
    pods: Mutex<Vec<PodEntry>>,
    changes: watch::Sender<u64>,
    events: Mutex<Vec<Arc<Event>>>,
    event_changes: watch::Sender<u64>,
    logs: PathBuf,
    /// What was read of programs' standard output so far.
    pub(crate) output: Arc<AtomicU64>,
    /// Becomes true when the pods' sandboxes are gone.
    pub(crate) gone: watch::Sender<bool>,
}

impl TestNode {
    pub(crate) fn new(logs: PathBuf) -> Self {
        Self {
            pods: Mutex::default(),
            changes: watch::Sender::new(0),
            events: Mutex::default(),
            event_changes: watch::Sender::new(0),
            logs,
            output: Arc::default(),
            gone: watch::Sender::new(false),
        }
    }

    /// Adds the pod, or replaces it, with containers in these states.
    pub(crate) fn put(&self, pod: &Arc<Pod>, containers: Vec<ContainerStatus>) {
        self.change(|pods, version| {
            pods.retain(|entry| entry.pod.uid != pod.uid);
            pods.push(PodEntry {
                pod: Arc::clone(pod),
                status: Arc::new(PodStatus {
                    phase: PodPhase::Running,
                    conditions: Vec::new(),
                    reason: None,
                    message: None,
                    host_ips: vec![[192, 0, 2, 1].into()],
                    pod_ips: Vec::new(),
                    start_time: Some(Timestamp::UNIX_EPOCH),
                    init_container_statuses: Vec::new(),
                    container_statuses: containers,
                    ephemeral_container_statuses: Vec::new(),
                    qos_class: QosClass::BestEffort,
                }),
                deletion: None,
                version,
            });
        });
    }

    /// Adds the event, or has the one of its name be this, with another version.
    pub(crate) fn happens(&self, event: Event) {
        let version = *self.event_changes.borrow() + 1;
        let mut events = self.events.lock().unwrap();
        events.retain(|one| one.name != event.name);
        events.push(Arc::new(Event { version, ..event }));
        drop(events);
        self.event_changes.send_replace(version);
    }

    /// Has the event be kept no longer.
    pub(crate) fn expires(&self, name: &str) {
        self.events.lock().unwrap().retain(|one| one.name != name);
        self.event_changes.send_modify(|version| *version += 1);
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Vec<PodEntry>, u64)) {
        let version = *self.changes.borrow() + 1;
        change(&mut self.pods.lock().unwrap(), version);
        self.changes.send_replace(version);
    }
}

/// A pod `default/web` with containers `web` and `side`.
pub(crate) fn pod() -> Arc<Pod> {
    let manifest = br#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "web", "image": "web:1"}, {"name": "side", "image": "side:1"}]}}"#;
    let decoded = coracle_manifest::decode("web.json", manifest).unwrap();
    Arc::new(decoded.pods.into_iter().next().unwrap())
}

/// An event of the container `web` of that pod, which happened at the epoch three times.
pub(crate) fn back_off() -> Event {
    Event {
        name: "web.1".to_owned(),
        involved_object: ObjectReference {
            kind: "Pod".to_owned(),
            namespace: Some("default".to_owned()),
            name: "web".to_owned(),
            uid: pod().uid.to_string(),
            field_path: Some("spec.containers{web}".to_owned()),
        },
        kind: EventType::Warning,
        reason: "BackOff".to_owned(),
        message: "Back-off restarting".to_owned(),
        component: "coracle".to_owned(),
        count: 3,
        first_timestamp: Timestamp::UNIX_EPOCH,
        last_timestamp: Timestamp::UNIX_EPOCH,
        version: 0,
    }
}

/// An event of the node.
pub(crate) fn node_ready() -> Event {
    Event {
        name: "node.1".to_owned(),
        involved_object: ObjectReference {
            kind: "Node".to_owned(),
            namespace: None,
            name: "node".to_owned(),
            uid: "node".to_owned(),
            field_path: None,
        },
        kind: EventType::Normal,
        reason: "NodeReady".to_owned(),
        message: "Node node status is now: NodeReady".to_owned(),
        count: 1,
        ..back_off()
    }
}

pub(crate) fn running(name: &str, attempt: u32, last: Option<Terminated>) -> ContainerStatus {
    let state = ContainerState::Running(Running { started_at: Timestamp::UNIX_EPOCH });
    ContainerStatus {
        name: name.to_owned(),
        state,
        last_state: last,
        ready: true,
        started: true,
        restart_count: attempt,
        image: "web:1".to_owned(),
        image_id: "sha256:1".to_owned(),
        container_id: Some(id(attempt)),
        stop_signal: None,
        volume_mounts: Vec::new(),
        allocated_resources: Vec::new(),
    }
}

pub(crate) fn waiting(name: &str, reason: &str, attempt: u32, last: Option<Terminated>) -> ContainerStatus {
    let state = ContainerState::Waiting(Waiting { reason: reason.to_owned(), message: None });
    let container_id = last.as_ref().map(|_| id(attempt));
    ContainerStatus { state, ready: false, started: false, container_id, ..running(name, attempt, last) }
}

pub(crate) fn ended(name: &str, attempt: u32) -> ContainerStatus {
    let state = ContainerState::Terminated(terminated(attempt));
    ContainerStatus { state, ready: false, started: false, ..running(name, attempt, None) }
}

pub(crate) fn terminated(attempt: u32) -> Terminated {
    Terminated {
        exit_code: 0,
        signal: None,
        reason: "Completed".to_owned(),
        message: None,
        started_at: None,
        finished_at: None,
        container_id: Some(id(attempt)),
    }
}

fn id(attempt: u32) -> ContainerId {
    ContainerId::from_bytes([u8::try_from(attempt).unwrap(); 32])
}

impl Node for TestNode {
    fn name(&self) -> &str {
        "node"
    }

    fn pods(&self) -> Vec<PodEntry> {
        self.pods.lock().unwrap().clone()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn log_dir(&self) -> &Path {
        &self.logs
    }

    fn events(&self) -> Vec<Arc<Event>> {
        self.events.lock().unwrap().clone()
    }

    fn event_changes(&self) -> watch::Receiver<u64> {
        self.event_changes.subscribe()
    }

    fn configs(&self) -> Vec<Arc<ConfigObject>> {
        let name = |text: &str| Name::label(text).unwrap();
        let object = |kind, data: &[u8], binary: &[(&str, &[u8])], secret_type: &str| {
            let value = |(key, value): &(&str, &[u8])| ((*key).to_owned(), Arc::from(*value));
            Arc::new(ConfigObject {
                key: ConfigKey { kind, namespace: name("shop"), name: name("web") },
                data: [("key".to_owned(), Arc::from(data))].into(),
                binary_data: binary.iter().map(value).collect(),
                secret_type: secret_type.to_owned(),
                immutable: true,
            })
        };
        vec![
            object(ConfigKind::ConfigMap, b"blue", &[("logo", &[0xff, 0])], ""),
            object(ConfigKind::Secret, b"hunter2", &[], "Opaque"),
        ]
    }

    fn configuration(&self) -> serde_json::Map<String, serde_json::Value> {
        [("podPidsLimit".to_owned(), serde_json::json!(100))].into_iter().collect()
    }

    fn status(&self) -> NodeStatus {
        let extended = |count| [("example.com/gpu".to_owned().try_into().unwrap(), count)].into();
        let amounts =
            Amounts { cpu: 1500, memory: 1 << 30, ephemeral_storage: 1 << 40, ..Amounts::default() };
        NodeStatus {
            addresses: vec![[192, 0, 2, 1].into()],
            capacity: Amounts { extended: extended(4), ..amounts.clone() },
            allocatable: Amounts { extended: extended(3), ..amounts },
            not_ready: None,
            system: SystemInfo { architecture: "amd64".to_owned(), ..SystemInfo::default() },
        }
    }

    fn problems(&self) -> Vec<Problem> {
        vec![Problem { path: "/m/a.yaml".into(), message: "line 3: no".to_owned() }]
    }

    fn exec(&self, request: ExecRequest) -> BoxFuture<'static, Result<ExecSession, ExecError>> {
        let output = Arc::clone(&self.output);
        async move {
            let started = if request.tty { terminal(&request) } else { pipes(&request, output) };
            started.map_err(|error| ExecError::Failed(format!("exec: {:?}: {error}", request.command[0])))
        }
        .boxed()
    }

    /// A container says that it was attached to, and then what it is told.
    fn attach(&self, request: AttachRequest) -> BoxFuture<'static, Result<ExecSession, ExecError>> {
        let AttachRequest { pod, container, container_id, stdin, stdout, stderr } = request;
        let script = "echo attached; echo errors >&2; cat";
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        self.exec(ExecRequest { pod, container, container_id, command, stdin, stdout, stderr, tty: false })
    }

    /// As long as the pod has not ended.
    fn add_ephemeral(
        &self,
        pod: Arc<Pod>,
        container: EphemeralContainer,
    ) -> BoxFuture<'static, Result<(), EphemeralError>> {
        let mut result = Err(EphemeralError::Gone);
        self.change(|pods, _| {
            let Some(entry) = pods.iter_mut().find(|entry| entry.pod.uid == pod.uid) else { return };
            if entry.status.phase.is_terminal() {
                result = Err(EphemeralError::Conflict("the pod has ended".to_owned()));
                return;
            }
            let mut pod = (*entry.pod).clone();
            pod.spec.ephemeral_containers.push(container);
            entry.pod = Arc::new(pod);
            result = Ok(());
        });
        std::future::ready(result).boxed()
    }

    /// The pods' loopback is this machine's.
    fn port_forward(
        &self,
        request: PortForwardRequest,
    ) -> BoxFuture<'static, Result<Forwarded, ForwardError>> {
        let mut gone = self.gone.subscribe();
        async move {
            let connected = TcpStream::connect(("127.0.0.1", request.port)).await;
            let stream = connected.map_err(|error| ForwardError(format!("failed to connect: {error}")))?;
            let gone = async move { drop(gone.wait_for(|gone| *gone).await) }.boxed();
            Ok(Forwarded { stream, gone })
        }
        .boxed()
    }
}

fn pipes(request: &ExecRequest, output: Arc<AtomicU64>) -> io::Result<ExecSession> {
    let piped = |wanted| if wanted { Stdio::piped() } else { Stdio::null() };
    let mut child = Command::new(&request.command[0])
        .args(&request.command[1..])
        .stdin(piped(request.stdin))
        .stdout(piped(request.stdout))
        .stderr(piped(request.stderr))
        .spawn()?;
    let mut session = ExecSession {
        stdin: None,
        stdout: None,
        stderr: None,
        resize: None,
        exit: Box::pin(std::future::pending()),
    };
    if let Some(stdin) = child.stdin.take() {
        session.stdin = Some(Box::new(pipe::Sender::from_owned_fd(stdin.into())?));
    }
    if let Some(stdout) = child.stdout.take() {
        let inner = pipe::Receiver::from_owned_fd(stdout.into())?;
        session.stdout = Some(Box::new(Counted { inner, count: output }));
    }
    if let Some(stderr) = child.stderr.take() {
        session.stderr = Some(Box::new(pipe::Receiver::from_owned_fd(stderr.into())?));
    }
    session.exit = wait(child);
    Ok(session)
}

fn terminal(request: &ExecRequest) -> io::Result<ExecSession> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let slave = ptsname(&master, Vec::new())?.into_string().map_err(io::Error::other)?;
    let slave = File::options().read(true).write(true).open(slave)?;
    let child = Command::new("setsid")
        .arg("--ctty")
        .args(&request.command)
        .stdin(slave.try_clone()?)
        .stdout(slave.try_clone()?)
        .stderr(slave)
        .spawn()?;
    let size = master.try_clone()?;
    let resize = move |wanted: TerminalSize| {
        let size_of = Winsize { ws_row: wanted.height, ws_col: wanted.width, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(tcsetwinsize(&size, size_of)?)
    };
    let file = |fd: OwnedFd| tokio::fs::File::from_std(File::from(fd));
    Ok(ExecSession {
        stdin: Some(Box::new(file(master.try_clone()?))),
        stdout: Some(Box::new(file(master))),
        stderr: None,
        resize: Some(Box::new(resize)),
        exit: wait(child),
    })
}

fn wait(mut child: Child) -> BoxFuture<'static, Result<ExecExit, ExecError>> {
    let waiting = tokio::task::spawn_blocking(move || child.wait());
    async move {
        let status = waiting.await.unwrap().map_err(|error| ExecError::Failed(error.to_string()))?;
        use std::os::unix::process::ExitStatusExt;
        Ok(ExecExit { code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap()) })
    }
    .boxed()
}

struct Counted {
    inner: pipe::Receiver,
    count: Arc<AtomicU64>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buffer);
        self.count.fetch_add((buffer.filled().len() - before) as u64, Ordering::Relaxed);
        polled
    }
}
