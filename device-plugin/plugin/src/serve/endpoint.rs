//! The socket of one resource, and its registration.
//!
//! ```text
//! bind -> serve -> register -> wait -.
//!  ^                  ^--------------+-- a kubelet came, and our socket is there
//!  `---------------------------------'-- our socket is not there
//! ```

use std::future::Future;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use coracle_device_api::deviceplugin::{
    KUBELET_SOCKET, RegisterRequest, VERSION, device_plugin_server::DevicePluginServer,
    registration_client::RegistrationClient,
};
use coracle_device_api::tonic::service::Routes;
use coracle_device_api::{Listener, MAX_MESSAGE, call, connect, serve};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::directory::Generation;
use super::service::{Service, options};
use crate::device::Resource;

/// How long a kubelet may take to let a plugin register: it calls back before it answers.
const REGISTER: Duration = Duration::from_secs(10);
/// Between two attempts, at first and at most.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_AT_MOST: Duration = Duration::from_secs(60);
/// How long a server may take to come to its end.
const END: Duration = Duration::from_secs(2);
/// The longest path a unix socket can have, with its end (`sockaddr_un`).
const LONGEST_PATH: usize = 107;

/// A resource that is served.
pub(crate) struct Endpoint {
    directory: PathBuf,
    file: String,
    resource: watch::Receiver<Arc<Resource>>,
    generation: watch::Receiver<Generation>,
    end: CancellationToken,
}

/// A socket that is served.
struct Served {
    /// Which socket it is: another may have its path.
    identity: Option<(u64, u64)>,
    end: CancellationToken,
    task: JoinHandle<()>,
}

/// What became of a wait.
enum Woken {
    /// Something happened in the directory.
    Directory,
    /// It is over.
    End,
}

// === impl Endpoint ===

impl Endpoint {
    /// Serves what `resource` says in this directory, until `end`.
    pub(crate) fn new(
        directory: &Path,
        resource: watch::Receiver<Arc<Resource>>,
        generation: watch::Receiver<Generation>,
        end: CancellationToken,
    ) -> Self {
        let file = socket_name(directory, &resource.borrow().name);
        Self { directory: directory.to_owned(), file, resource, generation, end }
    }

    /// Serves and registers. What fails is told and tried again.
    pub(crate) async fn run(mut self) {
        let mut pause = AGAIN;
        while !self.end.is_cancelled() {
            let seen = *self.generation.borrow_and_update();
            let served = match self.bind() {
                Ok(served) => served,
                Err(error) => {
                    tracing::error!(resource = self.name(), %error, "a resource cannot be served");
                    if matches!(self.wait(sleep(pause)).await, Woken::End) {
                        return;
                    }
                    pause = (pause * 2).min(AGAIN_AT_MOST);
                    continue;
                }
            };
            pause = AGAIN;
            self.keep_registered(&served, seen).await;
            if self.end.is_cancelled() && served.is_at(&self.path()) {
                // A kubelet that comes later is not to find a socket that nobody serves. Its server may have ended already.
                let _ = std::fs::remove_file(self.path());
            }
            served.end().await;
        }
    }

    fn bind(&self) -> Result<Served, coracle_device_api::ServeError> {
        let listener = Listener::bind(self.path())?;
        let identity = identity(&self.path());
        let end = self.end.child_token();
        let service = Service::new(self.resource.clone(), end.clone());
        let service = DevicePluginServer::new(service).max_decoding_message_size(MAX_MESSAGE);
        let (ended, name) = (end.clone(), self.name());
        let task = tokio::spawn(async move {
            let over = async move { ended.cancelled().await };
            if let Err(error) = serve(listener, Routes::new(service), over).await {
                tracing::error!(resource = name, %error, "a resource is not served any more");
            }
        });
        Ok(Served { identity, end, task })
    }

