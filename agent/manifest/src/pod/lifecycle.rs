//! `lifecycle`.

use coracle_document::{Faults, Path};
use coracle_model::{Handler, Lifecycle, Signal};
use k8s_openapi::api::core::v1;

use super::container::Place;
use super::handler;

/// `None` when one of its parts has a fault.
pub(super) fn convert(
    lifecycle: Option<&mut v1::Lifecycle>,
    path: &Path<'_>,
    place: &Place<'_>,
    faults: &mut Faults,
) -> Option<Lifecycle> {
    let Some(lifecycle) = lifecycle else { return Some(Lifecycle::default()) };
    let v1::Lifecycle { post_start, pre_stop, stop_signal } = lifecycle;
    let mut read = |hook: &mut Option<v1::LifecycleHandler>, field| match hook {
        None => Some(None),
        Some(hook) => hook_handler(hook, &path.child(field), place, faults).map(Some),
    };
    let (post_start, pre_stop) = (read(post_start, "postStart"), read(pre_stop, "preStop"));
    let stop_signal = match stop_signal {
        None => Some(None),
        Some(name) => signal(name, &path.child("stopSignal"), place, faults).map(Some),
    };
    Some(Lifecycle { post_start: post_start?, pre_stop: pre_stop?, stop_signal: stop_signal? })
}

fn hook_handler(
    hook: &mut v1::LifecycleHandler,
    path: &Path<'_>,
    place: &Place<'_>,
    faults: &mut Faults,
) -> Option<Handler> {
    let v1::LifecycleHandler { exec, http_get, sleep, tcp_socket } = hook;
    let fields = handler::Fields {
        exec: exec.as_ref(),
        http_get: http_get.as_mut(),
        tcp_socket: tcp_socket.as_ref(),
        grpc: None,
        sleep: sleep.as_ref().map(|sleep| (sleep, place.grace)),
    };
    handler::convert(fields, path, faults)
}

/// Kubernetes takes exactly the names that the API lists, and only for a pod that says which system it is
/// for: the names differ between systems.
fn signal(name: &str, path: &Path<'_>, place: &Place<'_>, faults: &mut Faults) -> Option<Signal> {
    if !place.for_linux {
        faults.forbidden(path, "may not be set for containers with empty `spec.os.name`");
    }
    if name.is_empty() {
        faults.required(path, "");
        return None;
    }
    let signal = Signal::from_kubernetes(name);
    if signal.is_none() {
        let detail = "must be the name of a signal of Linux, from SIGABRT to SIGXFSZ, SIGRTMIN to SIGRTMIN+15 or SIGRTMAX-14 to SIGRTMAX";
        faults.invalid(path, name, detail);
    }
    signal
}
