//! What it costs to have an image: pulled from a registry and unpacked, by us and by others.
//!
//! One registry (Debian's `docker-registry`) on the loopback of a network namespace of the benchmark's own serves all of
//! them. They take turns, so that what else the machine does falls on all alike, and each begins on a new file system, with
//! nothing of the image and with nothing left to write. What others leave to the kernel to write some time later, we have on disk when
//! we are done; how long that takes (`syncfs`) after each of them is therefore in a column of its own.

mod content;
mod disk;
mod peers;

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use coracle_tests::docker_registry::DockerRegistry;

use crate::{quantile, row};
use content::Content;
use peers::Tool;

/// Set in the process that has namespaces of its own.
pub(crate) const INSIDE: &str = "CORACLE_BENCH_INSIDE";
const ROUNDS: usize = 3;

/// What one pull took.
#[derive(Clone, Copy)]
pub(crate) struct Cost {
    /// Until the tool said it was done.
    time: Duration,
    /// What then was still to be written to the disk.
    flush: Duration,
    /// The most memory any of its processes had, in kB.
    memory: u64,
}

/// Prints a table for each kind of image, or for those that are named. Runs itself in namespaces of its own.
pub(crate) fn run(named: &[OsString]) {
    let is_named = |content: &Content| named.is_empty() || named.iter().any(|name| name == content.name());
    if env::var_os(INSIDE).is_none() {
        let this = env::current_exe().expect("a program knows its own path");
        let mut inside = Command::new("unshare");
        inside.args(["--net", "--mount", "--propagation", "private"]).arg(&this).arg("images").args(named);
        // Beside the build, because a temporary directory may be in memory.
        let beside = this.parent().expect("a program lies in a directory");
        let status = inside
            .env(INSIDE, "1")
            .env("TMPDIR", beside)
            .status()
            .expect("util-linux's unshare is installed");
        assert!(status.success(), "the benchmark of images: {status}");
        return;
    }
    command(Command::new("ip").args(["link", "set", "lo", "up"]));
    let work = tempfile::tempdir().expect("a directory to work in");
    let registry = DockerRegistry::start();
    for content in Content::ALL.into_iter().filter(is_named) {
        let layers = content.push(work.path(), &registry);
        let tools = [Tool::Coracle, Tool::SkopeoUmoci, Tool::Ctr, Tool::Tar(&layers)];
        let mut costs = [const { Vec::new() }; 4];
        for _ in 0..ROUNDS {
            for (tool, costs) in tools.iter().zip(&mut costs) {
                command(&mut Command::new("sync"));
                costs.push(tool.pull(work.path(), &format!("{}/{}:1", registry.host(), content.name())));
            }
        }
        println!(
            "\n{} ({}):\n\n| by | p50 / most | and on disk, p50 | most memory | to tar, p50 | on disk, to tar on disk |\n|---|---|---|---|---|---|",
            content.title(),
            content.describe(&layers)
        );
        let on_disk = |cost: &Cost| cost.time + cost.flush;
        let (tar, tar_on_disk) = (p50(&costs[3], |cost| cost.time), p50(&costs[3], on_disk));
        for (tool, costs) in tools.iter().zip(&costs) {
            let times: Vec<Duration> = costs.iter().map(|cost| cost.time).collect();
            let memory = costs.iter().map(|cost| cost.memory).max().unwrap_or_default();
            row(
                tool.name(),
                format_args!(
                    "{:.2} / {:.2} s | {:.2} s | {} MB | {:.2} | {:.2}",
                    quantile(&times, 0.5) / 1e3,
                    quantile(&times, 1.0) / 1e3,
                    p50(costs, on_disk),
                    memory / 1000,
                    p50(costs, |cost| cost.time) / tar,
                    p50(costs, on_disk) / tar_on_disk,
                ),
            );
        }
        layers.remove();
    }
}

/// In seconds.
fn p50(costs: &[Cost], of: impl Fn(&Cost) -> Duration) -> f64 {
    quantile(&costs.iter().map(of).collect::<Vec<_>>(), 0.5) / 1e3
}

/// Runs a command in a shell, and says what it took; of its processes the largest is told.
pub(crate) fn measured(work: &Path, script: &str) -> Cost {
    let said = work.join("time");
    let begin = Instant::now();
    // GNU's time knows the most memory of a process and of those it has waited for.
    let mut timed = Command::new("/usr/bin/time");
    timed.args(["-f", "%M", "-o"]).arg(&said).args(["bash", "-euo", "pipefail", "-c", script]);
    command(timed.current_dir(work));
    let time = begin.elapsed();
    let begin = Instant::now();
    command(Command::new("sync").arg("-f").arg(work));
    let memory = fs::read_to_string(&said).expect("time says what it saw");
    Cost { time, flush: begin.elapsed(), memory: memory.trim().parse().expect("a number of kB") }
}

/// Runs a program that has to succeed.
pub(crate) fn command(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
}
