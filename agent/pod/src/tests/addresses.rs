//! The addresses that are seen of a pod.

use std::net::IpAddr;

use coracle_model::{Name, RestartPolicy};
use tokio::time::sleep;

use super::node::{Node, SETTLE, uid};
use super::values::pod;

use RestartPolicy::{Always, Never};

#[tokio::test(start_paused = true)]
async fn addresses_are_those_of_the_sandbox_and_stay_with_a_pod_that_has_ended() {
    let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
    let mut node = Node::new();
    let (one, two) = (parse(&["10.0.0.1", "fd00::1"]), parse(&["10.0.0.2"]));
    node.fake.with(|state| state.node_addresses = one.clone());
    node.run(Never, &[], &["web"]).await;
    assert_eq!(node.see().status.host_ips, one);
    assert!(node.see().status.pod_ips.is_empty());
    let own = parse(&["10.83.0.7", "fd83::7"]);
    node.fake.with(|state| state.pods.get_mut(&uid("a")).unwrap().observed.addresses = own.clone());
    // The node has another address, too.
    node.fake.with(|state| state.node_addresses = two.clone());
    node.pods.node_changed();
    sleep(SETTLE).await;
    assert_eq!((&node.see().status.host_ips, &node.see().status.pod_ips), (&two, &own));

    node.exit("web", 0);
    sleep(SETTLE).await;
    node.fake.with(|state| assert!(state.pods[&uid("a")].observed.addresses.is_empty()));
    assert_eq!(node.see().status.pod_ips, own);
    node.restart_agent().await;
    assert_eq!(node.see().status.pod_ips, own);

    let mut host = pod("b", Always, &[], &["web"]);
    host.key.name = Name::label("host").unwrap();
    host.spec.host.network = true;
    node.run_pod(&host).await;
    assert_eq!(node.pods.get(&uid("b")).unwrap().status.pod_ips, two);
    node.well_behaved();
}
