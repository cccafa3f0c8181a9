//! `coracle describe node`.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::process::ExitCode;

use coracle_model::Quantity;
use coracle_server::client::{Client, Container, Event, EventOptions, Node, Pod};
use jiff::Timestamp;
use serde_json::Value;

use super::{Page, or_none, pairs};
use crate::cli::target::not_found;

/// Amounts by resource.
type Amounts = BTreeMap<String, Quantity>;

/// Describes the node.
pub(super) async fn execute(names: &[String], client: &Client) -> anyhow::Result<ExitCode> {
    let nodes = client.nodes().await?;
    for name in names {
        if !nodes.iter().any(|node| node.metadata.name == *name) {
            return Err(not_found("nodes", name));
        }
    }
    let pods = client.pods().await?;
    for node in nodes {
        let name = Some(node.metadata.name.clone());
        let of = EventOptions { kind: Some("Node".to_owned()), name, ..EventOptions::default() };
        let events = client.events(&of).await?;
        write!(io::stdout(), "{}", describe(&node, &pods, &events, Timestamp::now()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(node: &Node, pods: &[Pod], events: &[Event], now: Timestamp) -> String {
    let mut page = Page::default();
    let status = &node.status;
    page.fields(
        0,
        20,
        &[("Name", node.metadata.name.clone()), ("Labels", pairs(&node.metadata.labels, "="))],
    );
    page.line(0, "Conditions:");
    page.line(2, &format!("{:<8} {:<8} {:<18} {}", "Type", "Status", "Reason", "Message"));
    for condition in &status.conditions {
        let (kind, holds) = (&condition.r#type, &condition.status);
        page.line(2, &format!("{kind:<8} {holds:<8} {:<18} {}", condition.reason, condition.message));
    }
    page.line(0, "Addresses:");
    for address in &status.addresses {
        page.fields(2, 13, &[(&address.r#type, address.address.clone())]);
    }
    for (title, amounts) in [("Capacity", &status.capacity), ("Allocatable", &status.allocatable)] {
        page.line(0, &format!("{title}:"));
        page.columns(amounts.iter().map(|(name, amount)| (name.as_str(), text(amount))).collect());
    }
    page.line(0, "System Info:");
    page.columns(status.node_info.iter().map(|(name, value)| (name.as_str(), text(value))).collect());
    page.pods(node, pods);
    page.events(events, now);
    page.text
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What a pod asks for as a whole, by Kubernetes' rules: that of its containers and sidecars together, or what one init
/// container needs beside the sidecars before it, where that is more.
fn total(pod: &Pod, of: fn(&Container) -> &BTreeMap<String, Value>) -> Amounts {
    let amounts = |container: &Container| -> Amounts {
        let parsed =
            of(container).iter().map(|(name, amount)| Some((name.clone(), text(amount).parse().ok()?)));
        parsed.flatten().collect()
    };
    let add = |sum: &mut Amounts, more: &Amounts| {
        for (name, amount) in more {
            let before = sum.get(name).copied().unwrap_or_default();
            sum.insert(name.clone(), before.plus(*amount));
        }
    };
    let (mut sidecars, mut most) = (Amounts::new(), Amounts::new());
    for init in &pod.spec.init_containers {
        let mut beside = sidecars.clone();
        add(&mut beside, &amounts(init));
        if init.restart_policy.as_deref() == Some("Always") {
            sidecars.clone_from(&beside);
        }
        for (name, amount) in beside {
            let before = most.entry(name).or_default();
            *before = (*before).max(amount);
        }
    }
    let mut sum = sidecars;
    pod.spec.containers.iter().for_each(|container| add(&mut sum, &amounts(container)));
    for (name, amount) in most {
        let before = sum.entry(name).or_default();
        *before = (*before).max(amount);
    }
    sum
}

// === impl Page ===

impl Page {
    fn columns(&mut self, pairs: Vec<(&str, String)>) {
        let column = pairs.iter().map(|(key, _)| key.len()).max().unwrap_or_default() + 3;
        self.fields(2, column, &pairs);
    }

    /// The pods that have not ended, and what they ask for together.
    fn pods(&mut self, node: &Node, pods: &[Pod]) {
        // What waits for a device has none of the node's resources yet.
        let takes = |pod: &&Pod| {
            let unscheduled =
                |it: &coracle_server::client::Condition| it.r#type == "PodScheduled" && it.status == "False";
            !matches!(pod.status.phase.as_str(), "Succeeded" | "Failed")
                && !pod.status.conditions.iter().any(unscheduled)
        };
        let pods: Vec<&Pod> = pods.iter().filter(takes).collect();
        self.line(0, &format!("Non-terminated Pods: ({} in total)", pods.len()));
        let head = [
            "Namespace",
            "Name",
            "CPU Requests",
            "CPU Limits",
            "Memory Requests",
            "Memory Limits",
            "Devices",
        ];
        let mut rows = vec![head.map(str::to_owned)];
        rows.push(head.map(|name| "-".repeat(name.len())));
        let (mut requested, mut limited) = (Amounts::new(), Amounts::new());
        for pod in pods {
            let requests = total(pod, |container| &container.resources.requests);
            let limits = total(pod, |container| &container.resources.limits);
            let amount = |of: &Amounts, name: &str| of.get(name).copied().unwrap_or_default().to_string();
            let devices = requests.iter().filter(|(name, amount)| name.contains('/') && !amount.is_zero());
            let devices = devices.map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>();
            rows.push([
                pod.metadata.namespace.clone(),
                pod.metadata.name.clone(),
                amount(&requests, "cpu"),
                amount(&limits, "cpu"),
                amount(&requests, "memory"),
                amount(&limits, "memory"),
                or_none(devices.join(",")),
            ]);
            for (sum, more) in [(&mut requested, requests), (&mut limited, limits)] {
                for (name, amount) in more {
                    let before = sum.entry(name).or_default();
                    *before = before.plus(amount);
                }
            }
        }
        self.rows(&rows);
        self.line(0, "Allocated resources:");
        let mut rows = vec![["Resource", "Requests", "Limits"].map(str::to_owned)];
        rows.push(["--------", "--------", "------"].map(str::to_owned));
        for (name, allocatable) in &node.status.allocatable {
            let share = |of: &Amounts| {
                let amount = of.get(name).copied().unwrap_or_default();
                let all: Quantity = text(allocatable).parse().unwrap_or_default();
                match (name.contains('/'), all.milli()) {
                    // How many devices are left matters, not their part.
                    (true, _) | (_, 0) => amount.to_string(),
                    (false, all) => {
                        format!("{amount} ({}%)", u128::from(amount.milli()) * 100 / u128::from(all))
                    }
                }
            };
            rows.push([name.clone(), share(&requested), share(&limited)]);
        }
        self.rows(&rows);
    }

    fn rows<const N: usize>(&mut self, rows: &[[String; N]]) {
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default() + 2;
        let widths: Vec<usize> = (0..N).map(width).collect();
        for row in rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            self.line(2, &cells.collect::<String>());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_reads_as_in_kubectl() {
        let amounts =
            json!({"cpu": "4", "memory": "8152640Ki", "ephemeral-storage": "100Ki", "nvidia.com/gpu": "2"});
        let node = serde_json::from_value(json!({
            "metadata": {"name": "edge", "labels": {"kubernetes.io/os": "linux"}},
            "status": {
                "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": "edge"}],
                "capacity": amounts, "allocatable": amounts,
                "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "the node takes up pods"}],
                "nodeInfo": {"kernelVersion": "6.12.1", "osImage": "Debian"},
            },
        }))
        .unwrap();
        let gpu =
            |count: &str| json!({"requests": {"nvidia.com/gpu": count}, "limits": {"nvidia.com/gpu": count}});
        let cpu =
            json!({"requests": {"cpu": "500m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}});
        let pods: Vec<Pod> = serde_json::from_value(json!([
            {"metadata": {"name": "web", "namespace": "default"}, "status": {"phase": "Running"}, "spec": {
                "initContainers": [
                    {"name": "one", "resources": gpu("2")},
                    {"name": "side", "restartPolicy": "Always", "resources": cpu},
                ],
                "containers": [{"name": "web", "resources": gpu("1")}, {"name": "more", "resources": cpu}],
            }},
            {"metadata": {"name": "ended", "namespace": "default"}, "status": {"phase": "Failed"}, "spec": {
                "containers": [{"name": "web", "resources": gpu("1")}],
            }},
            {"metadata": {"name": "waits", "namespace": "default"}, "spec": {
                "containers": [{"name": "web", "resources": gpu("1")}],
            }, "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False"}]}},
        ]))
        .unwrap();
        insta::assert_snapshot!(describe(&node, &pods, &[], "2026-01-01T00:01:30Z".parse().unwrap()));
    }
}
