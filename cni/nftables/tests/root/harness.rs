//! A network of a test's own.

use std::any::type_name_of_val;
use std::env;
use std::process::Command;

/// Set in the process that runs inside.
const INSIDE: &str = "CORACLE_TEST_INSIDE";

/// Runs a test in a process of its own, whose network namespace nobody else has: the test calls this with all it does.
pub(crate) fn in_own_network(work: impl FnOnce()) {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: making a network namespace needs root");
        return;
    }
    if env::var_os(INSIDE).is_some() {
        return work();
    }
    let name = type_name_of_val(&work);
    let name = name.strip_suffix("::{{closure}}").unwrap_or(name);
    let (_, name) = name.split_once("::").expect("a test is in a crate");
    let mut inside = Command::new("unshare");
    inside.arg("--net").arg(env::current_exe().unwrap()).args(["--exact", name, "--nocapture"]);
    let status = inside.env(INSIDE, "1").status().unwrap();
    assert!(status.success(), "{name}: {status}");
}

/// Runs a program that must succeed, and tells what it printed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output =
        output.unwrap_or_else(|error| panic!("{program}: {error}: see scripts/install-missing test"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {}: {complaint}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// What nft(8) makes of the table.
pub(crate) fn listed() -> String {
    run("nft", &["list", "table", "inet", "coracle"])
}
