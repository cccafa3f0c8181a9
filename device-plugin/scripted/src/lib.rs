//! A device plugin that does what it is told to, over real sockets: what tests and benchmarks have a node speak with.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "what fails here has failed the test")]

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use coracle_device_api::deviceplugin::device_plugin_server::{DevicePlugin, DevicePluginServer};
use coracle_device_api::deviceplugin::registration_client::RegistrationClient;
use coracle_device_api::deviceplugin::*;
use coracle_device_api::tonic::service::Routes;
use coracle_device_api::tonic::{self, Request, Response, Status};
use coracle_device_api::{Listener, call, connect, serve};
use futures_util::stream::{self, Stream, StreamExt};
use tokio::sync::watch;

/// Longer than anything takes in a test.
const LONG: Duration = Duration::from_secs(60);

/// What devices bring into a container.
pub type Brings = dyn Fn(&[String]) -> ContainerAllocateResponse + Send + Sync;

/// What it does when it is asked something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Does {
    /// It answers.
    #[default]
    Answer,
    /// It answers that it failed, and why.
    Fail(&'static str),
    /// It does not answer.
    Hang,
    /// Answers what cannot be.
    Lie,
    /// Answers in few octets what takes much memory.
    Flood,
}

/// What a plugin says before its devices: a list by its place, as long as there is one. All of them are sent.
pub type Says = dyn Fn(usize) -> Option<Vec<Device>> + Send + Sync;

/// How many elements the answer of a plugin that floods has.
const FLOOD: usize = 200_000;

/// What the test says, and what the plugin was asked.
#[derive(Default)]
pub struct Script {
    /// What it wants to be asked.
    pub options: DevicePluginOptions,
    /// What it does when it is asked what it wants to be asked.
    pub introduce: Does,
    /// What it does when it is to allocate.
    pub allocate: Does,
    /// What it does when it is asked what it would rather give.
    pub prefer: Does,
    /// What it does before a container starts.
    pub pre_start: Does,
    /// What its devices bring; where nothing is said, they bring nothing.
    pub brings: Option<Arc<Brings>>,
    /// What it says one after the other, before it says which devices it has.
    pub says: Option<Arc<Says>>,
    /// What it would rather give.
    pub favourites: Vec<String>,
    /// For which devices it was to allocate.
    pub allocated: Vec<Vec<String>>,
    /// Which devices were in containers that started.
    pub started: Vec<Vec<String>>,
    /// What it was asked about what it would rather give.
    pub questions: Vec<ContainerPreferredAllocationRequest>,
}

#[derive(Clone)]
struct Service {
    script: Arc<Mutex<Script>>,
    devices: watch::Receiver<Option<Vec<Device>>>,
}

/// A plugin that serves, until it is dropped.
pub struct Plugin {
    service: Service,
    /// Its devices; none yet, and it names none.
    pub devices: watch::Sender<Option<Vec<Device>>>,
    /// Where it listens.
    pub socket: PathBuf,
    /// Ends it.
    end: watch::Sender<()>,
}

impl Plugin {
    /// Listens at `socket`, with these devices.
    pub fn start(socket: PathBuf, script: Script, devices: Vec<Device>) -> Self {
        let (devices, listening) = watch::channel(Some(devices));
        let script = Arc::new(Mutex::new(script));
        let (end, _) = watch::channel(());
        let plugin = Self { service: Service { script, devices: listening }, devices, socket, end };
        plugin.listen();
        plugin
    }

    /// Listens, also again, where a node that started has removed its socket.
    pub fn listen(&self) {
        let listener = Listener::bind(&self.socket).unwrap();
        let mut ended = self.end.subscribe();
        let end = async move { drop(ended.changed().await) };
        tokio::spawn(serve(listener, Routes::new(DevicePluginServer::new(self.service.clone())), end));
    }

    /// What it does, and was asked.
    pub fn script(&self) -> MutexGuard<'_, Script> {
        self.service.script.lock().unwrap()
    }

    /// Tells the node that listens in `plugin_dir` that it is there.
    ///
    /// # Errors
    /// The node's.
    pub async fn register(&self, plugin_dir: &Path, resource: &str) -> Result<(), Status> {
        let options = self.script().options;
        register(
            plugin_dir,
            "v1beta1",
            self.socket.file_name().unwrap().to_str().unwrap(),
            resource,
            Some(options),
        )
        .await
    }

    /// Names devices, all of them healthy.
    pub fn name(&self, ids: &[&str]) {
        self.devices.send_replace(Some(healthy(ids)));
    }
}

