//! What the server needs of the node it speaks for.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use coracle_model::{ConfigObject, ContainerId, EphemeralContainer, Event, ExtendedResource, Pod, PodStatus};
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// The node, as the server sees it. Every method that gives no future answers from memory.
pub trait Node: Send + Sync + 'static {
    /// The node's name: `spec.nodeName` of every pod.
    fn name(&self) -> &str;

    /// Every pod the node has, at most one of a namespace and name.
    ///
    /// A container is shown as ended only once all it wrote stands in its log: whoever follows the log
    /// reads to the end of the file after seeing the container ended, and stops there.
    fn pods(&self) -> Vec<PodEntry>;

    /// Changes with every change of [`Node::pods`], after it.
    fn changes(&self) -> watch::Receiver<u64>;

    /// The directory of `<namespace>_<name>_<uid>/<container>/<attempt>.log`.
    fn log_dir(&self) -> &Path;

    /// What happened on the node.
    fn events(&self) -> Vec<Arc<Event>>;

    /// Changes with every change of [`Node::events`], after it.
    fn event_changes(&self) -> watch::Receiver<u64>;

    /// The ConfigMaps and Secrets there are, in order of kind, namespace and name.
    fn configs(&self) -> Vec<Arc<ConfigObject>>;

    /// The settings that count, by the names of `KubeletConfiguration` and of the node's own. No secret is among them.
    fn configuration(&self) -> serde_json::Map<String, serde_json::Value>;

    /// What the node has, and how it is.
    fn status(&self) -> NodeStatus;

    /// What is wrong with the manifests, now.
    fn problems(&self) -> Vec<Problem>;

    /// Starts a program in a running container. The answer comes once the program was executed.
    fn exec(&self, request: ExecRequest) -> BoxFuture<'static, Result<ExecSession, ExecError>>;

    /// Attaches to a running container. Dropping the session detaches; the container runs on.
    fn attach(&self, request: AttachRequest) -> BoxFuture<'static, Result<ExecSession, ExecError>>;

    /// Adds an ephemeral container to a pod. The answer comes once it outlives the agent.
    fn add_ephemeral(
        &self,
        pod: Arc<Pod>,
        container: EphemeralContainer,
    ) -> BoxFuture<'static, Result<(), EphemeralError>>;

    /// Connects to a port on the loopback of a pod.
    fn port_forward(
        &self,
        request: PortForwardRequest,
    ) -> BoxFuture<'static, Result<Forwarded, ForwardError>>;
}

/// A pod and what is seen of it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PodEntry {
    /// What is to run.
    pub pod: Arc<Pod>,
    /// What is seen.
    pub status: Arc<PodStatus>,
    /// Set once its removal was asked for.
    pub deletion: Option<Deletion>,
    /// Another one with every change of the pod: `metadata.resourceVersion`.
    pub version: u64,
}

/// What a node has, and how it is: a Node's status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its addresses, the primary family first.
    pub addresses: Vec<IpAddr>,
    /// All there is.
    pub capacity: Amounts,
    /// What pods may use together.
    pub allocatable: Amounts,
    /// Why it takes up no pod now, in a sentence.
    pub not_ready: Option<String>,
    /// The machine.
    pub system: SystemInfo,
}

/// Amounts of what pods can ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Thousandths of a CPU.
    pub cpu: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of disk.
    pub ephemeral_storage: u64,
    /// Devices by resource.
    pub extended: BTreeMap<ExtendedResource, u64>,
}

/// What a node runs on: `status.nodeInfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SystemInfo {
    /// As Go names it: `amd64`.
    pub architecture: String,
    /// Another one with every boot.
    pub boot_id: String,
    /// The kernel's release.
    pub kernel: String,
    /// Of the installation.
    pub machine_id: String,
    /// The distribution, for people.
    pub os_image: String,
    /// Of Coracle.
    pub version: String,
}

/// A pod's removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// What its containers have from then on until they are killed.
    pub grace: Duration,
}

