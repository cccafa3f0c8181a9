//! `coracle port-forward`.

mod listen;
mod ports;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use coracle_server::client::{Client, ClientError, ForwardFailure, Pod, WatchEventType};
use futures_util::StreamExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use self::ports::Forward;
use super::target::{Scope, pod, pod_name};

/// How long accepting pauses where the kernel has no room for a further connection.
const NO_ROOM: Duration = Duration::from_millis(100);

/// Forward local ports to a pod
///
/// Connections to a local port end at that port on the pod's loopback. Goes on until it is interrupted, or
/// the pod ends.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle port-forward web 8080:80           Port 8080 of this machine's loopback to port 80 of the pod
  coracle port-forward web 80 https          Two ports; the second by the name it has in the pod
  coracle port-forward web :80               Any free local port
  coracle port-forward --address 0.0.0.0 web 8080:80")]
pub(super) struct PortForward {
    /// The pod
    #[arg(value_name = "POD", value_parser = pod_name)]
    pod: String,
    #[command(flatten)]
    scope: Scope,
    /// Addresses to listen on, with commas between them: IP addresses, or localhost for 127.0.0.1 and ::1
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', default_value = "localhost")]
    address: Vec<String>,
    /// The ports
    #[arg(value_name = "[LOCAL_PORT:]REMOTE_PORT", required = true)]
    ports: Vec<String>,
}

/// What a pod's connections need.
struct Target {
    client: Client,
    pod: Pod,
    /// Said with every connection that is accepted.
    accepted: Notify,
    /// To say that the pod is gone.
    lost: mpsc::UnboundedSender<()>,
}

// === impl PortForward ===

impl PortForward {
    pub(super) async fn execute(self, client: &Client) -> anyhow::Result<ExitCode> {
        let pod = pod(client, &self.scope.namespace, &self.pod).await?;
        let forwards = self.ports.iter().map(|text| ports::parse(text, &pod));
        let forwards = forwards.collect::<anyhow::Result<Vec<Forward>>>()?;
        if pod.status.phase != "Running" {
            anyhow::bail!(
                "unable to forward port because pod is not running. Current status={}",
                pod.status.phase
            );
        }
        let addresses = listen::addresses(&self.address)?;
        // Each connection takes two. Where it is refused fewer fit, which is said when one does not.
        let _ = coracle_linux::raise_descriptor_limit();

        let (lost, mut is_lost) = mpsc::unbounded_channel();
        let target = Arc::new(Target { client: client.clone(), pod, accepted: Notify::new(), lost });
        let mut accepting = JoinSet::new();
        for forward in &forwards {
            match listen::listen(&addresses, forward.local) {
                Ok(listeners) => {
                    for listener in listeners {
                        let address = listener.local_addr()?;
                        writeln!(io::stdout(), "Forwarding from {address} -> {}", forward.remote)?;
                        let forward = Forward { local: address.port(), ..*forward };
                        accepting.spawn(accept(listener, forward, Arc::clone(&target)));
                    }
                }
                Err(error) => writeln!(io::stderr(), "Unable to listen on port {}: {error}", forward.local)?,
            }
        }
        if accepting.is_empty() {
            anyhow::bail!("unable to listen on any of the requested ports: {}", self.ports.join(" "));
        }
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted?,
            Some(ended) = accepting.join_next() => ended??,
            () = pod_end(&target) => anyhow::bail!("lost connection to pod"),
            Some(()) = is_lost.recv() => anyhow::bail!("lost connection to pod"),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Takes connections, each on its own: whatever becomes of one concerns no other.
async fn accept(listener: TcpListener, forward: Forward, target: Arc<Target>) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((local, _)) => {
                writeln!(io::stdout(), "Handling connection for {}", forward.local)?;
                target.accepted.notify_one();
                connections.spawn(handle(local, forward, Arc::clone(&target)));
            }
            Err(error) => {
                writeln!(io::stderr(), "error accepting connection on port {}: {error}", forward.local)?;
                tokio::time::sleep(NO_ROOM).await;
            }
        }
    }
}

async fn handle(local: TcpStream, forward: Forward, target: Arc<Target>) {
    let Forward { local: from, remote } = forward;
    let pod = &target.pod.metadata;
    let forwarded = async {
        local.set_nodelay(true).map_err(ForwardFailure::LocalWrite)?;
        let connection = target.client.port_forward(&pod.namespace, &pod.name, &pod.uid, remote).await?;
        connection.run(local).await
    };
    if let Err(error) = forwarded.await {
        let gone = matches!(&error, ForwardFailure::Agent(ClientError::Status(status)) if status.code == 404);
        // Nobody is left to be told when standard error is gone.
        let _ = writeln!(io::stderr(), "an error occurred forwarding {from} -> {remote}: {error}");
        if gone {
            let _ = target.lost.send(());
        }
    }
}

/// Returns when the pod is gone, or will not run any more. An agent that ends is no end of its pods: it is
/// asked again when the next connection comes.
async fn pod_end(target: &Target) {
    let ended = |pod: &Pod| matches!(pod.status.phase.as_str(), "Succeeded" | "Failed");
    let uid = &target.pod.metadata.uid;
    loop {
        // Watched before it is looked, so that nothing falls between.
        if let Ok(mut events) = target.client.watch_pods().await
            && let Ok(pods) = target.client.pods().await
        {
            if pods.iter().find(|pod| pod.metadata.uid == *uid).is_none_or(ended) {
                return;
            }
            while let Some(Ok(event)) = events.next().await {
                if event.object.metadata.uid == *uid
                    && (event.kind == WatchEventType::Deleted || ended(&event.object))
                {
                    return;
                }
            }
        }
        target.accepted.notified().await;
    }
}
