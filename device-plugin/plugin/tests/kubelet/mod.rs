//! A kubelet, as far as a plugin sees one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coracle_device_api::deviceplugin::device_plugin_client::DevicePluginClient;
use coracle_device_api::deviceplugin::registration_server::{Registration, RegistrationServer};
use coracle_device_api::deviceplugin::{
    AllocateRequest, ContainerAllocateRequest, ContainerAllocateResponse,
    ContainerPreferredAllocationRequest, DevicePluginOptions, Empty, ListAndWatchResponse,
    PreferredAllocationRequest, RegisterRequest,
};
use coracle_device_api::tonic::service::Routes;
use coracle_device_api::tonic::transport::Channel;
use coracle_device_api::tonic::{self, Request, Response, Status, Streaming};
use coracle_device_api::{Listener, connect, serve};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(60);

pub(crate) struct Kubelet {
    directory: PathBuf,
    registered: mpsc::UnboundedReceiver<RegisterRequest>,
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

pub(crate) struct Client(DevicePluginClient<Channel>);

pub(crate) struct Lists(Streaming<ListAndWatchResponse>);

struct Service {
    registered: mpsc::UnboundedSender<RegisterRequest>,
    refusals: AtomicUsize,
}

/// What a list says, in short.
pub(crate) fn health(devices: &[(&str, bool)]) -> Vec<(String, bool)> {
    devices.iter().map(|(id, healthy)| ((*id).to_owned(), *healthy)).collect()
}

#[tonic::async_trait]
impl Registration for Service {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<Empty>, Status> {
        let refused =
            self.refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if refused.is_ok() {
            return Err(Status::unavailable("not yet"));
        }
        let _ = self.registered.send(request.into_inner());
        Ok(Response::new(Empty {}))
    }
}

impl Kubelet {
    /// Empties the directory and listens, as a kubelet does when it starts.
    pub(crate) fn start(directory: &Path) -> Self {
        Self::refusing(directory, 0)
    }

    /// The same, and refuses so many who would register.
    pub(crate) fn refusing(directory: &Path, refusals: usize) -> Self {
        fs::create_dir_all(directory).expect("a directory");
        for entry in fs::read_dir(directory).expect("a directory") {
            // A plugin may be about to remove it itself.
            let _ = fs::remove_file(entry.expect("an entry").path());
        }
        let listener = Listener::bind(directory.join("kubelet.sock")).expect("a socket");
        let (sender, registered) = mpsc::unbounded_channel();
        let service = Service { registered: sender, refusals: AtomicUsize::new(refusals) };
        let (end, ended) = oneshot::channel::<()>();
        let routes = Routes::new(RegistrationServer::new(service));
        let task = tokio::spawn(async move {
            serve(listener, routes, async move { drop(ended.await) }).await.expect("it is served");
        });
        Self { directory: directory.to_owned(), registered, end, task }
    }

    /// The next plugin that registers.
    pub(crate) async fn registered(&mut self) -> RegisterRequest {
        timeout(LONG, self.registered.recv()).await.expect("somebody registers").expect("it is served")
    }

    /// The next plugin that registers and can be spoken with: a socket that a starting kubelet removes may be registered just
    /// before, and is made again.
    pub(crate) async fn connected(&mut self) -> (RegisterRequest, Client) {
        loop {
            let registered = self.registered().await;
            if let Ok(channel) = connect(&self.directory.join(&registered.endpoint), LONG).await {
                return (registered, Client(DevicePluginClient::new(channel)));
            }
        }
    }

    pub(crate) async fn client(&self, registered: &RegisterRequest) -> Client {
        let channel = connect(&self.directory.join(&registered.endpoint), LONG).await.expect("it is served");
        Client(DevicePluginClient::new(channel))
    }

    pub(crate) async fn end(self) {
        drop(self.end);
        timeout(LONG, self.task).await.expect("it ends").expect("it ends well");
    }
}

impl Client {
    pub(crate) async fn options(&mut self) -> DevicePluginOptions {
        self.0.get_device_plugin_options(Empty {}).await.expect("options").into_inner()
    }

    pub(crate) async fn watch(&mut self) -> Lists {
        Lists(self.0.list_and_watch(Empty {}).await.expect("a stream").into_inner())
    }

    pub(crate) async fn prefer(&mut self, available: &[&str], must: &[&str], size: i32) -> Vec<String> {
        let request = ContainerPreferredAllocationRequest {
            available_device_i_ds: owned(available),
            must_include_device_i_ds: owned(must),
            allocation_size: size,
        };
        let request = PreferredAllocationRequest { container_requests: vec![request] };
        let answer = self.0.get_preferred_allocation(request).await.expect("an answer").into_inner();
        answer.container_responses.into_iter().flat_map(|it| it.device_i_ds).collect()
    }

    pub(crate) async fn allocate(
        &mut self,
        containers: &[&[&str]],
    ) -> Result<Vec<ContainerAllocateResponse>, Status> {
        let one = |ids: &&[&str]| ContainerAllocateRequest { devices_ids: owned(ids) };
        let request = AllocateRequest { container_requests: containers.iter().map(one).collect() };
        Ok(self.0.allocate(request).await?.into_inner().container_responses)
    }
}

impl Lists {
    pub(crate) async fn next(&mut self) -> Vec<(String, bool)> {
        let list = timeout(LONG, self.0.message())
            .await
            .expect("a list")
            .expect("the stream lasts")
            .expect("the stream lasts");
        list.devices.into_iter().map(|it| (it.id, it.health == "Healthy")).collect()
    }
}

fn owned(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}
