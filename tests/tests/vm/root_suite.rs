//! The root tests of crates and node, on the host that Coracle is meant for.

use std::time::{Duration, Instant};

use coracle_tests::vm::Vm;

/// How long one binary's tests may take.
const LIMIT: Duration = Duration::from_secs(3000);

/// How often what is repeated at random is, unless the variable says otherwise: the whole of it is for a machine that is
/// not emulated.
const REPEATED: [(&str, &str); 4] = [
    ("CORACLE_KILLS", "4"),
    ("CORACLE_PULL_KILLS", "3"),
    ("CORACLE_TEST_CHURN", "50"),
    ("CORACLE_TEST_STARTS", "6"),
];

/// `CORACLE_VM_PROGRAMS`: parts of names of test programs (`sandbox-root`); `CORACLE_VM_FILTER`: parts of names of tests;
/// without, all of them. `CORACLE_TEST_CGROUP_DRIVER`: who makes the cgroups of `cgroup-root` and `tests-node`; the others
/// make none, or their own.
#[test]
#[ignore = "needs a VM: make test-vm"]
fn the_root_tests_pass() {
    let chosen = |name| std::env::var(name).unwrap_or_default();
    passes(
        &chosen("CORACLE_TEST_CGROUP_DRIVER"),
        &chosen("CORACLE_VM_PROGRAMS"),
        &chosen("CORACLE_VM_FILTER"),
    );
}

/// What depends most on who makes the cgroups. All of it: `CORACLE_TEST_CGROUP_DRIVER=systemd`.
#[test]
#[ignore = "needs a VM: make test-vm"]
fn pods_have_limits_in_cgroups_of_systemd() {
    passes(
        "systemd",
        "tests-node",
        "limits::requests_become_weights limits::a_container_over_its_memory_limit",
    );
}

/// Runs the tests of these programs that have these parts of names.
fn passes(driver: &str, programs: &str, filter: &str) {
    let mut vm = Vm::restore();
    let repeated = REPEATED.map(|(name, few)| {
        let value = std::env::var(name).unwrap_or_else(|_| few.to_owned());
        format!("{name}={value}")
    });
    let repeated = repeated.join(" ");
    vm.ok(
        "at=$(< /payload/built-at) && mkdir -p \"$at\" \"${at%/*}/tmp\" && ln -s /payload/programs/* \"$at\"",
    );
    let mut failed = Vec::new();
    let is_chosen =
        |name: &str| programs.is_empty() || programs.split_whitespace().any(|part| name.contains(part));
    for program in vm.ok("ls /payload/tests").lines().filter(|name| is_chosen(name)) {
        // An emulated machine takes its time.
        let command = format!(
            "export CORACLE_BIN=/payload/coracle CORACLE_IMAGES_BUILD=/payload/images\n\
             export CORACLE_TEST_PROJECT=/payload/project CORACLE_TEST_PATIENCE=8 RUST_BACKTRACE=1 TMPDIR=/var/tmp\n\
             export INSTA_WORKSPACE_ROOT=/payload/project INSTA_UPDATE=no\n\
             export CORACLE_TEST_CGROUP_DRIVER={driver} {repeated}\n\
             /payload/tests/{program} --test-threads=1 --nocapture {filter}"
        );
        println!("{program}");
        let started = Instant::now();
        if vm.run_shown(LIMIT, &command) != 0 {
            failed.push(program.to_owned());
        }
        println!("{program}: {:.0} s", started.elapsed().as_secs_f64());
    }
    assert!(failed.is_empty(), "tests failed in {failed:?}");
}
