//! A plugin that has registered: connect, ask what it wants to be asked, and listen to what devices it has.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use coracle_device_api::deviceplugin::{
    AllocateRequest, ContainerAllocateRequest, ContainerPreferredAllocationRequest, DevicePluginOptions,
    Empty, PreStartContainerRequest, PreferredAllocationRequest,
};
use coracle_device_api::tonic::transport::Channel;
use coracle_device_api::tonic::{Code, Status, Streaming};
use coracle_device_api::{ConnectError, PluginClient, call, connect};
use coracle_model::ExtendedResource;
use tokio::time::{self, Instant};

use crate::answer::{self, Answer};
use crate::choose::Question;
use crate::inventory::Lists;
use crate::options::Deadlines;
use crate::state::{Shared, TooMany};

/// How long is waited before a socket is tried again that nobody listens on yet.
const CONNECT_AGAIN: Duration = Duration::from_millis(100);
/// How much time passes between two lists of a plugin that count: more, the longer they keep coming. Meanwhile none is read,
/// so that a plugin that says more waits, which its gRPC tells it.
const BETWEEN_LISTS: Pace = Pace { least: Duration::from_millis(50), most: Duration::from_millis(250) };
/// How long nothing may have come for the last list to be the newest there is: what had to wait comes quicker.
const QUIET: Duration = Duration::from_millis(5);
/// For how long the newest one is looked for, where the plugin is never quiet.
const SEARCH: Duration = Duration::from_millis(50);

/// A plugin that serves a resource.
pub(crate) struct Endpoint {
    /// Which endpoint it is, of those there were.
    pub(crate) id: u64,
    pub(crate) options: DevicePluginOptions,
    client: PluginClient,
    deadlines: Deadlines,
}

/// How often something is done that somebody else asks for.
struct Pace {
    least: Duration,
    most: Duration,
}

/// Who has registered.
pub(crate) struct Registered {
    pub(crate) resource: ExtendedResource,
    pub(crate) socket: PathBuf,
    /// What it wants to be asked, if it has said so.
    pub(crate) options: Option<DevicePluginOptions>,
}

/// Why a plugin is not listened to any more.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("{0} failed: {message}", message = .1.message())]
    Call(&'static str, Status),
    #[error("it has ended the stream of its devices")]
    Stream,
    #[error("{0}")]
    Devices(String),
}

/// Takes up a plugin, in a task of its own.
///
/// # Errors
/// There are too many.
pub(crate) fn take_up(shared: &Arc<Shared>, registered: Registered) -> Result<(), TooMany> {
    let resource = registered.resource.clone();
    let id = shared.lock().register(&resource)?;
    let task = tokio::spawn(serve(Arc::downgrade(shared), id, shared.deadlines, registered));
    shared.lock().served_by(&resource, id, task.abort_handle());
    Ok(())
}

/// Listens to a plugin until it ends, and waits for it to come back: that it does ends this task.
async fn serve(shared: Weak<Shared>, id: u64, deadlines: Deadlines, registered: Registered) {
    let resource = registered.resource.clone();
    let Err(end) = listen(&shared, id, deadlines, registered).await;
    tracing::warn!(%resource, reason = %end, "a device plugin is gone");
    let gone = |shared: Arc<Shared>| shared.lock().unhealthy(&resource, id, true);
    shared.upgrade().map(gone);
    time::sleep(deadlines.grace).await;
    tracing::warn!(%resource, "the device plugin did not come back: its devices are forgotten");
    let forget = |shared: Arc<Shared>| shared.lock().forget(&resource, id);
    shared.upgrade().map(forget);
}

/// That never happens.
enum Never {}

async fn listen(
    shared: &Weak<Shared>,
    id: u64,
    deadlines: Deadlines,
    registered: Registered,
) -> Result<Never, End> {
    let Registered { resource, socket, options } = registered;
    let client = PluginClient::new(reach(&socket, deadlines.connect).await?);
    let options = match options {
        Some(options) => options,
        None => {
            match call(deadlines.info, Empty {}, |request| client.get_device_plugin_options(request)).await {
                Ok(options) => options,
                Err(status) if status.code() == Code::Unimplemented => DevicePluginOptions::default(),
                Err(status) => return Err(End::Call("GetDevicePluginOptions", status)),
            }
        }
    };
    let endpoint = Arc::new(Endpoint { id, options, client, deadlines });
    // A plugin may answer when it has devices to tell of, and not before.
    let lists_of = endpoint.client.clone();
    let first = async {
        let mut stream = lists_of.list_and_watch().await.map_err(End::list)?;
        let list = next(&mut stream).await?;
        Ok::<_, End>((stream, list))
    };
    tokio::pin!(first);
    let (mut stream, mut list) = match time::timeout(deadlines.list, &mut first).await {
        Ok(heard) => heard?,
        Err(_) => {
            not_heard(shared, &resource, id);
            first.await?
        }
    };
    let (mut lists, mut pause, mut ended) = (Lists::default(), Duration::ZERO, None);
    loop {
        if let Some((devices, problem)) = lists.read(&list).map_err(End::Devices)? {
            if let Some(problem) = problem {
                tracing::warn!(%resource, problem, "a device plugin names what is not quite right");
            }
            let (count, healthy) = (devices.len(), devices.values().filter(|device| device.healthy).count());
            if let Some(shared) = shared.upgrade()
                && shared.lock().listed(&resource, &endpoint, devices)
            {
                tracing::info!(%resource, devices = count, healthy, "devices changed");
            }
        }
        if let Some(end) = ended {
            return Err(end);
        }
        let counted = Instant::now();
        time::sleep(pause).await;
        list = next(&mut stream).await?;
        if Pace::is_pressed(pause, counted.elapsed()) {
            (list, ended) = newest(&mut stream, list).await;
        }
        pause = BETWEEN_LISTS.after(pause, counted.elapsed());
    }
}

