//! The package on a host: what it installs runs, and what runs outlives restarts and upgrades.

use coracle_tests::manifests::{idle, pod, with};
use coracle_tests::vm::Vm;
use serde_json::json;

use crate::host::{Host, is_ready};

const PODS: [&str; 3] = ["one", "two", "three"];

#[test]
#[ignore = "needs a VM: make test-vm"]
fn pods_outlive_restarts_and_upgrades_under_load() {
    let mut host = Host::install(Vm::restore(), "");
    for (number, name) in PODS.into_iter().enumerate() {
        let ports = json!([{"containerPort": 80, "hostPort": 8000 + number}]);
        // One that fails a single time ends its container.
        let probe = json!({"exec": {"command": ["true"]}, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 60});
        let probed = with(with(idle("c"), "livenessProbe", probe.clone()), "readinessProbe", probe);
        host.run(&pod(name, vec![with(probed, "ports", ports)]));
    }
    let began = host.containers(&PODS, 0);
    assert_eq!(host.vm.ok("systemctl is-active coracle.service coracle.socket"), "active\nactive");

    // Under load: pods and images that come and go, and clients that ask, none of which is turned away.
    host.vm.put("/srv/pod", pod("NAME", vec![idle("c")]).to_string());
    host.vm.put(
        "/srv/load",
        "clients() { while :; do coracle get pods > /dev/null || echo failed >> /srv/failed; done; }\nclients &\n\
         images() { while :; do coracle image import /payload/nginx.tar --name localhost/nginx:load &&\n\
         coracle image rm localhost/nginx:load || echo failed >> /srv/failed; done; }\nimages &\n\
         while :; do for n in 1 2; do sed s/NAME/load-$n/ /srv/pod > /srv/new\n\
         mv /srv/new /etc/coracle/manifests/load-$n.json; sleep 2; rm /etc/coracle/manifests/load-$n.json; done; done\n",
    );
    host.vm.ok("systemd-run --quiet --collect --unit load bash /srv/load");
    for _ in 0..2 {
        host.vm.ok("systemctl restart coracle");
        assert_eq!(host.containers(&PODS, 0), began);
    }
    host.vm.ok("dpkg --install /payload/coracle_*-2_*.deb");
    assert_eq!(host.containers(&PODS, 0), began);
    // It was one.
    host.vm.ok("coracle get events | grep -q load-");
    for name in PODS {
        host.wait_pod(name, "to be ready", is_ready);
    }
    host.vm.ok("systemctl stop load; rm -f /etc/coracle/manifests/load-* /srv/load /srv/pod /srv/new");
    assert_eq!(host.vm.ok("cat /srv/failed 2> /dev/null || true"), "");
}
