//! Interfaces of the host that are to end with their pods' namespaces.

use super::harness::{Node, Sandbox, in_own_network};

#[test]
fn what_a_held_namespace_has_kept_is_removed_and_not_what_the_pod_has_that_came_back() {
    in_own_network(|| {
        let node = Node::new();
        let network = node.network();
        let first = Sandbox::new("a");
        first.add(&network).unwrap();
        let before = network.host_ends(first.uid()).unwrap();
        assert_eq!(before.len(), 1, "the bridge is not the pod's: {before:?}");
        network.del(first.uid(), None, true).unwrap();
        assert!(network.host_ends(first.uid()).unwrap().is_empty());

        // Under the same UID an interface has the same name.
        let second = Sandbox::new("a");
        second.add(&network).unwrap();
        let after = network.host_ends(second.uid()).unwrap();
        assert_eq!(after[0].to_string(), before[0].to_string());
        assert!(!before[0].remove().unwrap());
        network.check(second.uid(), 0).unwrap();

        // Its namespace is there, whatever has become of the pod.
        network.del(second.uid(), None, true).unwrap();
        assert!(after[0].remove().unwrap());
        assert!(!after[0].remove().unwrap());
        node.wait_for_links(&["coracle0"]);
    });
}
