//! `coracle describe`.

mod configuration;
mod node;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use coracle_server::client::{
    AllocatedResource, Client, Container, ContainerState, ContainerStatus, Event, EventOptions, Pod,
    Terminated, Volume,
};
use jiff::Timestamp;

use super::age::{age, long};
use super::escape::escape;
use super::target::{Kind, Resource, Scope, not_found};

/// Show all about a pod or the node, and what happened to it
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle describe pod web
  coracle describe pods            Every pod of the namespace default
  coracle describe node            The node: its resources, and who asks for how much of them")]
pub(super) struct Describe {
    /// pod, pod/NAME, or node
    #[arg(value_name = "RESOURCE", value_parser = Resource::parse_described)]
    resource: Resource,
    /// Only these
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    scope: Scope,
}

/// Text in two columns, nested by two spaces, as kubectl describes things.
#[derive(Default)]
struct Page {
    text: String,
}

// === impl Describe ===

impl Describe {
    pub(super) async fn execute(mut self, client: &Client) -> anyhow::Result<ExitCode> {
        self.names.extend(self.resource.name.take());
        if self.resource.kind == Kind::Nodes {
            return node::execute(&self.names, client).await;
        }
        let pods: Vec<Pod> = client.pods().await?;
        let here = |pod: &&Pod| pod.metadata.namespace == self.scope.namespace;
        let chosen: Vec<&Pod> = if self.names.is_empty() {
            pods.iter().filter(here).collect()
        } else {
            let find = |name: &String| {
                pods.iter()
                    .filter(here)
                    .find(|pod| pod.metadata.name == *name)
                    .ok_or_else(|| not_found("pods", name))
            };
            self.names.iter().map(find).collect::<Result<_, _>>()?
        };
        if chosen.is_empty() {
            writeln!(io::stderr(), "No resources found in {} namespace.", self.scope.namespace)?;
        }
        for (number, pod) in chosen.iter().enumerate() {
            let events = client.events(&of(pod)).await?;
            let gap = if number > 0 { "\n\n" } else { "" };
            write!(io::stdout(), "{gap}{}", describe(pod, &events, Timestamp::now()))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What happened to this pod; not to another that had its name.
fn of(pod: &Pod) -> EventOptions {
    let Pod { metadata, .. } = pod;
    EventOptions {
        namespace: Some(metadata.namespace.clone()),
        kind: Some("Pod".to_owned()),
        name: Some(metadata.name.clone()),
        uid: Some(metadata.uid.clone()),
        r#type: None,
    }
}

fn describe(pod: &Pod, events: &[Event], now: Timestamp) -> String {
    let mut page = Page::default();
    let (metadata, spec, status) = (&pod.metadata, &pod.spec, &pod.status);
    let place = if status.host_ip.is_empty() {
        spec.node_name.clone()
    } else {
        format!("{}/{}", spec.node_name, status.host_ip)
    };
    let mut head = vec![
        ("Name", metadata.name.clone()),
        ("Namespace", metadata.namespace.clone()),
        ("Priority", spec.priority.unwrap_or_default().to_string()),
        ("Node", place),
        ("Start Time", long(status.start_time)),
        ("Labels", pairs(&metadata.labels, "=")),
        ("Annotations", pairs(&metadata.annotations, ": ")),
    ];
    match metadata.deletion_timestamp {
        Some(deadline) => {
            let lasts = age(Some(deadline), now.max(deadline));
            head.push(("Status", format!("Terminating (lasts {lasts})")));
        }
        None => head.push(("Status", status.phase.clone())),
    }
    for (key, value) in [("Reason", &status.reason), ("Message", &status.message)] {
        if !value.is_empty() {
            head.push((key, value.clone()));
        }
    }
    head.push(("IP", status.pod_ip.clone()));
    head.push(("IPs", if status.pod_ips.is_empty() { "<none>".to_owned() } else { String::new() }));
    page.fields(0, 18, &head);
    status.pod_ips.iter().for_each(|address| page.fields(2, 16, &[("IP", address.ip.clone())]));
    for (title, containers, statuses) in [
        ("Init Containers", &spec.init_containers, &status.init_container_statuses),
        ("Containers", &spec.containers, &status.container_statuses),
        ("Ephemeral Containers", &spec.ephemeral_containers, &status.ephemeral_container_statuses),
    ] {
        if containers.is_empty() {
            continue;
        }
        page.line(0, &format!("{title}:"));
        for container in containers {
            let status = statuses.iter().find(|status| status.name == container.name);
            page.container(pod, container, status);
        }
    }
    page.line(0, "Conditions:");
    page.line(2, &format!("{:<27} {}", "Type", "Status"));
    for condition in &status.conditions {
        page.line(2, &format!("{:<27} {}", condition.r#type, condition.status));
    }
    page.volumes(&spec.volumes);
    let selectors = pairs(&spec.node_selector, "=");
    page.fields(0, 29, &[("QoS Class", status.qos_class.clone()), ("Node-Selectors", selectors)]);
    page.events(events, now);
    page.text
}

// === impl Page ===

impl Page {
    fn line(&mut self, indent: usize, text: &str) {
        let text = escape(text.trim_end());
        // A `String` takes all that is written to it.
        let _ = writeln!(self.text, "{:indent$}{text}", "");
    }

    /// `Key:   value`, with the values in a column; further lines of a value stand under its first.
    fn fields(&mut self, indent: usize, width: usize, fields: &[(&str, String)]) {
        for (key, value) in fields {
            let mut lines = value.lines();
            self.line(indent, &format!("{:<width$}{}", format!("{key}:"), lines.next().unwrap_or_default()));
            for line in lines {
                self.line(indent + width, line);
            }
        }
    }

    fn container(&mut self, pod: &Pod, container: &Container, status: Option<&ContainerStatus>) {
        const INDENT: usize = 4;
        const WIDTH: usize = 16;
        self.line(2, &format!("{}:", container.name));
        let of = |field: fn(&ContainerStatus) -> &str| status.map(field).unwrap_or_default().to_owned();
        let ports = |number: fn(&coracle_server::client::Port) -> u16| {
            let ports = container.ports.iter().map(|port| format!("{}/{}", number(port), port.protocol));
            or_none(ports.collect::<Vec<_>>().join(", "))
        };
        self.fields(
            INDENT,
            WIDTH,
            &[
                ("Container ID", of(|status| &status.container_id)),
                ("Image", container.image.clone()),
                ("Image ID", of(|status| &status.image_id)),
                ("Port", ports(|port| port.container_port)),
                ("Host Port", ports(|port| port.host_port.unwrap_or(0))),
            ],
        );
        if !container.target_container_name.is_empty() {
            self.fields(INDENT, WIDTH, &[("Target", container.target_container_name.clone())]);
        }
        for (title, words) in [("Command", &container.command), ("Args", &container.args)] {
            if !words.is_empty() {
                self.line(INDENT, &format!("{title}:"));
                words.iter().flat_map(|word| word.lines()).for_each(|line| self.line(INDENT + 2, line));
            }
        }
        if let Some(status) = status {
            self.state("State", &status.state);
            if status.last_state != ContainerState::default() {
                self.state("Last State", &status.last_state);
            }
            let ready = if status.ready { "True" } else { "False" };
            let restarts = status.restart_count.to_string();
            self.fields(INDENT, WIDTH, &[("Ready", ready.to_owned()), ("Restart Count", restarts)]);
            self.devices(INDENT, &status.allocated_resources_status);
        }
        for (title, amounts) in
            [("Limits", &container.resources.limits), ("Requests", &container.resources.requests)]
        {
            if !amounts.is_empty() {
                self.line(INDENT, &format!("{title}:"));
                for (name, amount) in amounts {
                    let amount = amount.as_str().map_or_else(|| amount.to_string(), str::to_owned);
                    self.line(INDENT + 2, &format!("{:<8} {amount}", format!("{name}:")));
                }
            }
        }
        let from = configuration::environment_from(container);
        if !from.is_empty() {
            self.line(INDENT, "Environment Variables from:");
            from.iter().for_each(|line| self.line(INDENT + 2, line));
        }
        self.block(INDENT, WIDTH, "Environment", &configuration::environment(pod, container));
        let mounts = container.volume_mounts.iter().map(|mount| {
            let mode = if mount.read_only { "ro" } else { "rw" };
            let part =
                if mount.sub_path.is_empty() { String::new() } else { format!(",path={:?}", mount.sub_path) };
            format!("{} from {} ({mode}{part})", mount.mount_path, mount.name)
        });
        let mounts: Vec<_> = mounts.collect();
        if mounts.is_empty() {
            self.fields(INDENT, WIDTH, &[("Mounts", "<none>".to_owned())]);
        } else {
            self.line(INDENT, "Mounts:");
            mounts.iter().for_each(|mount| self.line(INDENT + 2, mount));
        }
    }

    /// The devices a container was given.
    fn devices(&mut self, indent: usize, resources: &[AllocatedResource]) {
        if resources.is_empty() {
            return;
        }
        self.line(indent, "Devices:");
        for AllocatedResource { name, resources } in resources {
            for device in resources {
                self.line(indent + 2, &format!("{name}: {} ({})", device.resource_id, device.health));
            }
        }
    }

    /// A title over pairs, or `<none>` beside it.
    fn block(&mut self, indent: usize, width: usize, title: &str, pairs: &[(&str, String)]) {
        if pairs.is_empty() {
            self.fields(indent, width, &[(title, "<none>".to_owned())]);
            return;
        }
        self.line(indent, &format!("{title}:"));
        let column = pairs.iter().map(|(key, _)| key.len()).max().unwrap_or_default() + 3;
        self.fields(indent + 2, column, pairs);
    }

    fn state(&mut self, title: &str, state: &ContainerState) {
        let (word, details) = match state {
            ContainerState { running: Some(running), .. } => {
                ("Running", vec![("Started", long(running.started_at))])
            }
            ContainerState { terminated: Some(ended), .. } => ("Terminated", ended_fields(ended)),
            ContainerState { waiting: Some(waiting), .. } => {
                let fields = vec![("Reason", waiting.reason.clone()), ("Message", waiting.message.clone())];
                ("Waiting", fields.into_iter().filter(|(_, value)| !value.is_empty()).collect())
            }
            _ => ("Waiting", Vec::new()),
        };
        self.fields(4, 16, &[(title, word.to_owned())]);
        self.fields(6, 14, &details);
    }

    fn volumes(&mut self, volumes: &[Volume]) {
        if volumes.is_empty() {
            self.fields(0, 9, &[("Volumes", "<none>".to_owned())]);
            return;
        }
        self.line(0, "Volumes:");
        for volume in volumes {
            self.line(2, &format!("{}:", volume.name));
            let fields = match (&volume.host_path, &volume.empty_dir, &volume.image) {
                _ if configuration::is_source(volume) => configuration::volume(volume),
                (Some(path), ..) => vec![
                    ("Type", "HostPath (bare host directory volume)".to_owned()),
                    ("Path", path.path.clone()),
                    ("HostPathType", path.r#type.clone()),
                ],
                (None, Some(directory), _) => vec![
                    ("Type", "EmptyDir (a temporary directory that shares a pod's lifetime)".to_owned()),
                    ("Medium", directory.medium.clone()),
                    ("SizeLimit", directory.size_limit.clone().unwrap_or_else(|| "<unset>".to_owned())),
                ],
                (None, None, Some(image)) => vec![
                    ("Type", "Image (a container image or OCI artifact)".to_owned()),
                    ("Reference", image.reference.clone()),
                    ("PullPolicy", image.pull_policy.clone()),
                ],
                (None, None, None) => vec![("Type", "<unknown>".to_owned())],
            };
            self.fields(4, 15, &fields);
        }
    }

    fn events(&mut self, events: &[Event], now: Timestamp) {
        if events.is_empty() {
            self.fields(0, 29, &[("Events", "<none>".to_owned())]);
            return;
        }
        self.line(0, "Events:");
        let header = ["Type", "Reason", "Age", "From", "Message"].map(str::to_owned);
        let rule = header.clone().map(|name| "-".repeat(name.len()));
        let mut rows = vec![header, rule];
        rows.extend(events.iter().map(|event| {
            let last = age(event.last_timestamp, now);
            let when = if event.count > 1 {
                format!("{last} (x{} over {})", event.count, age(event.first_timestamp, now))
            } else {
                last
            };
            [&event.r#type, &event.reason, &when, &event.source.component, &event.message].map(Clone::clone)
        }));
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default() + 2;
        let widths = [width(0), width(1), width(2), width(3)];
        for [kind, reason, age, from, message] in &rows {
            let [a, b, c, d] = widths;
            let mut lines = message.trim().lines();
            let first = lines.next().unwrap_or_default();
            self.line(2, &format!("{kind:<a$}{reason:<b$}{age:<c$}{from:<d$}{first}"));
            lines.for_each(|line| self.line(2 + a + b + c + d, line));
        }
    }
}

fn ended_fields(ended: &Terminated) -> Vec<(&'static str, String)> {
    let mut fields = vec![("Reason", ended.reason.clone()), ("Message", ended.message.trim_end().to_owned())];
    fields.retain(|(_, value)| !value.is_empty());
    fields.push(("Exit Code", ended.exit_code.to_string()));
    if ended.signal > 0 {
        fields.push(("Signal", ended.signal.to_string()));
    }
    fields.extend([("Started", long(ended.started_at)), ("Finished", long(ended.finished_at))]);
    fields
}

fn pairs(pairs: &BTreeMap<String, String>, between: &str) -> String {
    or_none(pairs.iter().map(|(key, value)| format!("{key}{between}{value}")).collect::<Vec<_>>().join("\n"))
}

fn or_none(text: String) -> String {
    if text.is_empty() { "<none>".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_reads_as_in_kubectl() {
        let pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web", "tier": "front"}},
            "spec": {
                "nodeName": "node",
                "initContainers": [{"name": "setup", "image": "tools:1", "command": ["sh", "-c", "one\ntwo"]}],
                "containers": [{
                    "name": "web", "image": "nginx:1", "args": ["-g", "daemon off;"],
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "envFrom": [
                        {"configMapRef": {"name": "settings"}},
                        {"prefix": "DB_", "secretRef": {"name": "login", "optional": true}},
                    ],
                    "env": [
                        {"name": "A", "value": "1"},
                        {"name": "LONGER", "value": "two"},
                        {"name": "NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
                        {"name": "APP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.labels['app']"}}},
                        {"name": "IP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}},
                        {"name": "MIB", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
                        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "0"}}},
                        {"name": "DISK", "valueFrom": {"resourceFieldRef": {"resource": "limits.ephemeral-storage", "divisor": "0"}}},
                        {"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "color", "optional": true}}},
                        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "login", "key": "password"}}},
                        {"name": "TOKEN", "valueFrom": {"fileKeyRef": {"volumeName": "tmp", "path": "env", "key": "TOKEN"}}},
                    ],
                    "resources": {"limits": {"cpu": "1", "memory": "64Mi"}},
                    "volumeMounts": [
                        {"name": "data", "mountPath": "/data", "readOnly": true, "subPath": "a"},
                        {"name": "tmp", "mountPath": "/tmp"},
                    ],
                }],
                "volumes": [
                    {"name": "data", "hostPath": {"path": "/srv/data", "type": "Directory"}},
                    {"name": "tmp", "emptyDir": {}},
                    {"name": "model", "image": {"reference": "reg.example/model:1", "pullPolicy": "IfNotPresent"}},
                    {"name": "conf", "configMap": {"name": "settings", "optional": true}},
                    {"name": "login", "secret": {"secretName": "login"}},
                    {"name": "pod", "downwardAPI": {"items": [
                        {"path": "labels", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.labels"}},
                        {"path": "cpu", "resourceFieldRef": {"containerName": "web", "resource": "limits.cpu"}},
                    ]}},
                    {"name": "all", "projected": {"sources": [
                        {"configMap": {"name": "settings"}},
                        {"secret": {"name": "login", "optional": true}},
                        {"downwardAPI": {"items": []}},
                    ]}},
                ],
            },
            "status": {
                "phase": "Running", "hostIP": "192.0.2.1", "qosClass": "Burstable",
                "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "False"}],
                "initContainerStatuses": [{
                    "name": "setup", "ready": true, "containerID": "coracle://1",
                    "state": {"terminated": {"exitCode": 0, "reason": "Completed"}},
                }],
                "containerStatuses": [{
                    "name": "web", "restartCount": 3, "imageID": "sha256:2",
                    "allocatedResourcesStatus": [{"name": "example.com/gpu", "resources": [
                        {"resourceID": "gpu-0", "health": "Healthy"}, {"resourceID": "gpu-1", "health": "Unhealthy"},
                    ]}],
                    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
                    "lastState": {"terminated": {"exitCode": 137, "signal": 9, "reason": "OOMKilled"}},
                }],
            },
        }))
        .unwrap();
        let events: Vec<Event> = serde_json::from_value(json!([
            {"type": "Normal", "reason": "Started", "message": "Started container", "count": 1,
             "lastTimestamp": "2026-01-01T00:00:00Z", "source": {"component": "coracle"}},
            {"type": "Warning", "reason": "BackOff", "message": "Back-off", "count": 4,
             "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:01:00Z",
             "source": {"component": "coracle"}},
        ]))
        .unwrap();
        insta::assert_snapshot!(describe(&pod, &events, "2026-01-01T00:01:30Z".parse().unwrap()));
    }
}
