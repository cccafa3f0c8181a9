//! Interfaces of the host: the pod's for as long as it is there.

use std::fs::File;
use std::os::fd::AsFd as _;

use coracle_model::NetDevice;
use coracle_netlink::{AddressOptions, Batch, Link, LinkChange, LinkId, Peer, Protocol, Socket, Veth};
use coracle_sandbox::ContainerStage;
use coracle_tests::namespaces::in_own_network;
use ipnet::IpNet;

use crate::takeover::killed::{Cut, run_agent_until};
use crate::takeover::place::{Kind, Owned, Place};

const MAC: [u8; 6] = [2, 0, 0, 0, 7, 7];

fn address() -> IpNet {
    "10.9.0.1/24".parse().unwrap()
}

/// An interface `dev0` that is up and has an address.
fn make_interface() {
    let own = File::open("/proc/thread-self/ns/net").unwrap();
    let mut here = Socket::open(Protocol::Route).unwrap();
    let mut batch = Batch::new();
    let peer = Peer { name: "peer0", namespace: own.as_fd(), mac: None };
    batch.create_veth(&Veth { name: "dev0", controller: None, mtu: None, peer });
    let mac = Some(coracle_netlink::MacAddress(MAC));
    batch.change_link(LinkId::Name("dev0"), &LinkChange { mac, up: Some(true), ..LinkChange::default() });
    here.execute(batch).unwrap();
    let index = link("dev0").unwrap().index;
    let mut batch = Batch::new();
    batch.add_address(index, address(), AddressOptions::default());
    here.execute(batch).unwrap();
}

/// Of the host, which is the test's own network here.
fn link(name: &str) -> Option<Link> {
    Socket::open(Protocol::Route).unwrap().link(LinkId::Name(name)).unwrap()
}

fn addresses(link: &Link) -> Vec<IpNet> {
    let all = Socket::open(Protocol::Route).unwrap().addresses(Some(link.index)).unwrap();
    all.into_iter().filter(|address| address.global).map(|address| address.address).collect()
}

fn is_as_it_was() {
    let back = link("dev0").expect("it is back under its name");
    assert!(back.up);
    assert_eq!(back.mac.map(|mac| mac.0), Some(MAC));
    assert_eq!(addresses(&back), [address()]);
}

fn device(host: &str, name: &str) -> NetDevice {
    NetDevice { host_name: host.to_owned(), name: name.to_owned() }
}

fn block_on(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
}

const LOOKS: &str = "/bin/busybox ip -o addr show dev net7 | /bin/busybox grep -o 'inet [0-9./]*'; \
                     /bin/busybox cat /sys/class/net/net7/operstate";

fn place(kind: Kind) -> Option<Owned> {
    let mut owned = Owned::with_args(kind, &["/bin/sh", "-c", LOOKS])?;
    owned.place.edits.net_devices = vec![device("dev0", "net7")];
    Some(owned)
}

async fn runs(place: &Place) {
    let mut agent = place.agent().await;
    let ended = agent.run(place).await;
    let log = place.log();
    assert!(matches!(ended, ContainerStage::Exited { exit_code: 0, .. }), "{log:#?}");
    assert_eq!(log[0], "stdout F inet 10.9.0.1/24", "{log:#?}");
    assert!(link("dev0").is_none(), "it is the pod's alone");

    // One more container of the pod, which is given the same.
    agent.runtime.create_container(place.request()).await.unwrap();
    agent.remove(place).await;
}

#[test]
fn an_interface_of_the_host_is_the_pods_and_comes_back_as_it_was() {
    in_own_network(|| {
        make_interface();
        for kind in [Kind::Plain, Kind::SharedPid, Kind::Plain] {
            let owned = place(kind).unwrap();
            block_on(runs(&owned.place));
            is_as_it_was();
        }
    });
}

#[test]
fn an_interface_comes_back_under_the_next_agent_and_when_pause_dies() {
    in_own_network(|| {
        make_interface();
        let owned = place(Kind::Plain).unwrap();
        block_on(async {
            let place = &owned.place;
            let pod = place.pod();
            run_agent_until(place, Cut::Start);
            let mut agent = place.agent().await;
            agent.take_over(place).await;
            assert!(link("dev0").is_none());
            let pause = agent.runtime.in_network(&pod.uid).unwrap();
            rustix::process::pidfd_send_signal(&pause, rustix::process::Signal::KILL).unwrap();
            while link("dev0").is_none() {
                agent.change().await;
            }
            is_as_it_was();
            agent.remove(place).await;
        });
        is_as_it_was();
    });
}

#[test]
fn what_cannot_be_given_is_refused_and_leaves_the_interface_where_it_is() {
    in_own_network(|| {
        make_interface();
        let owned = place(Kind::Plain).unwrap();
        block_on(async {
            let place = &owned.place;
            let agent = place.agent().await;
            agent.runtime.ensure_sandbox(&place.pod()).await.unwrap();
            for (device, why) in [
                (device("none0", "net7"), "is not on the host"),
                (device("dev0", "lo"), "has an interface of the name lo"),
            ] {
                let mut request = place.request();
                request.edits.net_devices = vec![device];
                let error = agent.runtime.create_container(request).await.unwrap_err().to_string();
                assert!(error.contains(why), "{error}");
                is_as_it_was();
            }
            let mut request = place.request();
            let mut pod = (*request.pod).clone();
            pod.spec.host.network = true;
            request.pod = pod.into();
            let error = agent.runtime.create_container(request).await.unwrap_err().to_string();
            assert!(error.contains("host's network"), "{error}");
            is_as_it_was();
            agent.remove(place).await;
        });
    });
}
