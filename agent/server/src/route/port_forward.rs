//! `/portForward/{namespace}/{pod}`: connections to ports of a pod, over a WebSocket.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, Request, State};
use axum::response::Response;

use super::{Shared, find, pairs};
use crate::port_forward::{MAX_PORTS, run};
use crate::websocket::Upgrade;
use crate::{PortForwardRequest, Status};

pub(super) async fn get(
    State(node): State<Shared>,
    Path((namespace, pod)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Status> {
    port_forward(node, (&namespace, &pod), None, query.as_deref(), request)
}

pub(super) async fn get_with_uid(
    State(node): State<Shared>,
    Path((namespace, pod, uid)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Status> {
    port_forward(node, (&namespace, &pod), Some(&uid), query.as_deref(), request)
}

fn port_forward(
    node: Shared,
    (namespace, pod): (&str, &str),
    uid: Option<&str>,
    query: Option<&str>,
    request: Request,
) -> Result<Response, Status> {
    let pod = find(&*node, namespace, pod, uid)?.pod;
    let ports = ports(query.unwrap_or_default())?;
    let (response, socket) = Upgrade::of("port forwarding", request)?.accept();
    tokio::spawn(async move {
        match socket.await {
            Ok(socket) => {
                let connect = |port| node.port_forward(PortForwardRequest { pod: Arc::clone(&pod), port });
                run(socket, &pod, &ports, connect).await;
            }
            Err(error) => tracing::debug!(%error, "a client left before its ports were forwarded"),
        }
    });
    Ok(response)
}

/// The ports of the query, in order: `port` may repeat, and name several with commas between them.
fn ports(query: &str) -> Result<Vec<u16>, Status> {
    let refused = |message: String| Status::bad_request(message);
    let mut ports = Vec::new();
    for (_, value) in pairs(query)?.iter().filter(|(key, _)| key == "port") {
        if value.is_empty() {
            return Err(refused("query parameter \"port\" cannot be empty".to_owned()));
        }
        for port in value.split(',') {
            match port.parse::<u16>() {
                Ok(0) => return Err(refused(format!("port {port:?} must be > 0"))),
                Ok(port) => ports.push(port),
                Err(error) => {
                    return Err(refused(format!("unable to parse {value:?} as a port: {error}")));
                }
            }
        }
    }
    match ports.len() {
        0 => Err(refused("query parameter \"port\" is required".to_owned())),
        1..=MAX_PORTS => Ok(ports),
        count => Err(refused(format!("{count} ports on one connection: at most {MAX_PORTS}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_the_kubelet_reads_them() {
        assert_eq!(ports("port=80").unwrap(), [80]);
        assert_eq!(ports("port=80,443&x=1&port=65535").unwrap(), [80, 443, 65535]);
        for (query, message) in [
            ("", "query parameter \"port\" is required"),
            ("port=", "query parameter \"port\" cannot be empty"),
            ("port=80,0", "port \"0\" must be > 0"),
            ("port=80,http", "unable to parse \"80,http\" as a port: invalid digit found in string"),
            ("port=65536", "unable to parse \"65536\" as a port: number too large to fit in target type"),
        ] {
            assert_eq!(ports(query).unwrap_err().message, message, "{query}");
        }
        let many: Vec<String> = (1..=128).map(|port| port.to_string()).collect();
        assert!(ports(&format!("port={}", many.join(","))).is_err());
    }
}
