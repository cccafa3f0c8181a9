//! The device manager.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use coracle_device_api::deviceplugin::KUBELET_SOCKET;
use coracle_device_api::deviceplugin::registration_server::RegistrationServer;
use coracle_device_api::tonic::service::Routes;
use coracle_device_api::{Listener, MAX_MESSAGE, serve};
use coracle_linux::remove_if_there;
use coracle_model::{DeviceHealth, ExtendedResource, Name, Pod, PodDevices, PodUid};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::allocate;
use crate::answer::{self, Answer};
use crate::changes::Changes;
use crate::checkpoint::Checkpoint;
use crate::choose::Topology;
use crate::claims::{Claims, Containers, bare, devices};
use crate::error::{AllocateError, OpenError, PrepareError, ReleaseError};
use crate::inventory::Amount;
use crate::options::{Options, TopologyPolicy};
use crate::podresources::{ActivePods, PodResources};
use crate::registration::{LONGEST_INTRODUCTION, Register};
use crate::registry;
use crate::sockets::is_socket;
use crate::state::{Shared, State};
use crate::store::Store;

/// With how many NUMA nodes topology can be reckoned with: every set of them is looked at.
const MOST_NUMA_NODES: u32 = 8;

/// Device plugins, their devices, and who has them. When it is dropped, its tasks end; what pods have stays on record.
pub struct DeviceManager {
    shared: Arc<Shared>,
    store: Store,
    /// Ended with the manager.
    tasks: JoinSet<()>,
    /// Closed with the manager: whoever is served then is served to its end.
    _ending: Vec<oneshot::Sender<()>>,
}

impl DeviceManager {
    /// Takes up what pods have, and begins to listen to plugins. Who registered with an agent before is told to do so
    /// again, by the removal of its socket.
    ///
    /// `known` is every pod of which something may run, or to which it was said that devices are its own, with these
    /// devices: what the checkpoint says of other pods is forgotten, and what it does not say of these (it may be lost, or
    /// damaged) is taken from here.
    ///
    /// # Errors
    /// A directory, a socket or the checkpoint cannot be used.
    pub async fn open(options: Options, known: &BTreeMap<PodUid, PodDevices>) -> Result<Self, OpenError> {
        let Options { plugin_dir, registry_dir, checkpoint, policy, scope, numa_nodes, deadlines } = options;
        if policy != TopologyPolicy::None && numa_nodes.len() > MOST_NUMA_NODES {
            return Err(OpenError::NumaNodes { nodes: numa_nodes.len() });
        }
        let claims = taken_up(&checkpoint, known)?;
        remove_sockets(&plugin_dir)
            .map_err(|error| OpenError::PluginDir { path: plugin_dir.clone(), error })?;
        let listener = Listener::bind(plugin_dir.join(KUBELET_SOCKET))?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(claims)),
            topology: Topology { policy, scope, nodes: numa_nodes },
            deadlines,
            plugin_dir,
        });
        let mut manager =
            Self { shared, store: Store::new(checkpoint), tasks: JoinSet::new(), _ending: Vec::new() };
        let register = Register(Arc::downgrade(&manager.shared));
        let register = RegistrationServer::new(register).max_decoding_message_size(LONGEST_INTRODUCTION);
        manager.serve(listener, Routes::new(register));
        if let Some(directory) = registry_dir {
            let watch = registry::watch(&manager.shared, &directory)
                .map_err(|error| OpenError::RegistryDir { path: directory, error })?;
            manager.tasks.spawn(watch);
        }
        Ok(manager)
    }

    /// Serves the podresources API, with these pods.
    ///
    /// # Errors
    /// The socket cannot be listened on.
    pub fn serve_pod_resources(&mut self, socket: &Path, pods: impl ActivePods) -> Result<(), OpenError> {
        let listener = Listener::bind(socket)?;
        let service = PodResources::new(Arc::downgrade(&self.shared), pods).service(MAX_MESSAGE);
        self.serve(listener, Routes::new(service));
        Ok(())
    }

    fn serve(&mut self, listener: Listener, services: Routes) {
        let (ending, ended) = oneshot::channel::<()>();
        self._ending.push(ending);
        // Not one of the tasks that are ended: what was accepted would go on without it, and nobody would tell it to end.
        tokio::spawn(async move {
            let end = async move { drop(ended.await) };
            if let Err(error) = serve(listener, services, end).await {
                tracing::error!(%error, "device plugins cannot be heard");
            }
        });
    }

    /// Gives each container of the pod the devices it asks for, or none of them any. That is on record when this returns,
    /// and stays so until they are released. What the pod has already is told again. When the future is dropped, nothing
    /// was given.
    ///
    /// # Errors
    /// Each says whether to wait: for [`AllocateError::Missing`] and [`AllocateError::Busy`] until the resource changes
    /// ([`watch`](Self::watch)), for [`AllocateError::Insufficient`] if one of the [`holders`](Self::holders) is about to
    /// end.
    pub async fn allocate(&self, pod: &Pod) -> Result<PodDevices, AllocateError> {
        allocate::allocate(&self.shared, &self.store, pod).await
    }

    /// What the pod has.
    pub fn given(&self, pod: &PodUid) -> Option<PodDevices> {
        self.shared.lock().claims.of(pod).map(devices)
    }

    /// Has plugins prepare the devices of a container that is about to be created, those that want to
    /// (`PreStartContainer`), and tells what the devices bring.
    ///
    /// # Errors
    /// The container has not the devices it asks for, or a plugin did not do what it has to. To be tried again.
    pub async fn prepare(&self, pod: &Pod, container: &Name) -> Result<Answer, PrepareError> {
        allocate::prepare(&self.shared, &self.store, pod, container).await
    }

    /// Takes back what the pod was given, and what is being given to it. For when nothing of it can run any more.
    ///
    /// # Errors
    /// That could not be put on record. The devices are free all the same.
    pub async fn release(&self, pod: &PodUid) -> Result<(), ReleaseError> {
        let version = {
            let mut state = self.shared.lock();
            let Some(resources) = state.claims.remove(pod) else { return Ok(()) };
            resources.iter().for_each(|resource| state.listeners.tell(resource));
            state.version += 1;
            state.version
        };
        let recorded = self.store.record(&self.shared, version).await;
        recorded.map_err(|error| ReleaseError { path: self.store.path().to_owned(), error })
    }

    /// The pods that have devices of a resource, or are being given some.
    pub fn holders(&self, resource: &ExtendedResource) -> BTreeSet<PodUid> {
        self.shared.lock().claims.holders(resource)
    }

    /// How a device is.
    pub fn health(&self, resource: &ExtendedResource, device: &str) -> DeviceHealth {
        self.shared.lock().health(resource, device)
    }

    /// What the node has of each resource. One whose plugin is gone for good is not there, and in a node's status 0.
    pub fn inventory(&self) -> BTreeMap<ExtendedResource, Amount> {
        self.shared.lock().inventory()
    }

    /// Tells from now on which resources change.
    pub fn watch(&self) -> Changes {
        self.shared.lock().listeners.add()
    }
}

