//! The end of the machine, and its next boot: pods end with it in their order, within the time that logind gives them,
//! and begin again with it.

use coracle_tests::manifests::slow_to_end;
use coracle_tests::vm::Vm;

use crate::host::{Host, SOON};

/// Waits until logind would ask the agent before it shuts the machine down.
fn wait_locked(host: &mut Host) {
    let locks = "systemd-inhibit --list --no-legend | grep -q '^coracle .* shutdown .* delay$'";
    host.vm.wait("logind's lock", SOON, locks);
}

/// Says when, after the kernel began, the agent was started and was ready, and the first container began.
fn tell_boot(host: &mut Host) {
    let since = |host: &mut Host, property: &str| {
        let microseconds: f64 = host.vm.ok(&format!("systemctl show -P {property} coracle")).parse().unwrap();
        microseconds / 1e6
    };
    let started = since(host, "ExecMainStartTimestampMonotonic");
    let ready = since(host, "ActiveEnterTimestampMonotonic");
    // In ticks, of which USER_HZ has a hundred a second (proc(5)).
    let container = "cut -d' ' -f22 /proc/$(pgrep --oldest --full 'echo run >> /kept/runs')/stat";
    let container: f64 = host.vm.ok(container).parse().unwrap();
    let container = container / 100.0;
    println!(
        "after the kernel began: agent started {started:.2} s, ready {ready:.2} s, first container {container:.2} s"
    );
}

#[test]
#[ignore = "needs a VM: make test-vm"]
fn pods_end_with_the_machine_and_begin_again_with_it() {
    end_and_begin_again("cgroupfs");
}

/// systemd stops units of its own then, in an order of its own: the scopes are not to be among them too early.
#[test]
#[ignore = "needs a VM: make test-vm"]
fn pods_in_scopes_end_with_the_machine_and_begin_again_with_it() {
    end_and_begin_again("systemd");
}

fn end_and_begin_again(driver: &str) {
    let configuration =
        format!("cgroupDriver: {driver}\nshutdownGracePeriod: 200s\nshutdownGracePeriodCriticalPods: 100s\n");
    let mut host = Host::install(Vm::restore(), &configuration);
    let names = ["low", "high"];
    for (name, priority) in names.into_iter().zip([0, 2_000_000_000]) {
        host.run(&slow_to_end(name, priority, "/srv/out".as_ref()));
    }
    for name in names {
        host.wait_running(name, 0);
        host.wait_log(name, "run\nrun");
    }
    wait_locked(&mut host);
    let delay = "busctl get-property org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager \
                 InhibitDelayMaxUSec";
    assert_eq!(host.vm.ok(delay), "t 200000000");
    let boot = "cat /proc/sys/kernel/random/boot_id";
    let first = host.vm.ok(boot);
    host.vm.reboot();
    assert_ne!(first, host.vm.ok(boot));
    assert_eq!(host.vm.ok("cat /srv/out/order"), "low asked\nlow ended\nhigh asked\nhigh ended");
    for name in names {
        let pod = host.wait_running(name, 1);
        let last = &pod["status"]["containerStatuses"][0]["lastState"]["terminated"];
        assert_eq!(last["exitCode"], 0, "{last}");
        // The volume on the disk has both runs, the one in memory the second alone.
        host.wait_log(name, "run\nrun\nrun");
    }
    tell_boot(&mut host);
    assert!(host.vm.ok("coracle get events").contains("NodeShutdown"));
    wait_locked(&mut host);
}