/// Registers with the node that listens in `plugin_dir`.
///
/// # Errors
/// The node's, and that nobody is there.
pub async fn register(
    plugin_dir: &Path,
    version: &str,
    endpoint: &str,
    resource: &str,
    options: Option<DevicePluginOptions>,
) -> Result<(), Status> {
    let channel = connect(&plugin_dir.join(KUBELET_SOCKET), LONG).await;
    let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
    let mut client = RegistrationClient::new(channel);
    let request = RegisterRequest {
        version: version.to_owned(),
        endpoint: endpoint.to_owned(),
        resource_name: resource.to_owned(),
        options,
    };
    call(LONG, request, |request| client.register(request)).await.map(|_| ())
}

/// Devices that work.
pub fn healthy(ids: &[&str]) -> Vec<Device> {
    ids.iter().map(|id| device(id, HEALTHY)).collect()
}

/// A device of no topology.
pub fn device(id: &str, health: &str) -> Device {
    Device { id: id.to_owned(), health: health.to_owned(), topology: None }
}

/// What comes of a call that fails or hangs.
async fn otherwise(does: Does) -> Result<(), Status> {
    match does {
        Does::Answer | Does::Lie | Does::Flood => Ok(()),
        Does::Fail(why) => Err(Status::internal(why)),
        Does::Hang => std::future::pending().await,
    }
}

#[tonic::async_trait]
impl DevicePlugin for Service {
    type ListAndWatchStream = Pin<Box<dyn Stream<Item = Result<ListAndWatchResponse, Status>> + Send>>;

    async fn get_device_plugin_options(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<DevicePluginOptions>, Status> {
        let (does, options) = {
            let script = self.script.lock().unwrap();
            (script.introduce, script.options)
        };
        otherwise(does).await?;
        Ok(Response::new(options))
    }

    async fn list_and_watch(&self, _: Request<Empty>) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let mut devices = self.devices.clone();
        devices.mark_changed();
        let stream = stream::unfold(devices, |mut devices| async move {
            loop {
                // It ends with the plugin.
                devices.changed().await.ok()?;
                let now = devices.borrow_and_update().clone();
                if let Some(now) = now {
                    return Some((Ok(ListAndWatchResponse { devices: now }), devices));
                }
            }
        });
        let says = self.script.lock().unwrap().says.clone();
        let first = (0..).map_while(move |at| says.as_ref().and_then(|says| says(at)));
        let first = stream::iter(first.map(|devices| Ok(ListAndWatchResponse { devices })));
        Ok(Response::new(Box::pin(first.chain(stream))))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        let (does, favourites) = {
            let mut script = self.script.lock().unwrap();
            if !script.options.get_preferred_allocation_available {
                return Err(Status::unimplemented("it has said that it has no preference"));
            }
            script.questions.extend(request.into_inner().container_requests);
            (script.prefer, script.favourites.clone())
        };
        otherwise(does).await?;
        let device_i_ds = match does {
            Does::Lie => vec!["none".to_owned(); 3],
            Does::Flood => vec![String::new(); FLOOD],
            _ => favourites,
        };
        let container_responses = vec![ContainerPreferredAllocationResponse { device_i_ds }];
        Ok(Response::new(PreferredAllocationResponse { container_responses }))
    }

    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        let requests = request.into_inner().container_requests;
        let (does, brings) = {
            let mut script = self.script.lock().unwrap();
            script.allocated.extend(requests.iter().map(|one| one.devices_ids.clone()));
            (script.allocate, script.brings.clone())
        };
        otherwise(does).await?;
        let answer = |request: &ContainerAllocateRequest| {
            let mut one = brings.as_ref().map(|brings| brings(&request.devices_ids)).unwrap_or_default();
            match does {
                Does::Lie => one.devices.push(DeviceSpec {
                    container_path: "/dev/x".to_owned(),
                    host_path: "/dev/null".to_owned(),
                    permissions: "rwx".to_owned(),
                }),
                Does::Flood => one.devices.resize(FLOOD, DeviceSpec::default()),
                Does::Answer | Does::Fail(_) | Does::Hang => {}
            }
            one
        };
        Ok(Response::new(AllocateResponse { container_responses: requests.iter().map(answer).collect() }))
    }

    async fn pre_start_container(
        &self,
        request: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        let does = {
            let mut script = self.script.lock().unwrap();
            if !script.options.pre_start_required {
                return Err(Status::unimplemented("it has said that it prepares nothing"));
            }
            script.started.push(request.into_inner().devices_ids);
            script.pre_start
        };
        otherwise(does).await?;
        Ok(Response::new(PreStartContainerResponse {}))
    }
}