/// The next list of a plugin.
async fn next(stream: &mut Streaming<Bytes>) -> Result<Bytes, End> {
    stream.message().await.map_err(End::list)?.ok_or(End::Stream)
}

/// The last of the lists that come right behind this one, and why there will be no more. Some were on their way while nothing
/// was read, and the plugin may have written others down that had to wait: were each to count, the last would be told many
/// pauses late.
async fn newest(stream: &mut Streaming<Bytes>, mut list: Bytes) -> (Bytes, Option<End>) {
    let begin = Instant::now();
    while begin.elapsed() < SEARCH {
        match time::timeout(QUIET, next(stream)).await {
            Ok(Ok(later)) => list = later,
            Ok(Err(end)) => return (list, Some(end)),
            Err(_) => break,
        }
    }
    (list, None)
}

/// What an earlier plugin named is not believed any longer.
fn not_heard(shared: &Weak<Shared>, resource: &ExtendedResource, id: u64) {
    tracing::warn!(%resource, "a device plugin has registered, and names no devices");
    if let Some(shared) = shared.upgrade() {
        shared.lock().unhealthy(resource, id, false);
    }
}

/// Connects to a plugin that may begin to listen only when it has registered.
async fn reach(socket: &std::path::Path, within: Duration) -> Result<Channel, ConnectError> {
    let until = Instant::now() + within;
    loop {
        match connect(socket, within).await {
            Err(ConnectError::Refused { .. }) if Instant::now() + CONNECT_AGAIN < until => {
                time::sleep(CONNECT_AGAIN).await;
            }
            connected => return connected,
        }
    }
}

// === impl End ===

impl End {
    /// The stream of devices has failed.
    fn list(status: Status) -> Self {
        Self::Call("ListAndWatch", status)
    }
}

// === impl Pace ===

impl Pace {
    /// How long to pause now, if the last pause was that long, and it was done again after so much time.
    fn after(&self, pause: Duration, elapsed: Duration) -> Duration {
        if Self::is_pressed(pause, elapsed) { (2 * pause).min(self.most) } else { self.least }
    }

    /// Whether it is asked for more often than that.
    fn is_pressed(pause: Duration, elapsed: Duration) -> bool {
        elapsed < 2 * pause
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// Which devices the plugin would rather give. What it says that was not offered is left out.
    pub(crate) async fn prefer(&self, question: &Question) -> Result<BTreeSet<String>, Status> {
        let request = PreferredAllocationRequest {
            container_requests: vec![ContainerPreferredAllocationRequest {
                available_device_i_ds: question.available.clone(),
                must_include_device_i_ds: question.must_include.clone(),
                allocation_size: i32::try_from(question.size).unwrap_or(i32::MAX),
            }],
        };
        let ask = |request| self.client.get_preferred_allocation(request);
        let answer = call(self.deadlines.prefer, request, ask).await?;
        let offered: BTreeSet<&String> = question.available.iter().collect();
        let said = answer.container_responses.into_iter().next().map(|one| one.device_i_ds);
        Ok(said.unwrap_or_default().into_iter().filter(|id| offered.contains(id)).collect())
    }

    /// What to do to make devices available in a container.
    pub(crate) async fn allocate(&self, devices: &BTreeSet<String>) -> Result<Answer, String> {
        let one = ContainerAllocateRequest { devices_ids: devices.iter().cloned().collect() };
        let request = AllocateRequest { container_requests: vec![one] };
        let ask = |request| self.client.allocate(request);
        let answer = call(self.deadlines.allocate, request, ask).await;
        answer::read(answer.map_err(|status| status.message().to_owned())?)
    }

    /// Has the plugin prepare devices for the start of a container.
    pub(crate) async fn pre_start(&self, devices: &BTreeSet<String>) -> Result<(), Status> {
        let request = PreStartContainerRequest { devices_ids: devices.iter().cloned().collect() };
        let ask = |request| self.client.pre_start_container(request);
        call(self.deadlines.pre_start, request, ask).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_lists_keep_coming_the_fewer_count() {
        let milliseconds = Duration::from_millis;
        let mut pause = Duration::ZERO;
        let mut pauses = Vec::new();
        for elapsed in [5, 50, 100, 200, 499, 500, 100, 51, 1000] {
            pause = BETWEEN_LISTS.after(pause, milliseconds(elapsed));
            pauses.push(pause);
        }
        assert_eq!(pauses, [50, 100, 200, 250, 250, 50, 50, 100, 50].map(milliseconds));
    }
}
