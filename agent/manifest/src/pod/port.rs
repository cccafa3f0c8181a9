//! `ports` of a container.

use coracle_document::{Faults, Path};
use std::collections::HashSet;
use std::net::IpAddr;

use coracle_model::{ContainerPort, Protocol};
use k8s_openapi::api::core::v1;

use super::container::Place;
use super::{collect, or_default, word};
use crate::syntax;

/// Checks and defaults `ports`.
pub(super) fn convert_all(
    ports: &mut [v1::ContainerPort],
    list: &Path<'_>,
    place: &mut Place<'_>,
    faults: &mut Faults,
) -> Option<Vec<ContainerPort>> {
    let mut names = HashSet::new();
    let mut converted = Vec::with_capacity(ports.len());
    for (index, port) in ports.iter_mut().enumerate() {
        let path = list.index(index);
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let name_path = path.child("name");
            if let Err(detail) = syntax::port_name(name) {
                faults.invalid(&name_path, name, detail);
            } else if !names.insert(name.to_owned()) {
                faults.duplicate(&name_path, name);
            }
        }
        let port = convert(port, &path, place, faults);
        converted.push(port);
    }
    collect(converted)
}

fn convert(
    port: &mut v1::ContainerPort,
    path: &Path<'_>,
    place: &mut Place<'_>,
    faults: &mut Faults,
) -> Option<ContainerPort> {
    let v1::ContainerPort { container_port, host_ip, host_port, name, protocol } = port;
    let protocol = word(
        or_default(protocol, "TCP"),
        &[("SCTP", Protocol::Sctp), ("TCP", Protocol::Tcp), ("UDP", Protocol::Udp)],
        &path.child("protocol"),
        faults,
    );
    let container_path = path.child("containerPort");
    let number = if *container_port == 0 {
        faults.required(&container_path, "");
        None
    } else {
        port_number(*container_port, &container_path, faults)
    };
    let address = match host_ip.as_deref() {
        None | Some("") => None,
        Some(text) => text
            .parse::<IpAddr>()
            .map_err(|_| {
                let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
                faults.invalid(&path.child("hostIP"), text, detail);
            })
            .ok(),
    };
    if place.host.network && host_port.unwrap_or(0) == 0 {
        *host_port = Some(*container_port);
    }
    let host_path = path.child("hostPort");
    let host_number = match *host_port {
        None | Some(0) => None,
        Some(wanted) => {
            if place.host.network && wanted != *container_port {
                let detail = "must match `hostPort` when `hostNetwork` is true";
                faults.invalid_plain(&container_path, *container_port, detail);
            }
            // The same number as the container's port has been judged above.
            if wanted == *container_port { number } else { port_number(wanted, &host_path, faults) }
        }
    };
    if let (Some(number), Some(protocol)) = (host_number, protocol)
        && !place.ports.insert((protocol, address, number))
    {
        let word = protocol.as_str();
        let address = host_ip.as_deref().unwrap_or_default();
        faults.duplicate(&host_path, &format!("{word}/{address}/{number}"));
    }
    Some(ContainerPort {
        name: name.clone().filter(|name| !name.is_empty()),
        container_port: number?,
        host_port: host_number,
        host_ip: address,
        protocol: protocol?,
    })
}

/// The number of a port, of the kind of number that a wire type has.
pub(super) fn port_number(number: i32, path: &Path<'_>, faults: &mut Faults) -> Option<u16> {
    match u16::try_from(number) {
        Ok(port) if port != 0 => Some(port),
        _ => {
            faults.invalid_plain(path, number, "must be between 1 and 65535, inclusive");
            None
        }
    }
}