    /// Registers, and again with each kubelet that comes, for as long as the socket is there.
    async fn keep_registered(&mut self, served: &Served, mut seen: Generation) {
        let mut pause = AGAIN;
        let mut registered = false;
        loop {
            if !served.is_there(&self.path()) {
                return;
            }
            if !registered {
                match self.register().await {
                    Ok(true) => {
                        tracing::info!(
                            resource = self.name(),
                            socket = self.file,
                            "registered with the kubelet"
                        );
                        registered = true;
                    }
                    // Its socket will be told of.
                    Ok(false) => {}
                    Err(why) => {
                        tracing::warn!(resource = self.name(), why, again_in = ?pause, "cannot register with the kubelet")
                    }
                }
            }
            let there = self.directory.join(KUBELET_SOCKET).exists();
            let woken = if registered || !there {
                self.wait(std::future::pending::<()>()).await
            } else {
                let woken = self.wait(sleep(pause)).await;
                pause = (pause * 2).min(AGAIN_AT_MOST);
                woken
            };
            if matches!(woken, Woken::End) {
                return;
            }
            let now = *self.generation.borrow_and_update();
            if now.kubelet != seen.kubelet {
                (registered, pause) = (false, AGAIN);
            }
            seen = now;
        }
    }

    /// Whether there was a kubelet to register with.
    async fn register(&self) -> Result<bool, String> {
        let kubelet = self.directory.join(KUBELET_SOCKET);
        if !kubelet.exists() {
            return Ok(false);
        }
        let request = RegisterRequest {
            version: VERSION.to_owned(),
            endpoint: self.file.clone(),
            resource_name: self.name(),
            options: Some(options()),
        };
        let register = async {
            let channel = connect(&kubelet, REGISTER).await.map_err(|error| error.to_string())?;
            let mut client = RegistrationClient::new(channel);
            let answer =
                call(REGISTER, request, |request| async move { client.register(request).await }).await;
            answer.map_err(|status| format!("the kubelet answers {:?}: {}", status.code(), status.message()))
        };
        tokio::select! {
            () = self.end.cancelled() => Ok(false),
            answer = register => answer.map(|_| true),
        }
    }

    async fn wait(&mut self, alarm: impl Future<Output = ()>) -> Woken {
        tokio::select! {
            () = self.end.cancelled() => Woken::End,
            // Nobody watches the directory any more: the plugin ends.
            changed = self.generation.changed() => if changed.is_ok() { Woken::Directory } else { Woken::End },
            () = alarm => Woken::Directory,
        }
    }

    fn name(&self) -> String {
        self.resource.borrow().name.clone()
    }

    fn path(&self) -> PathBuf {
        self.directory.join(&self.file)
    }
}

// === impl Served ===

impl Served {
    /// Whether it is served, at this path.
    fn is_there(&self, path: &Path) -> bool {
        self.is_at(path) && !self.task.is_finished()
    }

    /// Whether the socket of this path is its own.
    fn is_at(&self, path: &Path) -> bool {
        self.identity.is_some() && identity(path) == self.identity
    }

    async fn end(self) {
        self.end.cancel();
        let abort = self.task.abort_handle();
        if timeout(END, self.task).await.is_err() {
            abort.abort();
        }
    }
}

/// Device and inode.
fn identity(path: &Path) -> Option<(u64, u64)> {
    path.symlink_metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Whether a socket has a name that a resource's has.
pub(crate) fn is_socket_name(name: &str) -> bool {
    name.starts_with("coracle-") && name.ends_with(".sock")
}

/// The name of a resource's socket, different for each: shortened by a digest where a path would be too long.
fn socket_name(directory: &Path, resource: &str) -> String {
    let name = format!("coracle-{}.sock", resource.replace('/', "_"));
    let room = LONGEST_PATH.saturating_sub(directory.as_os_str().len() + 1);
    if name.len() <= room {
        return name;
    }
    // FNV-1a: names are of this plugin's own configuration, so there is nobody to make two alike.
    let digest = resource
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("coracle-{digest:016x}.sock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_have_names_a_socket_can_have() {
        let name = |resource| socket_name(Path::new("/var/lib/kubelet/device-plugins"), resource);
        assert_eq!(name("nvidia.com/gpu"), "coracle-nvidia.com_gpu.sock");
        let long = format!("{}.dev/{}", "x".repeat(60), "y".repeat(63));
        assert_eq!(name(&long).len(), "coracle-0123456789abcdef.sock".len());
        assert!(is_socket_name(&name(&long)) && is_socket_name(&name("nvidia.com/gpu")));
        assert_ne!(name(&long), name(&format!("{long}z")));
    }
}
