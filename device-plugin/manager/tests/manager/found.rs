//! Plugins that wait to be found.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coracle_device_api::pluginregistration::registration_server::{Registration, RegistrationServer};
use coracle_device_api::pluginregistration::{
    InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse,
};
use coracle_device_api::tonic::service::Routes;
use coracle_device_api::tonic::{self, Request, Response, Status};
use coracle_device_api::{Listener, serve};
use tokio::sync::mpsc;

use super::*;
use coracle_scripted_plugin::{Plugin, register};

struct Waits {
    info: PluginInfo,
    /// Whether it answers who it is.
    answers: Arc<AtomicBool>,
    told: Mutex<mpsc::UnboundedSender<RegistrationStatus>>,
}

#[tonic::async_trait]
impl Registration for Waits {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        if !self.answers.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(self.info.clone()))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        self.told.lock().unwrap().send(request.into_inner()).unwrap();
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

/// Waits at `socket`, and tells what it is told.
fn wait_at(
    socket: &Path,
    kind: &str,
    name: &str,
    endpoint: &Path,
    versions: &[&str],
) -> mpsc::UnboundedReceiver<RegistrationStatus> {
    wait_silently_at(socket, kind, name, endpoint, versions, Arc::new(AtomicBool::new(true)))
}

/// The same, and says who it is only once it `answers`.
fn wait_silently_at(
    socket: &Path,
    kind: &str,
    name: &str,
    endpoint: &Path,
    versions: &[&str],
    answers: Arc<AtomicBool>,
) -> mpsc::UnboundedReceiver<RegistrationStatus> {
    let (told, hears) = mpsc::unbounded_channel();
    let info = PluginInfo {
        r#type: kind.to_owned(),
        name: name.to_owned(),
        endpoint: endpoint.display().to_string(),
        supported_versions: versions.iter().map(|one| (*one).to_owned()).collect(),
    };
    let services = Routes::new(RegistrationServer::new(Waits { info, answers, told: Mutex::new(told) }));
    tokio::spawn(serve(Listener::bind(socket).unwrap(), services, std::future::pending()));
    hears
}

async fn heard(from: &mut mpsc::UnboundedReceiver<RegistrationStatus>) -> RegistrationStatus {
    tokio::time::timeout(LONG, from.recv()).await.expect("it is told").unwrap()
}

#[tokio::test]
async fn plugins_are_found_where_they_wait_and_told_what_comes_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let registry = directory.path().join("registry");
    let plugin = Plugin::start(directory.path().join("own.sock"), usual(), healthy(&["1"]));
    // One was there before the manager, others come when it is there, one of them in a new directory.
    let mut before =
        wait_at(&registry.join("a.sock"), "DevicePlugin", RESOURCE, &plugin.socket, &["v1beta1"]);
    let mut node = Node::open(directory, &BTreeMap::new(), |_| {}).await;
    assert_eq!(
        heard(&mut before).await,
        RegistrationStatus { plugin_registered: true, error: String::new() }
    );
    node.has(1, 1).await;
    assert_eq!(node.allocate(&pod("a", 1)).await.unwrap(), "1");

    let mut other =
        wait_at(&registry.join("csi/csi.sock"), "CSIPlugin", "csi.example.com", Path::new(""), &["1.0"]);
    let refused = heard(&mut other).await;
    assert!(!refused.plugin_registered);
    assert!(refused.error.contains("no handler registered for plugin type: CSIPlugin"), "{}", refused.error);
    let mut old =
        wait_at(&registry.join("old.sock"), "DevicePlugin", "example.com/y", &plugin.socket, &["v1alpha"]);
    assert!(heard(&mut old).await.error.contains("is not supported"));
    let mut bad = wait_at(&registry.join("bad.sock"), "DevicePlugin", "y", &plugin.socket, &["v1beta1"]);
    assert!(heard(&mut bad).await.error.contains("is invalid for extended resource"));
    assert_eq!(node.manager.inventory().len(), 1);

    // It is started again: another socket at the same place.
    drop(plugin);
    node.has(1, 0).await;
    let plugin = Plugin::start(node.directory.path().join("own.sock"), usual(), healthy(&["1", "2"]));
    let mut again = wait_at(&registry.join("a.sock"), "DevicePlugin", RESOURCE, &plugin.socket, &["v1beta1"]);
    assert!(heard(&mut again).await.plugin_registered);
    node.has(2, 2).await;
    drop(Arc::new(plugin));
}

#[tokio::test]
async fn one_that_does_not_say_who_it_is_holds_up_no_other_and_is_asked_again() {
    let mut node = Node::with(|options| options.deadlines.info = Duration::from_millis(200)).await;
    let registry = node.directory.path().join("registry");
    let plugin = Plugin::start(node.directory.path().join("own.sock"), usual(), healthy(&["1"]));
    let answers = Arc::new(AtomicBool::new(false));
    let mut silent = wait_silently_at(
        &registry.join("a.sock"),
        "DevicePlugin",
        "example.com/silent",
        &plugin.socket,
        &["v1beta1"],
        Arc::clone(&answers),
    );
    let mut other = wait_at(&registry.join("b.sock"), "DevicePlugin", RESOURCE, &plugin.socket, &["v1beta1"]);
    assert!(heard(&mut other).await.plugin_registered);
    node.has(1, 1).await;
    assert!(silent.try_recv().is_err(), "it did not say who it is");
    answers.store(true, Ordering::SeqCst);
    assert!(heard(&mut silent).await.plugin_registered);
    node.until(|manager| manager.inventory().len() == 2).await;
}

#[tokio::test]
async fn a_link_to_a_socket_is_as_good_as_the_socket() {
    let directory = tempfile::tempdir().unwrap();
    let (registry, plugins) = (directory.path().join("registry"), directory.path().join("plugins"));
    for path in [&registry, &plugins] {
        fs::create_dir(path).unwrap();
    }
    let elsewhere = directory.path().join("elsewhere");
    let plugin = Plugin::start(elsewhere.join("x.sock"), usual(), healthy(&["1"]));
    let mut waits = ["before", "after"].map(|name| {
        let socket = elsewhere.join(format!("{name}.sock"));
        wait_at(&socket, "DevicePlugin", &format!("example.com/{name}"), &plugin.socket, &["v1beta1"])
    });
    symlink(elsewhere.join("before.sock"), registry.join("before.sock")).unwrap();
    symlink(elsewhere.join("nothing.sock"), registry.join("nothing.sock")).unwrap();
    // A manager that starts has plugins register again, by the removal of what they listen on: links too, and nothing else.
    symlink(&plugin.socket, plugins.join("link.sock")).unwrap();
    fs::write(plugins.join("file"), "").unwrap();
    let mut node = Node::open(directory, &BTreeMap::new(), |_| {}).await;
    assert!(
        !plugins.join("link.sock").is_symlink() && plugin.socket.exists() && plugins.join("file").exists()
    );
    assert!(heard(&mut waits[0]).await.plugin_registered);
    symlink(elsewhere.join("after.sock"), registry.join("after.sock")).unwrap();
    assert!(heard(&mut waits[1]).await.plugin_registered);

    symlink(&plugin.socket, plugins.join("link.sock")).unwrap();
    register(&plugins, "v1beta1", "link.sock", RESOURCE, None).await.unwrap();
    node.has(1, 1).await;
    assert_eq!(node.manager.inventory().len(), 3);
}
