//! The service and its package: what a stop does to pods is configured, at once by a reload, and a purge leaves nothing.

use std::collections::BTreeSet;

use coracle_tests::images::BUSYBOX;
use coracle_tests::manifests::{idle, pod, shell, with};
use coracle_tests::vm::Vm;
use serde_json::json;

use crate::host::{Host, SOON};

const PODS: [&str; 3] = ["one", "two", "three"];

const DROP_IN: &str = "/etc/systemd/system/coracle.service.d/own.conf";

/// What a host has: files, mounts, tables, interfaces, cgroups, processes, units. What comes and goes by itself is left out.
const INVENTORY: &str = r"
find / -xdev \( -path /proc -o -path /sys -o -path /payload -o -path /run -o -path /tmp -o -path /var/tmp \
    -o -path /var/cache -o -path /var/log/journal -o -path /var/lib/dpkg -o -path /var/lib/systemd \
    -o -path /var/log/dpkg.log \) -prune -o -print
find /run /tmp /var/tmp /var/lib/systemd /var/lib/dpkg/info -name '*coracle*'
findmnt --raw --noheadings --output TARGET
nft list ruleset
ip rule
ip route
getent passwd
ip -o link | cut -d: -f2
find /sys/fs/cgroup -type d | grep -e coracle -e kube -e pod
ps -eo args= | grep -e '[c]oracle' -e '[p]ause' -e '[s]leep 3600'
systemctl list-units --all --plain --no-legend | cut -d' ' -f1 | grep -e coracle -e kube
systemctl list-unit-files --no-legend | cut -d' ' -f1 | grep -e coracle
true";

fn inventory(vm: &mut Vm) -> BTreeSet<String> {
    vm.ok(INVENTORY).lines().map(str::to_owned).collect()
}

#[test]
#[ignore = "needs a VM: make test-vm"]
fn pods_run_on_or_end_with_the_agent_as_configured_and_a_purge_leaves_nothing() {
    stop_and_purge("cgroupDriver: cgroupfs\n");
}

#[test]
#[ignore = "needs a VM: make test-vm"]
fn pods_in_scopes_run_on_or_end_with_the_agent_as_configured_and_a_purge_leaves_nothing() {
    stop_and_purge("cgroupDriver: systemd\n");
}

fn stop_and_purge(configuration: &str) {
    let mut vm = Vm::restore();
    // The administrator's own stay, as with every package.
    vm.put(DROP_IN, "[Service]\nNice=1\n");
    let before = inventory(&mut vm);
    let mut host = Host::install(vm, configuration);
    for (number, name) in PODS.into_iter().enumerate() {
        let ports = json!([{"containerPort": 80, "hostPort": 8000 + number}]);
        // One ends when it is told to, the others when they are killed.
        let container = if number == 0 { idle("c") } else { shell("c", "exec sleep 3600") };
        host.run(&pod(name, vec![with(container, "ports", ports)]));
    }
    let began = host.containers(&PODS, 0);
    assert!(inventory(&mut host.vm).len() > before.len() + 20, "what is there is seen");

    // Who stops the socket's unit alone takes the agent that runs from nobody.
    host.vm.ok("systemctl stop coracle.socket");
    host.vm.ok("coracle get pods > /dev/null");
    host.vm.ok("systemctl stop coracle.socket coracle.service");
    assert_eq!(host.vm.ok("pgrep --exact --count sleep"), PODS.len().to_string());
    host.vm.ok("systemctl start coracle.socket coracle.service");
    assert_eq!(host.containers(&PODS, 0), began);

    // What is wrong is said by the reload, and changes nothing.
    host.vm.put("/etc/coracle/config.yaml", format!("{configuration}podsOnStop: kill\n"));
    assert_ne!(host.vm.run("systemctl reload coracle").code, 0);
    let log = host.vm.ok("journalctl --boot --unit coracle --output cat");
    assert!(log.contains("supported values: \"leave\", \"end\""), "{log}");
    host.vm.ok("systemctl is-active coracle");

    host.vm.put("/etc/coracle/config.yaml", format!("{configuration}podsOnStop: end\n"));
    host.vm.ok("systemctl reload coracle");
    assert_eq!(host.containers(&PODS, 0), began);
    host.vm.wait("the reload to count", SOON, "coracle get events | grep 'counts from now on: podsOnStop'");
    // A restart is no stop.
    host.vm.ok("systemctl restart coracle");
    assert_eq!(host.containers(&PODS, 0), began);
    host.vm.ok("systemctl stop coracle.socket coracle.service");
    assert_eq!(host.vm.run("pgrep --exact sleep").code, 1, "pods outlived the agent");
    assert_eq!(host.vm.ok("systemctl show -P Result coracle"), "success");

    // Those that ended with it begin again with the next.
    host.vm.ok("systemctl start coracle.socket coracle.service");
    host.containers(&PODS, 1);
    host.vm.ok("dpkg --purge coracle");
    nothing_is_left(&mut host.vm, &before);
    host.vm.ok(&format!("[ -s {DROP_IN} ]"));
}

#[test]
#[ignore = "needs a VM: make test-vm"]
fn what_the_program_installs_by_itself_runs_pods_is_replaced_and_taken_away() {
    let mut vm = Vm::restore();
    let before = inventory(&mut vm);
    // One that is not to be started, and by the next is: as one that was cut off before.
    vm.ok("/payload/coracle install --no-start");
    assert_ne!(vm.run("systemctl is-active coracle.service").code, 0);
    vm.ok("/payload/coracle install");
    assert_eq!(vm.ok("systemctl is-enabled coracle.service coracle.socket"), "enabled\nenabled");
    vm.ok(&format!("coracle image import /payload/busybox.tar --name {BUSYBOX}"));
    let mut host = Host { vm };
    for name in PODS {
        host.run(&pod(name, vec![idle("c")]));
    }
    let began = host.containers(&PODS, 0);
    let agent = "systemctl show -P MainPID coracle";
    let first = host.vm.ok(agent);
    host.vm.ok("/payload/coracle install");
    assert_ne!(host.vm.ok(agent), first);
    assert_eq!(host.containers(&PODS, 0), began);
    host.vm.ok("coracle uninstall");
    nothing_is_left(&mut host.vm, &before);
}

/// Waits until the host has no more than it had.
#[track_caller]
fn nothing_is_left(vm: &mut Vm, before: &BTreeSet<String>) {
    let mut extra = Vec::new();
    // A cgroup of systemd's, and what is mounted where it was, may trail behind.
    for _ in 0..SOON.as_secs() / 5 {
        extra = inventory(vm).difference(before).cloned().collect();
        if extra.is_empty() {
            return;
        }
        vm.ok("sleep 1");
    }
    panic!("what is left: {extra:#?}");
}
