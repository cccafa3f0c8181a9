//! A client of the API, as the command line uses it.

mod exec;
mod logs;
mod object;
mod port_forward;
mod websocket;

use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Once};
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

pub use axum::body::Bytes;

pub use self::exec::{AttachOptions, ExecInput, ExecOptions, ExecOutput, ExecOutputs};
pub use self::logs::{LogOptions, LogPiece, LogPosition};
pub use self::object::{
    AllocatedDevice, AllocatedResource, Condition, ConfigMap, Container, ContainerState, ContainerStatus,
    DownwardApi, DownwardFile, EmptyDir, EnvFromSource, EnvVar, EnvVarSource, Event, EventSource, FieldRef,
    FileKeyRef, HostPath, InvolvedObject, KeyRef, Metadata, Node, NodeAddress, NodeStatus, Object, ObjectRef,
    Pod, PodSpec, PodStatus, Port, Projected, ProjectedSource, ResourceFieldRef, Resources, Running, Secret,
    SecretVolume, Terminated, Volume, VolumeMount, Waiting, WatchEvent, WatchEventType,
};
pub use self::port_forward::{ForwardFailure, PortForward};
use crate::query::{append, encode};
use crate::{Problem, Status};

/// The most of a single answer, and of one line of a watch, that is read.
const MAX_BODY: usize = 256 << 20;

/// An answer that has not begun after so long is late: an agent says at once whether it does what it is asked for.
const LATE: Duration = Duration::from_secs(5);

/// How long an answer may take to begin. What follows takes as long as it takes.
const LIMIT: Duration = Duration::from_secs(300);

/// A request that failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers at the socket.
    #[error(
        "cannot reach the agent at {}: {source}: is it running? (`systemctl status coracle`, or start `coracle agent`; \
         --run-dir says where its socket is)",
        path.display()
    )]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The socket is there, and nobody answers: the service manager holds it for an agent that does not come, or the
    /// agent hangs.
    #[error(
        "the agent at {} has not answered for {} s: `systemctl status coracle` and `journalctl -u coracle` may say why",
        path.display(), after.as_secs()
    )]
    Unanswered {
        /// The socket.
        path: PathBuf,
        /// How long it was waited for.
        after: Duration,
    },
    /// The agent said no.
    #[error("Error from server ({reason}): {status}", reason = .0.reason, status = .0)]
    Status(#[from] Box<Status>),
    /// The connection broke.
    #[error("the connection to the agent broke: {0}")]
    Connection(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answer is not what this client understands.
    #[error("the agent's answer to {path} is not understood: {message}")]
    Answer {
        /// What was asked for.
        path: String,
        /// What is wrong with the answer.
        message: String,
    },
}

/// Which events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventOptions {
    /// Of this namespace; `None` for all.
    pub namespace: Option<String>,
    /// `involvedObject.kind`, such as `Pod`.
    pub kind: Option<String>,
    /// `involvedObject.name`.
    pub name: Option<String>,
    /// `involvedObject.uid`.
    pub uid: Option<String>,
    /// `Normal` or `Warning`.
    pub r#type: Option<String>,
}

/// The agent at a socket. Every request is a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    /// Called when an answer is late.
    tell_late: Option<fn()>,
    /// It was, by this client or a clone of it.
    told: Arc<Once>,
}

// === impl EventOptions ===

impl EventOptions {
    fn path(&self, watch: bool) -> String {
        let mut query = String::new();
        if watch {
            append(&mut query, "watch", "true");
        }
        if let Some(namespace) = &self.namespace {
            append(&mut query, "namespace", namespace);
        }
        let terms = [
            ("involvedObject.kind", &self.kind),
            ("involvedObject.name", &self.name),
            ("involvedObject.uid", &self.uid),
            ("type", &self.r#type),
        ];
        let terms = terms.into_iter().filter_map(|(field, value)| {
            let value = value.as_ref()?.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            Some(format!("{field}={value}"))
        });
        let selector = terms.collect::<Vec<_>>().join(",");
        if !selector.is_empty() {
            append(&mut query, "fieldSelector", &selector);
        }
        path_of(&["coracle", "v1", "events"]) + &query
    }
}

// === impl Client ===

impl Client {
    /// The agent that listens at `socket`. Nothing is connected yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), tell_late: None, told: Arc::new(Once::new()) }
    }

    /// Has `tell` called, once, when the agent takes long to answer: where the service manager holds its socket, clients
    /// of one that cannot start wait for it.
    #[must_use]
    pub fn when_late(self, tell: fn()) -> Self {
        Self { tell_late: Some(tell), ..self }
    }

    /// Where the agent listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Every pod of the node.
    pub async fn pods(&self) -> Result<Vec<Pod>, ClientError> {
        self.list("/pods").await
    }

