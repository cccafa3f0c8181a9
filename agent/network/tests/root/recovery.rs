//! Attachments whose files are torn.

use std::fs;

use serde_json::json;

use super::harness::{Node, Sandbox, in_own_network};

#[test]
fn the_addresses_of_a_pod_that_runs_are_read_back_from_its_namespace() {
    in_own_network(|| {
        let node = Node::new();
        let ipam = json!({
            "type": "debian-host-local",
            "dataDir": node.path("addresses"),
            "ranges": [[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd77::/64"}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        });
        let bridge = json!({"type": "debian-bridge", "bridge": "debian0", "isGateway": true, "ipam": ipam});
        node.configure(&json!({"cniVersion": "1.0.0", "name": "debian", "plugins": [bridge]}));
        let sandbox = Sandbox::new("a");
        let attached = sandbox.add(&node.network()).unwrap();
        let file = node.path("state/a-0.json");
        for torn in ["", "{\"pod\":"] {
            fs::write(&file, torn).unwrap();
            let network = node.network();
            assert_eq!(network.attached(sandbox.uid(), 0), None);
            assert_eq!(network.adopt(&sandbox.attach()).unwrap(), Some(attached.clone()));
            assert_eq!(network.attached(sandbox.uid(), 0), Some(attached.clone()));
            // The next agent finds it whole.
            let network = node.network();
            assert_eq!(network.attached(sandbox.uid(), 0), Some(attached.clone()));
            network.check(sandbox.uid(), 0).unwrap();
        }
        node.network().del(sandbox.uid(), None, false).unwrap();
        node.wait_for_links(&["debian0"]);
    });
}

#[test]
fn a_sandbox_without_an_address_counts_as_not_attached() {
    in_own_network(|| {
        let node = Node::new();
        let mut sandbox = Sandbox::new("a");
        let network = node.network();
        assert_eq!(network.adopt(&sandbox.attach()).unwrap(), None);
        let (pod, netns) = (sandbox.pod.clone(), sandbox.netns.clone());
        sandbox.end();
        let attach = coracle_network::Attach::of_pod(&pod, 0, &netns).unwrap();
        assert_eq!(network.adopt(&attach).unwrap(), None);
    });
}