/// A manifest that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The file, or the address.
    pub path: PathBuf,
    /// What is wrong, with line and field where there is one.
    pub message: String,
}

/// A program to be started in a container.
#[derive(Clone, Debug)]
pub struct ExecRequest {
    /// The container's pod.
    pub pod: Arc<Pod>,
    /// The container's name in the pod's specification.
    pub container: String,
    /// The container, which ran when the request came.
    pub container_id: ContainerId,
    /// Program and arguments. Never empty.
    pub command: Vec<String>,
    /// The client sends standard input; without it the program reads from /dev/null.
    pub stdin: bool,
    /// The client wants standard output.
    pub stdout: bool,
    /// The client wants standard error. Never set together with `tty`.
    pub stderr: bool,
    /// The program gets a terminal.
    pub tty: bool,
}

/// A container to be attached to.
#[derive(Clone, Debug)]
pub struct AttachRequest {
    /// The container's pod.
    pub pod: Arc<Pod>,
    /// The container's name in the pod's specification.
    pub container: String,
    /// The container, which ran when the request came.
    pub container_id: ContainerId,
    /// The client sends standard input; a container that has none does not get it.
    pub stdin: bool,
    /// The client wants standard output.
    pub stdout: bool,
    /// The client wants standard error. Never set for a container with a terminal.
    pub stderr: bool,
}

/// A started program, or a container attached to, which may have been started long before.
///
/// **Dropping it is the client's disconnect.** Of a program: standard input reaches its end, the output pipes
/// close and a terminal hangs up, which ends most programs; one that minds none of it runs on, as with the
/// kubelet. Of a container: its standard input reaches its end if it is `stdinOnce`.
pub struct ExecSession {
    /// Standard input, when asked for. Dropping it is the end of the input. With a terminal it is the
    /// terminal, and dropping it must not hang up what `stdout` still reads.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Standard output, when asked for; with a terminal, all output.
    pub stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Standard error, when asked for.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Sets the terminal's size; `None` without a terminal.
    pub resize: Option<Box<dyn Resize>>,
    /// Resolves when the program ended. Output may still be read afterwards. Of a container attached to,
    /// the code is 0, as with the kubelet: how it ended is in the pod's status.
    pub exit: BoxFuture<'static, Result<ExecExit, ExecError>>,
}

/// Sets the size of a terminal.
pub trait Resize: Send + Sync {
    /// Sets it, and so sends SIGWINCH.
    fn resize(&self, size: TerminalSize) -> io::Result<()>;
}

impl<F: Fn(TerminalSize) -> io::Result<()> + Send + Sync> Resize for F {
    fn resize(&self, size: TerminalSize) -> io::Result<()> {
        self(size)
    }
}

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// How an exec'd program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecExit {
    /// 0 to 255; 128 plus the signal's number when a signal ended it.
    pub code: i32,
}

/// A connection to be made to a pod.
#[derive(Clone, Debug)]
pub struct PortForwardRequest {
    /// The pod.
    pub pod: Arc<Pod>,
    /// A TCP port. Never 0.
    pub port: u16,
}

/// A connection to a port of a pod.
pub struct Forwarded {
    /// The connection.
    pub stream: TcpStream,
    /// Resolves when the pod's sandbox is gone: nobody answers on the connection any more.
    pub gone: BoxFuture<'static, ()>,
}

/// A port of a pod could not be connected to, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ForwardError(pub String);

/// An ephemeral container was not added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EphemeralError {
    /// The pod went meanwhile.
    #[error("the pod is gone")]
    Gone,
    /// The pod takes none any more, in a sentence.
    #[error("{0}")]
    Conflict(String),
    /// Another was added meanwhile, and the two do not go together: the field and what is wrong with it.
    #[error("{0}")]
    Invalid(String),
}

/// A program could not be started, or its end not be learned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    /// The container does not run any more.
    #[error("container not found (\"{0}\")")]
    NotRunning(String),
    /// Anything else, in a sentence.
    #[error("{0}")]
    Failed(String),
}
