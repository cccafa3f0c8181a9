//! Power cuts: whatever moment they come at, the node repairs itself when the machine boots again.

use std::thread::sleep;
use std::time::Duration;

use coracle_tests::manifests::{idle, pod, shell, with};
use coracle_tests::random::Random;
use coracle_tests::vm::Vm;
use serde_json::{Value, json};

use crate::host::{Host, SOON};

/// Pods start and end, their manifests change, images come and go, and none of it is flushed by whoever does it.
const CHURN: &str = r#"
manifests=/etc/coracle/manifests
n=0
images() {
    while :; do
        coracle image import /payload/nginx.tar --name localhost/nginx:churn
        coracle image rm localhost/nginx:churn
    done
}
images &
while :; do
    n=$((n + 1)) i=$((RANDOM % 4))
    sed "s/NAME/churn-$i/; s/RUN/$n/" /srv/churn.json > $manifests/.churn
    mv $manifests/.churn $manifests/churn-$i.yaml
    [ $((RANDOM % 3)) != 0 ] || rm -f $manifests/churn-$((RANDOM % 4)).yaml
    sleep 0.$((RANDOM % 10))
done
"#;

/// `CORACLE_VM_POWER_CUTS`: how often, twice by default.
fn cuts() -> u32 {
    std::env::var("CORACLE_VM_POWER_CUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(2)
}

fn churned(name: &str, run: &str) -> Value {
    let container = with(idle("c"), "env", json!([{"name": "RUN", "value": run}]));
    with_kept(pod(name, vec![container]))
}

/// With a volume on the disk, at /kept.
fn with_kept(mut pod: Value) -> Value {
    pod["spec"]["volumes"] = json!([{"name": "kept", "emptyDir": {}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "kept", "mountPath": "/kept"}]);
    pod
}

#[test]
#[ignore = "needs a VM: make test-vm"]
fn a_power_cut_loses_what_nobody_has_flushed_and_only_that() {
    let mut vm = Vm::restore();
    // Nothing else flushes: no program that runs, and, however long the host takes, not the kernel by itself.
    vm.ok("echo 0 > /proc/sys/vm/dirty_writeback_centisecs");
    vm.ok("echo flushed > /srv/flushed; sync /srv/flushed; echo lost > /srv/lost");
    vm.power_cut();
    vm.boot_again();
    assert_eq!(vm.ok("cat /srv/flushed; cat /srv/lost 2> /dev/null || true"), "flushed");
}

#[test]
#[ignore = "needs a VM: make test-vm"]
fn a_node_repairs_itself_after_a_power_cut() {
    let mut random = Random::new();
    let mut host = Host::install(Vm::restore(), "");
    let steady = "n=$(cat /kept/n 2>/dev/null || echo 0); echo $((n + 1)) > /kept/n; sync; exec sleep 100000";
    host.run(&with_kept(pod("steady", vec![shell("c", steady)])));
    let began = host.wait_running("steady", 0);
    host.vm.put("/srv/churn", CHURN);
    host.vm.put("/srv/churn.json", churned("NAME", "RUN").to_string());
    for cut in 1..=cuts() {
        // For as long as it takes an emulated machine to do some of it.
        let time = Duration::from_millis(500 + random.below(15_000));
        println!("power cut {cut} after {time:?}");
        host.vm.ok("systemd-run --quiet --collect --unit churn bash /srv/churn");
        sleep(time);
        host.vm.power_cut();
        host.vm.boot_again();
        // What was running is, once more for each cut; a pod whose manifest was whole when the power went, too.
        let pod = host.wait_running("steady", i64::from(cut));
        assert_eq!(began["metadata"]["uid"], pod["metadata"]["uid"]);
        for number in 0..4 {
            host.run(&churned(&format!("churn-{number}"), "last"));
        }
        for number in 0..4 {
            let name = format!("churn-{number}");
            host.wait_pod(&name, "to run as its manifest says", |pod| {
                pod["spec"]["containers"][0]["env"][0]["value"] == "last"
                    && pod["status"]["containerStatuses"][0]["state"]["running"].is_object()
            });
        }
        host.vm.ok("coracle image verify");
        host.vm.ok("systemctl is-active coracle && [ \"$(systemctl show -P NRestarts coracle)\" = 0 ]");
        host.vm.ok("rm -f /etc/coracle/manifests/churn-*");
        host.wait_pods(&["steady"]);
        // Nothing is left of those that are gone.
        let uid = pod["metadata"]["uid"].as_str().unwrap();
        let left = format!(
            "left=$(ls /var/lib/coracle/pods /run/coracle/pods /var/lib/coracle/checkpoints | \
             grep -v -e : -e '^$' -e '^{uid}'); echo \"$left\"; [ -z \"$left\" ]"
        );
        host.vm.wait("nothing to be left of pods that are gone", SOON, &left);
    }
    assert_eq!(host.vm.ok("coracle exec steady -- cat /kept/n"), (cuts() + 1).to_string());
}
