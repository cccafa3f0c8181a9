//! A network of a test's own.

use std::process::Command;

pub(crate) use coracle_tests::namespaces::in_own_network;

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
    // Later versions have a name for this number at `output`, too.
    let named = "hook output priority dstnat;";
    run("nft", &["list", "table", "inet", "coracle"]).replace(named, "hook output priority -100;")
}