    /// Every pod of the node, and every later change, until the agent ends.
    pub async fn watch_pods(
        &self,
    ) -> Result<impl Stream<Item = Result<WatchEvent<Pod>, ClientError>> + Send + Unpin + use<>, ClientError>
    {
        self.watch("/pods?watch=true").await
    }

    /// What happened on the node, in order of the last time it did.
    pub async fn events(&self, options: &EventOptions) -> Result<Vec<Event>, ClientError> {
        self.list(&options.path(false)).await
    }

    /// What happened on the node, and all that happens later, until the agent ends.
    pub async fn watch_events(
        &self,
        options: &EventOptions,
    ) -> Result<impl Stream<Item = Result<WatchEvent<Event>, ClientError>> + Send + Unpin + use<>, ClientError>
    {
        self.watch(&options.path(true)).await
    }

    /// The node's ConfigMaps.
    pub async fn config_maps(&self) -> Result<Vec<ConfigMap>, ClientError> {
        self.list("/coracle/v1/configmaps").await
    }

    /// The node's Secrets, without their values.
    pub async fn secrets(&self) -> Result<Vec<Secret>, ClientError> {
        self.list("/coracle/v1/secrets").await
    }

    /// The node.
    pub async fn nodes(&self) -> Result<Vec<Node>, ClientError> {
        self.list("/coracle/v1/nodes").await
    }

    /// What is wrong with the node's manifests.
    pub async fn problems(&self) -> Result<Vec<Problem>, ClientError> {
        self.json("/coracle/v1/problems").await
    }

    /// A container's log, in pieces that end anywhere. Followed, it ends with the container; an agent that ends
    /// before is an error.
    pub async fn logs(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        options: &LogOptions,
    ) -> Result<impl Stream<Item = Result<Bytes, ClientError>> + Send + Unpin + use<>, ClientError> {
        self.body(&(path_of(&["containerLogs", namespace, pod, container]) + &options.query())).await
    }

    /// As [`Client::logs`], with positions: with that of the last piece the next agent goes on right behind it.
    pub async fn logs_from(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        options: &LogOptions,
        position: Option<&LogPosition>,
    ) -> Result<impl Stream<Item = Result<LogPiece, ClientError>> + Send + Unpin + use<>, ClientError> {
        let path = path_of(&["containerLogs", namespace, pod, container]);
        let body = self.body(&format!("{path}{}", options.query_from(position))).await?;
        Ok(logs::pieces(body, path))
    }

    /// Adds an ephemeral container, a `v1 EphemeralContainer`, to a pod; the pod as it is with it.
    pub async fn add_ephemeral(
        &self,
        namespace: &str,
        pod: &str,
        container: &serde_json::Value,
    ) -> Result<Pod, ClientError> {
        let path = path_of(&["coracle", "v1", "ephemeralcontainers", namespace, pod]);
        let request = Request::post(&path).header(CONTENT_TYPE, "application/json");
        let response = self.send(request, Bytes::from(container.to_string())).await?;
        let body = collect(response.into_body()).await?;
        let object = serde_json::from_slice(&body).map_err(|error| answer(&path, error))?;
        Pod::from_object(object).map_err(|error| answer(&path, error))
    }

    /// Starts a program in a container.
    pub async fn exec(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        options: &ExecOptions,
    ) -> Result<(ExecInput, ExecOutputs), ClientError> {
        let streams = AttachOptions { stdin: options.stdin, tty: options.tty };
        exec::start(self, path_of(&["exec", namespace, pod, container]), &options.command, streams).await
    }

    /// Attaches to a container that runs. Its end is told with the exit code 0, whatever its own is.
    pub async fn attach(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        options: AttachOptions,
    ) -> Result<(ExecInput, ExecOutputs), ClientError> {
        exec::start(self, path_of(&["attach", namespace, pod, container]), &[], options).await
    }

    /// Asks for a connection to a port of a pod. That it could not be made is told once it is used.
    pub async fn port_forward(
        &self,
        namespace: &str,
        pod: &str,
        uid: &str,
        port: u16,
    ) -> Result<PortForward, ClientError> {
        port_forward::start(self, &["portForward", namespace, pod, uid], port).await
    }

    async fn list<T: Object>(&self, path: &str) -> Result<Vec<T>, ClientError> {
        #[derive(serde::Deserialize)]
        struct List {
            items: Vec<serde_json::Value>,
        }
        let list: List = self.json(path).await?;
        let item = |item| T::from_object(item).map_err(|error| answer(path, error));
        list.items.into_iter().map(item).collect()
    }

