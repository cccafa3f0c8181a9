//! Networks of a test's own.

use std::ops::Deref;
use std::process::Command;

use coracle_tests::namespaces;
pub(crate) use coracle_tests::namespaces::in_own_network;

/// Runs a command line (of words without spaces) that must succeed, and tells what it printed.
pub(crate) fn run(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    finish(Command::new(words[0]).args(&words[1..]), line)
}

/// Runs a shell's script.
pub(crate) fn script(text: &str) -> String {
    finish(Command::new("sh").args(["-e", "-c", text]), text)
}

fn finish(command: &mut Command, line: &str) -> String {
    let output = command.output();
    let output = output.unwrap_or_else(|error| panic!("{line}: {error}: see scripts/install-missing test"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {}: {complaint}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Another network namespace, with its loopback up. It ends with the test.
pub(crate) struct Namespace(namespaces::Namespace);

impl Namespace {
    pub(crate) fn new() -> Self {
        let namespace = Self(namespaces::Namespace::new());
        namespace.run("ip link set lo up");
        namespace
    }

    /// As [`run`], inside.
    pub(crate) fn run(&self, line: &str) -> String {
        run(&format!("nsenter --net={} {line}", self.path().display()))
    }
}

impl Deref for Namespace {
    type Target = namespaces::Namespace;

    fn deref(&self) -> &namespaces::Namespace {
        &self.0
    }
}
