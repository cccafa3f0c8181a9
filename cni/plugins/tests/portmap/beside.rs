//! Beside the rules of others: both work, and theirs are what they were.

use coracle_cni::Plugin;
use coracle_cni_plugins::Portmap;
use coracle_nftables::{Entry, Nftables, Owner};
use serde_json::{Value, json};

use crate::harness::{Namespace, in_own_network, run, script};
use crate::traffic::{Kind, Server};
use crate::world::{HOST4, Pod, World, mapping};

/// Everybody's rules but ours, as they list them. Counters count what passes, so they do not count here.
fn others() -> String {
    let tables = run("nft list tables");
    let tables = tables.lines().filter(|line| *line != "table inet coracle");
    let nft: String = tables.map(|table| run(&format!("nft -s list {table}"))).collect();
    let iptables = script(
        "iptables-save | grep -v '^#' | sed 's/\\[[0-9:]*\\]//'; ip6tables-save | grep -v '^#' | sed 's/\\[[0-9:]*\\]//'",
    );
    nft + &iptables
}

/// A container of somebody else's, on a bridge of its own, as Docker makes it.
fn container() -> Namespace {
    run("ip link add docker0 type bridge");
    run("ip link set docker0 up");
    run("ip address add 172.17.0.1/16 dev docker0");
    let container = Namespace::new();
    run(&format!("ip link add vethd type veth peer name eth0 netns {}", container.pid()));
    run("ip link set vethd master docker0 up");
    container.run("ip link set eth0 up");
    container.run("ip address add 172.17.0.2/16 dev eth0");
    container.run("ip route add default via 172.17.0.1");
    container
}

/// What Docker 24 has, with a container that publishes port 9090; its policy of FORWARD is the caller's.
const DOCKER: &str = "
iptables -t nat -N DOCKER
iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
iptables -t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
iptables -t nat -A POSTROUTING -s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp --dport 80 -j MASQUERADE
iptables -t nat -A DOCKER -i docker0 -j RETURN
iptables -t nat -A DOCKER ! -i docker0 -p tcp --dport 9090 -j DNAT --to-destination 172.17.0.2:80
iptables -N DOCKER
iptables -N DOCKER-ISOLATION-STAGE-1
iptables -N DOCKER-ISOLATION-STAGE-2
iptables -N DOCKER-USER
iptables -A FORWARD -j DOCKER-USER
iptables -A FORWARD -j DOCKER-ISOLATION-STAGE-1
iptables -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A FORWARD -o docker0 -j DOCKER
iptables -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
iptables -A FORWARD -i docker0 -o docker0 -j ACCEPT
iptables -A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp --dport 80 -j ACCEPT
iptables -A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
iptables -A DOCKER-ISOLATION-STAGE-1 -j RETURN
iptables -A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
iptables -A DOCKER-ISOLATION-STAGE-2 -j RETURN
iptables -A DOCKER-USER -j RETURN
";

/// What firewalld has: a table of its own with zones that it jumps to, masquerading, and a port it forwards.
const FIREWALLD: &str = "
nft -f - <<'end'
table inet firewalld {
	chain nat_PREROUTING {
		type nat hook prerouting priority dstnat + 10; policy accept;
		jump nat_PREROUTING_ZONES
	}
	chain nat_PREROUTING_ZONES {
		iifname \"out0\" goto nat_PRE_public
	}
	chain nat_PRE_public {
		meta nfproto ipv4 tcp dport 9191 dnat ip to 172.17.0.2:80
	}
	chain nat_POSTROUTING {
		type nat hook postrouting priority srcnat + 10; policy accept;
		oifname \"out0\" meta nfproto ipv4 oifname != \"lo\" masquerade
	}
	chain filter_INPUT {
		type filter hook input priority filter + 10; policy accept;
		ct state { established, related } accept
		ct status dnat accept
		iifname \"lo\" accept
		ct state invalid drop
		meta l4proto { icmp, ipv6-icmp } accept
		reject with icmpx admin-prohibited
	}
	chain filter_FORWARD {
		type filter hook forward priority filter + 10; policy accept;
		ct state { established, related } accept
		ct status dnat accept
		iifname \"cni0\" accept
		ct state invalid drop
		reject with icmpx admin-prohibited
	}
}
end
";

