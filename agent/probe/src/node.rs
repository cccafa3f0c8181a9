//! What probes and hooks need of the node.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use coracle_model::{ContainerId, EventType, Name, Pod, PodUid};
use tokio::net::TcpStream;

/// How much of a program's output, and of the body of a response, is kept: 10 KiB, as in the kubelet.
pub const OUTPUT_LIMIT: usize = 10 * 1024;

/// A container that is probed, or whose hook is run.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its pod.
    pub pod: Arc<Pod>,
    /// The name it has in the pod.
    pub container: Name,
    /// Which run of it.
    pub id: ContainerId,
}

/// Where a connection goes to, and from where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// An address as seen from within the pod: from its network namespace.
    Pod(SocketAddr),
    /// An address as seen from the node.
    Network(SocketAddr),
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOutput {
    /// 0 to 255; 128 plus the signal's number when a signal ended it.
    pub code: i32,
    /// What it wrote, standard output before standard error, [`OUTPUT_LIMIT`] bytes of it at most.
    pub output: Vec<u8>,
}

/// Something to be told of a container, as an event of its pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telling {
    /// Whether all is well.
    pub kind: EventType,
    /// The kubelet's: `Unhealthy`, `ProbeWarning`, `LifecycleHTTPFallback`.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// What probes and hooks need of the node. Dropping a future gives its work up.
pub trait Node: Send + Sync + 'static {
    /// Runs a program in a container and waits for its end. When this returns with a failure or is dropped,
    /// whatever the program has started is killed. What it leaves running when it ends is killed as well, unless
    /// `detach` gives it to the container, as a hook's is.
    ///
    /// Fails, with a sentence for people, when the program was not executed.
    fn exec(
        &self,
        target: &Target,
        command: Vec<String>,
        detach: bool,
    ) -> impl Future<Output = Result<ExecOutput, String>> + Send;

    /// The pod's address, in the node's network: its primary one, as in the kubelet. One that has none is reached by
    /// its loopback.
    fn pod_address(&self, target: &Target) -> Option<IpAddr>;

    /// Opens a TCP connection.
    fn connect(
        &self,
        target: &Target,
        endpoint: Endpoint,
    ) -> impl Future<Output = io::Result<TcpStream>> + Send;

    /// Tells people what happened to a container. Returns at once.
    fn tell(&self, target: &Target, telling: Telling);

    /// Says that findings about a container of the pod changed. Returns at once.
    fn changed(&self, pod: &PodUid);
}
