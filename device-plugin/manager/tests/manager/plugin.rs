//! A device plugin that does what it is told to, over real sockets.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use coracle_device_api::deviceplugin::device_plugin_server::{DevicePlugin, DevicePluginServer};
use coracle_device_api::deviceplugin::registration_client::RegistrationClient;
use coracle_device_api::deviceplugin::*;
use coracle_device_api::tonic::service::Routes;
use coracle_device_api::tonic::{self, Request, Response, Status};
use coracle_device_api::{Listener, call, connect, serve};
use futures_util::stream::{self, Stream};
use tokio::sync::watch;

use super::LONG;

/// What it does when it is asked something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Does {
    #[default]
    Answer,
    Fail,
    Hang,
    /// Answers what cannot be.
    Lie,
}

/// What the test says, and what the plugin was asked.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) options: DevicePluginOptions,
    pub(crate) allocate: Does,
    pub(crate) prefer: Does,
    pub(crate) pre_start: Does,
    /// What it would rather give.
    pub(crate) favourites: Vec<String>,
    pub(crate) allocated: Vec<Vec<String>>,
    pub(crate) started: Vec<Vec<String>>,
    pub(crate) questions: Vec<ContainerPreferredAllocationRequest>,
}

#[derive(Clone)]
struct Service {
    script: Arc<Mutex<Script>>,
    devices: watch::Receiver<Option<Vec<Device>>>,
}

/// A plugin that serves, until it is dropped.
pub(crate) struct Plugin {
    pub(crate) script: Arc<Mutex<Script>>,
    /// Its devices; none yet, and it names none.
    pub(crate) devices: watch::Sender<Option<Vec<Device>>>,
    pub(crate) socket: PathBuf,
    /// Ends it.
    _end: watch::Sender<()>,
}

impl Plugin {
    pub(crate) fn start(socket: PathBuf, script: Script, ids: &[&str]) -> Self {
        let (devices, listening) = watch::channel(Some(healthy(ids)));
        let script = Arc::new(Mutex::new(script));
        let service = Service { script: script.clone(), devices: listening };
        let listener = Listener::bind(&socket).unwrap();
        let (end, mut ended) = watch::channel(());
        let end_of = async move { drop(ended.changed().await) };
        tokio::spawn(serve(listener, Routes::new(DevicePluginServer::new(service)), end_of));
        Self { script, devices, socket, _end: end }
    }

    pub(crate) async fn register(&self, plugin_dir: &Path, resource: &str) -> Result<(), Status> {
        let options = self.script.lock().unwrap().options;
        register(
            plugin_dir,
            "v1beta1",
            self.socket.file_name().unwrap().to_str().unwrap(),
            resource,
            Some(options),
        )
        .await
    }

    pub(crate) fn name(&self, ids: &[&str]) {
        self.devices.send_replace(Some(healthy(ids)));
    }
}

pub(crate) async fn register(
    plugin_dir: &Path,
    version: &str,
    endpoint: &str,
    resource: &str,
    options: Option<DevicePluginOptions>,
) -> Result<(), Status> {
    let channel = connect(&plugin_dir.join(KUBELET_SOCKET), LONG).await.unwrap();
    let mut client = RegistrationClient::new(channel);
    let request = RegisterRequest {
        version: version.to_owned(),
        endpoint: endpoint.to_owned(),
        resource_name: resource.to_owned(),
        options,
    };
    call(LONG, request, |request| client.register(request)).await.map(|_| ())
}

pub(crate) fn healthy(ids: &[&str]) -> Vec<Device> {
    ids.iter().map(|id| device(id, HEALTHY)).collect()
}

pub(crate) fn device(id: &str, health: &str) -> Device {
    Device { id: id.to_owned(), health: health.to_owned(), topology: None }
}

/// What comes of a call that fails or hangs.
async fn otherwise(does: Does) -> Result<(), Status> {
    match does {
        Does::Answer | Does::Lie => Ok(()),
        Does::Fail => Err(Status::internal("the device is on fire")),
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
        Ok(Response::new(self.script.lock().unwrap().options))
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
        Ok(Response::new(Box::pin(stream)))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        let (does, favourites) = {
            let mut script = self.script.lock().unwrap();
            script.questions.extend(request.into_inner().container_requests);
            (script.prefer, script.favourites.clone())
        };
        otherwise(does).await?;
        let device_i_ds = if does == Does::Lie { vec!["none".to_owned(); 3] } else { favourites };
        let container_responses = vec![ContainerPreferredAllocationResponse { device_i_ds }];
        Ok(Response::new(PreferredAllocationResponse { container_responses }))
    }

    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        let requests = request.into_inner().container_requests;
        let does = {
            let mut script = self.script.lock().unwrap();
            script.allocated.extend(requests.iter().map(|one| one.devices_ids.clone()));
            script.allocate
        };
        otherwise(does).await?;
        let answer = |request: &ContainerAllocateRequest| {
            let mut one = ContainerAllocateResponse::default();
            one.envs.insert("DEVICES".to_owned(), request.devices_ids.join(","));
            let permissions = if does == Does::Lie { "rwx" } else { "rw" }.to_owned();
            let (host_path, container_path) = ("/dev/null".to_owned(), "/dev/x".to_owned());
            one.devices.push(DeviceSpec { container_path, host_path, permissions });
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
            script.started.push(request.into_inner().devices_ids);
            script.pre_start
        };
        otherwise(does).await?;
        Ok(Response::new(PreStartContainerResponse {}))
    }
}
