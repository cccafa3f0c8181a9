//! What an agent that was killed has left, and files that are torn.

use std::collections::BTreeSet;
use std::fs;

use serde_json::json;

use super::scripted::{Node, RESULT, ip, uid, write};

fn attached() -> Node {
    let node = Node::new();
    node.configure("1.0.0", json!([{"type": "only"}]));
    node.install_answering("only", RESULT);
    node.add(&node.network()).unwrap();
    node.executed();
    node
}

#[test]
fn a_torn_file_is_never_fatal_and_its_del_is_called_with_the_configuration_there_is() {
    let file = "state/0f0e-uid-0.json";
    for torn in [&b""[..], b"{\"list\":", b"\xff\xff", b"{}\n00\n"] {
        let node = attached();
        write(&node.path(file), torn);
        let network = node.network();
        assert_eq!(network.attached(&uid(), 0), None);
        node.configure("0.4.0", json!([{"type": "only", "today": true}]));
        network.gc(&BTreeSet::new()).unwrap();
        let deleted = node.executed().pop().unwrap();
        assert_eq!(deleted.environment["CNI_CONTAINERID"], "0f0e-uid-0");
        assert_eq!(deleted.environment["CNI_COMMAND"], "DEL");
        assert!(deleted.environment["CNI_ARGS"].ends_with("K8S_POD_UID=0f0e-uid"));
        let told = json!({"cniVersion": "0.4.0", "name": "testnet", "type": "only", "today": true});
        assert_eq!(deleted.stdin, told);
        assert!(node.files().is_empty());
    }
}

#[test]
fn an_add_that_an_agent_was_killed_in_is_taken_back_before_the_next() {
    let node = attached();
    // As it is written before the first ADD: all but the result.
    let path = node.path("state/0f0e-uid-0.json");
    let json = fs::read_to_string(&path).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    json.as_object_mut().unwrap().remove("result").unwrap();
    let text = json.to_string();
    let digest = {
        use sha2::Digest as _;
        sha2::Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    write(&path, format!("{text}\n{digest}\n").as_bytes());

    let network = node.network();
    assert_eq!(network.attached(&uid(), 0), None);
    assert!(network.check(&uid(), 0).is_err());
    assert_eq!(node.add(&network).unwrap().ips, [ip("10.9.0.7")]);
    let executed = node.executed();
    let verbs: Vec<_> = executed.iter().map(|one| one.environment["CNI_COMMAND"].as_str()).collect();
    assert_eq!(verbs, ["DEL", "ADD"]);
    assert_eq!(executed[0].stdin.get("prevResult"), None);
}

#[test]
fn a_namespace_that_is_not_the_pods_any_more_is_told_to_nobody() {
    let node = attached();
    // As when the pid of pause is somebody else's.
    fs::rename(node.path("netns"), node.path("netns.old")).unwrap();
    write(&node.path("netns"), b"");
    node.network().del(&uid(), None, false).unwrap();
    let deleted = node.executed().pop().unwrap();
    assert_eq!(deleted.environment["CNI_NETNS"], "");
    assert_eq!(deleted.stdin["prevResult"]["ips"][0]["address"], "10.9.0.7/16");
}