/// Ours and theirs, before and after each other.
fn both_work(world: &World, rules: &str, port_of_theirs: u16, more: Value) {
    let pod = world.pod(5);
    let container = container();
    let theirs = Server::new(Some(&container), Kind::Tcp, "0.0.0.0:80");
    let port = format!("{HOST4}:{port_of_theirs}");
    script(rules);
    theirs.reach(Some(&world.outside), &port).unwrap();
    let before = others();

    let call = pod.call(more, &json!([mapping(8080, "tcp", ""), mapping(8080, "udp", "")]));
    Portmap.add(&call).unwrap();
    let owner = Owner::new("pods", "pod5", "eth0").unwrap();
    let out = [Entry::Masquerade(format!("{}/16", pod.v4()).parse().unwrap())];
    Nftables::open().unwrap().add(&owner, &out).unwrap();
    ours_work(world, &pod);
    theirs.reach(Some(&world.outside), &port).unwrap();
    assert_eq!(others(), before);

    Portmap.repair(&call).unwrap();
    Portmap.del(&call).unwrap();
    theirs.reach(Some(&world.outside), &port).unwrap();
    assert_eq!(others(), before);
}

fn ours_work(world: &World, pod: &Pod) {
    for kind in [Kind::Tcp, Kind::Udp] {
        let server = Server::new(Some(&pod.namespace), kind, "0.0.0.0:80");
        for (from, address) in [
            (Some(&world.outside), "192.0.2.1:8080"),
            (None, "192.0.2.1:8080"),
            (None, "127.0.0.1:8080"),
            (Some(&pod.namespace), "192.0.2.1:8080"),
        ] {
            let reached = server.reach(from, address);
            reached.unwrap_or_else(|error| panic!("{kind:?} to {address}: {error}"));
        }
        let outside = Server::new(Some(&world.outside), kind, "0.0.0.0:80");
        assert_eq!(outside.reach(Some(&pod.namespace), "192.0.2.2:80").unwrap().to_string(), HOST4);
    }
}

#[test]
fn docker_and_we_work_beside_each_other() {
    in_own_network(|| {
        let world = World::new();
        both_work(&world, DOCKER, 9090, json!({}));
        // Its reload makes its chains anew; ours stays.
        let pod = world.pod(6);
        pod.map(&json!([mapping(8080, "tcp", ""), mapping(8080, "udp", "")]));
        script("iptables -t nat -F; iptables -t nat -X; iptables -F; iptables -X");
        let server = Server::new(Some(&pod.namespace), Kind::Tcp, "0.0.0.0:80");
        server.reach(Some(&world.outside), "192.0.2.1:8080").unwrap();
    });
}

#[test]
fn firewalld_and_we_work_beside_each_other() {
    in_own_network(|| {
        let world = World::new();
        both_work(&world, FIREWALLD, 9191, json!({}));
    });
}

#[test]
fn what_others_drop_is_theirs_and_is_told() {
    in_own_network(|| {
        let world = World::new();
        let pod = world.pod(5);
        script(DOCKER);
        run("iptables -P FORWARD DROP");
        pod.map(&json!([mapping(8080, "tcp", "")]));
        let server = Server::new(Some(&pod.namespace), Kind::Tcp, "0.0.0.0:80");
        let reach = || server.reach(Some(&world.outside), "192.0.2.1:8080");
        assert!(reach().is_err(), "no table can accept what another one drops");
        server.reach(None, "192.0.2.1:8080").unwrap();
        let drops = || Nftables::open().unwrap().forward_drops("cni0").unwrap();
        assert_eq!(drops(), ["chain FORWARD of table ip filter"]);
        // The remedy that docs/limits.md names.
        run("iptables -I DOCKER-USER -i cni0 -j ACCEPT");
        run("iptables -I DOCKER-USER -o cni0 -j ACCEPT");
        reach().unwrap();
        assert_eq!(drops(), [] as [&str; 0]);
    });
}