    async fn watch<T: Object>(
        &self,
        path: &str,
    ) -> Result<impl Stream<Item = Result<WatchEvent<T>, ClientError>> + Send + Unpin + use<T>, ClientError>
    {
        let body = self.body(path).await?;
        let path: Arc<str> = Arc::from(path);
        let of = Arc::clone(&path);
        let lines = stream::unfold((body, Vec::new()), move |(mut body, mut rest): (_, Vec<u8>)| {
            let path = Arc::clone(&of);
            async move {
                loop {
                    if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                        let line: Vec<u8> = rest.drain(..=end).collect();
                        return Some((Ok(line), (body, rest)));
                    }
                    match body.next().await? {
                        Ok(piece) if rest.len() + piece.len() <= MAX_BODY => rest.extend_from_slice(&piece),
                        Ok(_) => return Some((Err(answer(&path, "an endless line")), (body, Vec::new()))),
                        Err(error) => return Some((Err(error), (body, rest))),
                    }
                }
            }
        });
        let parse = move |line: Vec<u8>| {
            let event = serde_json::from_slice(&line).map_err(|error| answer(&path, error))?;
            WatchEvent::from_object(event).map_err(|error| answer(&path, error))
        };
        Ok(Box::pin(lines.map(move |line| line.and_then(&parse))))
    }

    async fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let response = self.get(Request::get(path)).await?;
        let body = collect(response.into_body()).await?;
        serde_json::from_slice(&body).map_err(|error| answer(path, error))
    }

    async fn body(
        &self,
        path: &str,
    ) -> Result<impl Stream<Item = Result<Bytes, ClientError>> + Send + Unpin + use<>, ClientError> {
        let response = self.get(Request::get(path)).await?;
        Ok(response.into_body().into_data_stream().map(|piece| piece.map_err(broken)))
    }

    async fn get(&self, request: hyper::http::request::Builder) -> Result<Response<Incoming>, ClientError> {
        self.send(request, Bytes::new()).await
    }

    /// Sends a request; an answer that is no success is an error.
    async fn send(
        &self,
        request: hyper::http::request::Builder,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| ClientError::Unreachable { path: self.socket.clone(), source })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Ends with the response's body; what goes wrong is seen there.
        tokio::spawn(connection.with_upgrades());
        let request = request.header(HOST, "coracle").body(Full::new(body)).map_err(broken)?;
        let tell = || self.tell_late.into_iter().for_each(|tell| self.told.call_once(tell));
        let response = in_time(sender.send_request(request), LATE, LIMIT, tell).await;
        let unanswered = || ClientError::Unanswered { path: self.socket.clone(), after: LIMIT };
        let response = response.ok_or_else(unanswered)?.map_err(broken)?;
        let code = response.status();
        if code.is_success() || code == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        let body = collect(response.into_body()).await?;
        Err(match serde_json::from_slice::<Status>(&body) {
            Ok(status) if !status.message.is_empty() => Box::new(status).into(),
            _ => Box::new(Status::failure(code, "Unknown", String::from_utf8_lossy(&body))).into(),
        })
    }
}

/// What comes within `limit`; `tell` is called where that takes longer than `late`.
async fn in_time<T>(
    answer: impl Future<Output = T>,
    late: Duration,
    limit: Duration,
    tell: impl FnOnce(),
) -> Option<T> {
    let mut answer = pin!(answer);
    if let Ok(answer) = timeout(late, answer.as_mut()).await {
        return Some(answer);
    }
    tell();
    timeout(limit.saturating_sub(late), answer).await.ok()
}

async fn collect(body: Incoming) -> Result<Bytes, ClientError> {
    let body = Limited::new(body, MAX_BODY).collect().await.map_err(ClientError::Connection)?;
    Ok(body.to_bytes())
}

fn path_of(segments: &[&str]) -> String {
    let mut path = String::new();
    for segment in segments {
        path.push('/');
        encode(&mut path, segment);
    }
    path
}

fn answer(path: &str, message: impl ToString) -> ClientError {
    ClientError::Answer { path: path.to_owned(), message: message.to_string() }
}

fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClientError {
    ClientError::Connection(error.into())
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::time::sleep;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn an_agent_that_does_not_answer_is_told_of_and_not_waited_for_without_end() {
        let mut told = 0;
        assert_eq!(in_time(ready(1), LONG, LONG, || told += 1).await, Some(1));
        assert_eq!(told, 0, "an answer in time");
        let late = async {
            sleep(3 * MOMENT).await;
            2
        };
        assert_eq!(in_time(late, MOMENT, LONG, || told += 1).await, Some(2));
        assert_eq!(told, 1, "a late one");
        assert_eq!(in_time(pending::<u8>(), MOMENT, 2 * MOMENT, || told += 1).await, None);
        assert_eq!(told, 2, "none");
    }
}