impl Drop for DeviceManager {
    fn drop(&mut self) {
        self.shared.lock().end();
    }
}

/// What pods have, by the checkpoint, and by what is known of them where it says nothing.
fn taken_up(checkpoint: &Path, known: &BTreeMap<PodUid, PodDevices>) -> Result<Claims, OpenError> {
    let path = || checkpoint.to_owned();
    let read = Checkpoint::read(checkpoint).map_err(|error| OpenError::Checkpoint { path: path(), error })?;
    let mut recorded = match read {
        Some(Ok(checkpoint)) => checkpoint.pods,
        Some(Err(damaged)) => {
            let path = checkpoint.display();
            tracing::error!(%path, %damaged, "the record of who has which device is made anew, from the records of pods");
            BTreeMap::new()
        }
        None => BTreeMap::new(),
    };
    let mut claims = Claims::default();
    for (uid, given) in known {
        let has: Containers =
            recorded.remove(uid).filter(|has| devices(has) == *given).unwrap_or_else(|| bare(given));
        if !has.is_empty() {
            claims.restore(uid, has);
        }
    }
    Ok(claims)
}

/// Removes what plugins listen on, and links to that, as the kubelet does when it starts: they look whether their socket is
/// there.
fn remove_sockets(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if is_socket(&path) {
            remove_if_there(&path)?;
        }
    }
    Ok(())
}

/// Puts the answers of a container's resources together.
pub(crate) fn put_together(claims: &BTreeMap<ExtendedResource, crate::claims::Claim>) -> Answer {
    answer::together(claims.values().filter_map(|claim| claim.answer.as_ref()))
}
