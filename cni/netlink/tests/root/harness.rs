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
