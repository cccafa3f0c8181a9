//! A host that changes while pods run: its clock, its name. Pods do not notice.

use coracle_tests::manifests::{idle, pod, shell, with};
use coracle_tests::vm::Vm;
use serde_json::json;

use crate::host::{Host, SOON, is_ready};

/// Seconds from 1970 to a time in its first day: nobody may set the clock to before the machine was booted.
const FIRST_DAY: u64 = 50_000;
const DAY: u64 = 24 * 3600;

const PODS: [&str; 3] = ["limited", "plain", "probed"];

impl Host {
    fn clock(&mut self) -> u64 {
        self.vm.ok("date +%s").parse().unwrap()
    }

    fn set_clock(&mut self, seconds: u64) {
        self.vm.ok(&format!("date --set=@{seconds} > /dev/null"));
    }

    fn uptime(&mut self) -> f64 {
        self.vm.ok("cut -d' ' -f1 /proc/uptime").parse().unwrap()
    }
}

#[test]
#[ignore = "needs a VM: make test-vm"]
fn a_clock_that_is_set_ends_no_pod_and_shortens_no_wait() {
    let mut host = Host::install(Vm::restore(), "");
    let real = host.clock();
    host.vm.ok("systemctl stop coracle.socket coracle.service");
    host.set_clock(FIRST_DAY);
    host.vm.ok("systemctl start coracle.socket coracle.service");

    // A machine without a clock of its own: its pods begin in 1970.
    let probe = json!({"exec": {"command": ["true"]}, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 60});
    let probed = with(with(idle("c"), "readinessProbe", probe.clone()), "livenessProbe", probe);
    host.run(&pod("probed", vec![probed]));
    host.run(&with(pod("limited", vec![idle("c")]), "spec.activeDeadlineSeconds", json!(7200)));
    host.run(&pod("plain", vec![idle("c")]));
    let began = host.containers(&PODS, 0);
    let plain = host.wait_running("plain", 0);
    let started = plain["status"]["startTime"].as_str().unwrap();
    assert!(started.starts_with("1970-01-01T"), "{started}");

    // It is told the time, set a day ahead, and back; nothing of that counts, also not for an agent that starts then.
    for (time, restart) in [(real, false), (real + DAY, true), (real + 600, true)] {
        host.set_clock(time);
        if restart {
            host.vm.ok("systemctl restart coracle");
        }
        host.wait_pod("probed", "to be ready", is_ready);
        assert_eq!(host.containers(&PODS, 0), began, "at {time}");
        let name = format!("new-{time}");
        host.run(&pod(&name, vec![idle("c")]));
        let new = host.wait_running(&name, 0);
        let day = host.vm.ok(&format!("date --utc --date=@{time} +%F"));
        let started = new["status"]["startTime"].as_str().unwrap();
        assert!(started.starts_with(&day), "{started} on {day}");
        host.vm.ok("coracle get events | grep -q Started");
    }

    // A grace period is given in full, whatever the clock says meanwhile.
    let ignores = with(
        pod("ignores", vec![shell("c", "exec sleep 4321")]),
        "spec.terminationGracePeriodSeconds",
        json!(30),
    );
    host.run(&ignores);
    host.wait_running("ignores", 0);
    host.vm.ok("rm /etc/coracle/manifests/ignores.yaml");
    host.wait_pod("ignores", "to be told to end", |pod| pod["metadata"]["deletionTimestamp"].is_string());
    let asked = host.uptime();
    let ahead = host.clock() + DAY;
    host.set_clock(ahead);
    host.vm.wait("the pod to be gone", SOON, "! pgrep --full --exact 'sleep 4321'");
    let took = host.uptime() - asked;
    assert!(took > 20.0, "killed after {took} s");
    assert_eq!(host.containers(&PODS, 0), began);
    host.vm.ok("systemctl is-active coracle && [ \"$(systemctl show -P NRestarts coracle)\" = 0 ]");
}

#[test]
#[ignore = "needs a VM: make test-vm"]
fn another_host_name_touches_no_pod_and_is_the_next_agents() {
    let mut host = Host::install(Vm::restore(), "");
    host.run(&pod("own", vec![idle("c")]));
    host.run(&with(pod("shared", vec![idle("c")]), "spec.hostNetwork", json!(true)));
    let pods = ["own", "shared"];
    let began = host.containers(&pods, 0);
    let node = "coracle get pods own --output json | grep -o '\"nodeName\": *\"[^\"]*\"' | cut -d'\"' -f4";
    assert_eq!(host.vm.ok(node), "guest");

    host.vm.ok("hostname other && echo other > /etc/hostname");
    // The node is who it was, for as long as its agent runs.
    assert_eq!(host.vm.ok(node), "guest");
    assert_eq!(host.vm.ok("coracle exec own -- hostname"), "own");
    assert_eq!(host.vm.ok("coracle exec shared -- hostname"), "other");
    host.run(&with(pod("later", vec![idle("c")]), "spec.hostNetwork", json!(true)));
    host.wait_running("later", 0);
    assert_eq!(host.vm.ok("coracle exec later -- cat /etc/hostname"), "other");

    host.vm.ok("systemctl restart coracle");
    assert_eq!(host.containers(&pods, 0), began);
    assert_eq!(host.vm.ok(node), "other");
}
