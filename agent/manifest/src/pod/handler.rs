//! What a probe or a lifecycle hook does.

use coracle_document::{Faults, Path};
use std::time::Duration;

use coracle_model::{Grpc, Handler, HttpGet, PortRef, Scheme, TcpSocket};
use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::port::port_number;
use super::{check_nul, collect, or_default, word};
use crate::syntax;

/// The fields of a probe or hook that say what it does. A hook has no `grpc`, a probe no `sleep`.
#[derive(Default)]
pub(super) struct Fields<'a> {
    pub(super) exec: Option<&'a v1::ExecAction>,
    pub(super) http_get: Option<&'a mut v1::HTTPGetAction>,
    pub(super) tcp_socket: Option<&'a v1::TCPSocketAction>,
    pub(super) grpc: Option<&'a mut v1::GRPCAction>,
    /// With the pod's grace period, if that is known: a hook may not sleep for longer.
    pub(super) sleep: Option<(&'a v1::SleepAction, Option<i64>)>,
}

/// The one thing that is done.
pub(super) fn convert(fields: Fields<'_>, path: &Path<'_>, faults: &mut Faults) -> Option<Handler> {
    let Fields { exec: command, http_get, tcp_socket, grpc, sleep } = fields;
    let mut found = None;
    // Of several, Kubernetes looks at the first and refuses the others.
    macro_rules! take {
        ($field:literal, $given:expr, $read:ident) => {
            if let Some(given) = $given {
                let path = path.child($field);
                if found.is_some() {
                    faults.forbidden(&path, "may not specify more than 1 handler type");
                } else {
                    found = Some($read(given, &path, faults));
                }
            }
        };
    }
    take!("exec", command, exec);
    take!("httpGet", http_get, http);
    take!("tcpSocket", tcp_socket, tcp);
    take!("grpc", grpc, health);
    take!("sleep", sleep, wait);
    if found.is_none() {
        faults.required(path, "must specify a handler type");
    }
    found?
}

fn exec(action: &v1::ExecAction, path: &Path<'_>, faults: &mut Faults) -> Option<Handler> {
    let v1::ExecAction { command } = action;
    let path = path.child("command");
    let command = command.as_deref().unwrap_or_default();
    if command.is_empty() {
        faults.required(&path, "");
        return None;
    }
    for (index, text) in command.iter().enumerate() {
        check_nul(text, &path.index(index), faults);
    }
    Some(Handler::Exec(command.to_vec()))
}

fn http(action: &mut v1::HTTPGetAction, at: &Path<'_>, faults: &mut Faults) -> Option<Handler> {
    let v1::HTTPGetAction { host, http_headers, path, port, protocol, scheme } = action;
    let protocol_path = at.child("protocol");
    match protocol.as_deref() {
        None | Some("HTTP1") => {}
        Some("HTTP2") => faults.not_yet(&protocol_path, "HTTP2; requests are HTTP/1.1"),
        Some(other) => faults.unsupported_value(&protocol_path, other, &["HTTP1", "HTTP2"]),
    }
    let scheme = word(
        or_default(scheme, "HTTP"),
        &[("HTTP", Scheme::Http), ("HTTPS", Scheme::Https)],
        &at.child("scheme"),
        faults,
    );
    let port = port_ref(port, &at.child("port"), faults);
    let headers_path = at.child("httpHeaders");
    let headers = http_headers.as_deref().unwrap_or_default().iter().enumerate();
    let headers = collect(headers.map(|(index, header)| {
        let v1::HTTPHeader { name, value } = header;
        let path = headers_path.index(index);
        let (named, valued) = (syntax::http_header(name), syntax::http_header_value(value));
        if let Err(detail) = named {
            faults.invalid(&path.child("name"), name, detail);
        }
        if let Err(detail) = valued {
            faults.invalid(&path.child("value"), value, detail);
        }
        (named.is_ok() && valued.is_ok()).then(|| (name.clone(), value.clone()))
    }));
    Some(Handler::HttpGet(HttpGet {
        host: host.clone().filter(|host| !host.is_empty()),
        port: port?,
        path: or_default(path, "/").clone(),
        scheme: scheme?,
        headers: headers?,
    }))
}

fn tcp(action: &v1::TCPSocketAction, path: &Path<'_>, faults: &mut Faults) -> Option<Handler> {
    let v1::TCPSocketAction { host, port } = action;
    let port = port_ref(port, &path.child("port"), faults)?;
    Some(Handler::TcpSocket(TcpSocket { host: host.clone().filter(|host| !host.is_empty()), port }))
}

fn health(action: &mut v1::GRPCAction, path: &Path<'_>, faults: &mut Faults) -> Option<Handler> {
    let v1::GRPCAction { mode, port, service } = action;
    match mode.as_deref() {
        None | Some("Plaintext") => {}
        Some("TLS") => faults.not_yet(&path.child("mode"), "TLS; leave the field out"),
        Some(other) => faults.unsupported_value(&path.child("mode"), other, &["Plaintext", "TLS"]),
    }
    let port = port_number(*port, &path.child("port"), faults)?;
    Some(Handler::Grpc(Grpc { port, service: service.get_or_insert_default().clone() }))
}

fn wait(
    (action, grace): (&v1::SleepAction, Option<i64>),
    path: &Path<'_>,
    faults: &mut Faults,
) -> Option<Handler> {
    let v1::SleepAction { seconds } = action;
    // Without a grace period, that is what is wrong.
    let grace = grace?;
    match u64::try_from(*seconds) {
        Ok(allowed) if *seconds <= grace => Some(Handler::Sleep(Duration::from_secs(allowed))),
        _ => {
            let detail =
                format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
            faults.invalid_plain(path, seconds, &detail);
            None
        }
    }
}

/// Whether the container has a port of that name shows when it is used, as in Kubernetes.
fn port_ref(port: &IntOrString, path: &Path<'_>, faults: &mut Faults) -> Option<PortRef> {
    match port {
        IntOrString::Int(number) => port_number(*number, path, faults).map(PortRef::Number),
        IntOrString::String(name) => match syntax::port_name(name) {
            Ok(()) => Some(PortRef::Name(name.clone())),
            Err(detail) => {
                faults.invalid(path, name, detail);
                None
            }
        },
    }
}
