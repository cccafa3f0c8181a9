//! The service on `kubelet.sock`, where plugins say that they are there.

use std::path::Path;
use std::sync::{Arc, Weak};

use coracle_device_api::deviceplugin::registration_server::Registration;
use coracle_device_api::deviceplugin::{Empty, KUBELET_SOCKET, RegisterRequest, VERSION};
use coracle_device_api::tonic::{self, Request, Response, Status};
use coracle_model::ExtendedResource;

use crate::endpoint::{self, Registered};
use crate::state::Shared;

/// The longest that may be with which a plugin says who it is, in octets.
pub(crate) const LONGEST_INTRODUCTION: usize = 64 * 1024;

/// Answers plugins, for as long as the manager is there.
pub(crate) struct Register(pub(crate) Weak<Shared>);

/// What is wrong with who registers, if anything is; else the resource.
pub(crate) fn check(versions: &[String], name: &str) -> Result<ExtendedResource, String> {
    if !versions.iter().any(|version| version == VERSION) {
        return Err(format!(
            "requested API version {versions:?} is not supported by kubelet. Supported version is {VERSION:?}"
        ));
    }
    ExtendedResource::new(name)
        .map_err(|error| format!("the ResourceName {name:?} is invalid for extended resource: {error}"))
}

/// The path of a socket that is named by its file name in the directory of plugins.
fn socket_in(directory: &Path, name: &str) -> Option<std::path::PathBuf> {
    let usual = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
    (usual && name != KUBELET_SOCKET).then(|| directory.join(name))
}

#[tonic::async_trait]
impl Registration for Register {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<Empty>, Status> {
        let shared: Arc<Shared> =
            self.0.upgrade().ok_or_else(|| Status::unavailable("the node is stopping"))?;
        let request = request.into_inner();
        let refused = |problem: String| {
            tracing::warn!(resource = request.resource_name, problem, "a device plugin was refused");
            Status::invalid_argument(problem)
        };
        let resource =
            check(std::slice::from_ref(&request.version), &request.resource_name).map_err(refused)?;
        let socket = socket_in(&shared.plugin_dir, &request.endpoint).ok_or_else(|| {
            refused(format!("endpoint {:?} is not the file name of a plugin's socket", request.endpoint))
        })?;
        tracing::info!(%resource, socket = %socket.display(), "a device plugin has registered");
        let registered = Registered { resource, socket, options: request.options };
        endpoint::take_up(&shared, registered)
            .map_err(|error| Status::resource_exhausted(error.to_string()))?;
        Ok(Response::new(Empty {}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_registers_is_checked() {
        let versions = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        assert!(check(&versions(&["v1beta1"]), "example.com/x").is_ok());
        assert!(check(&versions(&["v1alpha", "v1beta1"]), "example.com/x").is_ok());
        for (version, name) in
            [("v1", "example.com/x"), ("", "example.com/x"), ("v1beta1", "cpu"), ("v1beta1", "")]
        {
            assert!(check(&versions(&[version]), name).is_err(), "{version} {name}");
        }
        let socket = |name| socket_in(Path::new("/p"), name);
        assert_eq!(socket("x.sock").unwrap(), Path::new("/p/x.sock"));
        for name in ["", ".", "..", "../x", "/run/x.sock", "kubelet.sock", "a\0b"] {
            assert!(socket(name).is_none(), "{name:?}");
        }
    }
}
