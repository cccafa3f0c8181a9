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
    sed "s/NAME/churn-$i/; s/VALUE/$n/" /srv/churn.json > $manifests/.churn
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

/// Which number of pod a manifest is of, if the power cut has left a whole one.
fn left_by_churn(host: &mut Host, name: &str) -> Option<String> {
    let manifest = host.vm.ok(&format!("cat /etc/coracle/manifests/{name}.yaml 2> /dev/null || true"));
    let manifest: Value = serde_json::from_str(&manifest).ok()?;
    manifest["spec"]["containers"][0]["env"][0]["value"].as_str().map(str::to_owned)
}

fn wait_churned(host: &mut Host, name: &str, run: &str) {
    host.wait_pod(name, "to run as its manifest says", |pod| {
        pod["spec"]["containers"][0]["env"][0]["value"] == run
            && pod["status"]["containerStatuses"][0]["state"]["running"].is_object()
    });
}

#[test]
#[ignore = "needs a VM: make test-vm"]
fn a_power_cut_loses_what_nobody_has_flushed_and_only_that() {
    let mut vm = Vm::restore_on_cached_disk();
    // Nothing else flushes: no program that runs, and, however long the host takes, not the kernel by itself.
    vm.ok("echo 0 > /proc/sys/vm/dirty_writeback_centisecs");
    vm.ok("yes before | head -c 1M > /srv/written; sync");
    vm.ok("echo flushed > /srv/flushed; sync /srv/flushed; echo lost > /srv/lost");
    // The disk has them, in its cache.
    vm.ok("yes behind | dd of=/srv/written bs=4k count=256 iflag=fullblock oflag=direct conv=notrunc status=none");
    vm.power_cut();
    vm.boot_again();
    assert_eq!(vm.ok("cat /srv/flushed; cat /srv/lost 2> /dev/null || true"), "flushed");
    let written = vm.get("/srv/written");
    let of = |word: &[u8]| word.iter().copied().cycle().take(1 << 20).collect::<Vec<u8>>();
    let (before, behind) = (of(b"before\n"), of(b"behind\n"));
    assert_eq!(written.len(), before.len());
    for (at, block) in written.chunks(4096).enumerate() {
        let of = |whole: &[u8]| block == &whole[at * 4096..][..4096];
        assert!(of(&before) || of(&behind), "block {at}: {}", String::from_utf8_lossy(block));
    }
}

#[test]
#[ignore = "needs a VM: make test-vm"]
fn a_node_repairs_itself_after_a_power_cut() {
    let mut random = Random::new();
    let mut host = Host::install(Vm::restore_on_cached_disk(), "");
    let steady = "n=$(cat /kept/n 2>/dev/null || echo 0); echo $((n + 1)) > /kept/new; sync
                  mv /kept/new /kept/n; sync; exec sleep 100000";
    host.run(&with_kept(pod("steady", vec![shell("c", steady)])));
    let began = host.wait_running("steady", 0);
    host.vm.put("/srv/churn", CHURN);
    host.vm.put("/srv/churn.json", churned("NAME", "VALUE").to_string());
    let (mut cut, mut repaired, mut restarts) = (0, 0, 0);
    while cut < cuts() {
        (cut, repaired) = (cut + 1, repaired + 1);
        // For as long as it takes an emulated machine to do some of it.
        let time = Duration::from_millis(1_000 + random.below(25_000));
        println!("power cut {cut} after {time:?}");
        if cut % 2 == 0 {
            // The kernel writes early, and the disk has more that is not flushed.
            host.vm.ok(
                "cd /proc/sys/vm && echo 20 > dirty_writeback_centisecs && echo 20 > dirty_expire_centisecs",
            );
        }
        host.vm.ok("systemd-run --quiet --collect --unit churn bash /srv/churn");
        sleep(time);
        host.vm.power_cut();
        host.vm.boot_again();
        if cut % 3 == 2 && cut < cuts() {
            cut += 1;
            let time = Duration::from_millis(random.below(10_000));
            println!("power cut {cut}, while the node repairs itself, after {time:?}");
            sleep(time);
            host.vm.power_cut();
            host.vm.boot_again();
        }
        // What was running is, once more; a pod whose manifest was whole when the power went, too.
        let pod = host.wait_pod("steady", "to run once more", |pod| {
            let container = &pod["status"]["containerStatuses"][0];
            container["state"]["running"].is_object() && container["restartCount"].as_i64() > Some(restarts)
        });
        restarts = pod["status"]["containerStatuses"][0]["restartCount"].as_i64().unwrap();
        assert_eq!(began["metadata"]["uid"], pod["metadata"]["uid"]);
        host.vm.ok("coracle image verify --exact");
        for number in 0..4 {
            let name = format!("churn-{number}");
            if let Some(run) = left_by_churn(&mut host, &name) {
                println!("{name} is to run as number {run}");
                wait_churned(&mut host, &name, &run);
            }
        }
        for number in 0..4 {
            host.run(&churned(&format!("churn-{number}"), "last"));
        }
        for number in 0..4 {
            wait_churned(&mut host, &format!("churn-{number}"), "last");
        }
        host.vm.ok("coracle image verify --exact");
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
    // Each start was counted, also those that were seen by nobody but the container.
    let starts: i64 = host.vm.ok("coracle exec steady -- cat /kept/n").parse().unwrap();
    assert!(
        (repaired + 1..=restarts + 1).contains(&starts),
        "{starts} starts, {restarts} restarts, {cut} cuts"
    );
}
