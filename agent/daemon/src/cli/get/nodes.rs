//! `coracle get nodes`.

use std::process::ExitCode;

use coracle_server::client::Node;
use serde_json::Value;

use super::Get;
use super::print::{Look, Printer, Shown};
use crate::cli::table::Cell;

// === impl Get ===

impl Get {
    pub(super) fn nodes(&self, mut nodes: Vec<Node>) -> anyhow::Result<ExitCode> {
        // A node is in no namespace.
        nodes.retain(|node| self.names.is_empty() || self.names.contains(&node.metadata.name));
        let complete = self.list(&nodes, &mut Printer::new(&self.print, false))?;
        Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// What the kubelet calls by names without a domain is no device.
fn devices(node: &Node) -> String {
    let amounts = |(name, amount): (&String, &Value)| {
        let all = node.status.capacity.get(name).and_then(Value::as_str).unwrap_or("0").to_owned();
        let usable = amount.as_str().unwrap_or_default();
        name.contains('/').then(|| match *usable == *all {
            true => format!("{name}={usable}"),
            false => format!("{name}={usable}/{all}"),
        })
    };
    let all: Vec<_> = node.status.allocatable.iter().filter_map(amounts).collect();
    if all.is_empty() { "<none>".to_owned() } else { all.join(",") }
}

// === impl Node ===

impl Shown for Node {
    const RESOURCE: &'static str = "nodes";
    const SINGULAR: &'static str = "node";
    const ITS_END_IS_NEWS: bool = true;

    fn header(wide: bool) -> &'static [&'static str] {
        const HEADER: [&str; 9] = [
            "NAME",
            "STATUS",
            "CPU",
            "MEMORY",
            "DEVICES",
            "VERSION",
            "INTERNAL-IP",
            "OS-IMAGE",
            "KERNEL-VERSION",
        ];
        if wide { &HEADER } else { &HEADER[..6] }
    }

    fn row(&self, look: Look) -> Vec<Cell> {
        let ready = self.status.conditions.iter().any(|it| it.r#type == "Ready" && it.status == "True");
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or("<unknown>").to_owned();
        let amount = |name: &str| text(self.status.allocatable.get(name)).into();
        let info = |name: &str| text(self.status.node_info.get(name)).into();
        let mut row: Vec<Cell> = vec![
            self.metadata.name.as_str().into(),
            if ready { "Ready" } else { "NotReady" }.into(),
            amount("cpu"),
            amount("memory"),
            devices(self).into(),
            info("kubeletVersion"),
        ];
        if look.wide {
            let address = self.status.addresses.iter().find(|it| it.r#type == "InternalIP");
            row.push(address.map_or("<none>", |it| it.address.as_str()).into());
            row.extend([info("osImage"), info("kernelVersion")]);
        }
        row
    }

    fn identity(&self) -> String {
        self.metadata.name.clone()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn devices_are_told_with_how_many_of_them_work() {
        let node = |capacity, allocatable| -> Node {
            let status = json!({"capacity": capacity, "allocatable": allocatable});
            serde_json::from_value(json!({"status": status})).unwrap()
        };
        let all = json!({"cpu": "4", "a.example/fuse": "8", "b.example/gpu": "2"});
        let some = json!({"cpu": "4", "a.example/fuse": "8", "b.example/gpu": "1"});
        assert_eq!(devices(&node(all.clone(), some)), "a.example/fuse=8,b.example/gpu=1/2");
        assert_eq!(devices(&node(json!({"cpu": "4"}), json!({"cpu": "4"}))), "<none>");
    }
}
