//! systemd, as far as an installation has to do with it.

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use coracle_program::Program;

use super::place::Place;
use crate::words::whole;

/// There where systemd is the service manager: sd_booted(3).
const BOOTED: &str = "/run/systemd/system";
/// Where its programs are.
const DIRECTORIES: [&str; 4] = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"];
/// What a call may take: an agent may have hundreds of pods to take over before it is ready.
const LIMIT: Duration = Duration::from_secs(330);
const UNITS: [&str; 2] = ["coracle.socket", "coracle.service"];

/// systemd on this host, by its own programs.
pub(crate) struct Systemd(());

// === impl Systemd ===

impl Systemd {
    /// The one that is to be told of the installation; none where none runs, or the installation is not of this host.
    pub(crate) fn of(place: &Place) -> anyhow::Result<Option<Self>> {
        let found =
            !place.is_elsewhere() && Path::new(BOOTED).try_exists().context("cannot look for systemd")?;
        Ok(found.then_some(Self(())))
    }

    /// Has it read units, and make what `tmpfiles.d` says.
    pub(crate) fn reload(&self) -> anyhow::Result<()> {
        execute("systemctl", &["daemon-reload"])?;
        // The agent makes what is missing.
        if let Err(error) = execute("systemd-tmpfiles", &["--create", "coracle.conf"]) {
            eprintln!("warning: {}", whole(&error));
        }
        Ok(())
    }

    /// Starts the agent that was never started, or has the one that runs replaced; whether that could be: one that the
    /// administrator has masked is to run no more.
    pub(crate) fn start(&self, is_new: bool) -> anyhow::Result<bool> {
        if property(UNITS[1], "LoadState")? == "masked" {
            println!("{0} is masked, and is not started: `systemctl unmask {0}` allows it", UNITS[1]);
            return Ok(false);
        }
        // One that runs nevertheless was started by hand.
        if is_new && property(UNITS[1], "ActiveState")? != "active" {
            execute("systemctl", &["enable", "--quiet", UNITS[0], UNITS[1]])?;
            // In this order: a socket that is not there yet is not handed over.
            execute("systemctl", &["start", UNITS[0]])?;
            execute("systemctl", &["start", UNITS[1]])?;
            println!("the agent runs");
        } else {
            execute("systemctl", &["try-restart", UNITS[1]])?;
        }
        Ok(true)
    }

    /// Stops the agent, and has it not started again. Its pods end only if it is configured so.
    pub(crate) fn stop(&self) -> anyhow::Result<()> {
        for unit in UNITS {
            if property(unit, "LoadState")? == "loaded" {
                execute("systemctl", &["stop", unit])?;
                execute("systemctl", &["disable", "--quiet", unit])?;
            }
        }
        Ok(())
    }

    /// Has it forget units that are gone.
    pub(crate) fn forget(&self) -> anyhow::Result<()> {
        execute("systemctl", &["daemon-reload"])?;
        // Only of a unit that has failed is anything left.
        let _ = execute("systemctl", &["reset-failed", UNITS[0], UNITS[1]]);
        Ok(())
    }
}

/// What systemd says of a unit.
fn property(unit: &str, name: &str) -> anyhow::Result<String> {
    let property = format!("--property={name}");
    Ok(execute("systemctl", &["show", &property, "--value", unit])?.trim().to_owned())
}

/// Executes a program of systemd's that must succeed; what it says.
fn execute(name: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let line = || format!("{name} {}", arguments.join(" "));
    let Some(path) = coracle_program::find(name, DIRECTORIES) else {
        bail!("cannot find {name} in {}: install systemd's programs", DIRECTORIES.join(", "));
    };
    let arguments: Vec<OsString> = arguments.iter().map(Into::into).collect();
    let program = Program {
        name: None,
        inherits: true,
        path: &path,
        arguments: &arguments,
        without: &[],
        variables: &[],
        stdin_name: "coracle-systemd",
        stdin: &[],
        most_stdout: 1 << 20,
        deadline: Instant::now().checked_add(LIMIT),
    };
    let answer = program.execute().with_context(|| format!("cannot execute {}", line()))?;
    if !answer.status.success() {
        bail!("`{}` failed ({}): {}", line(), answer.status, coracle_program::excerpt(&answer.stderr));
    }
    Ok(String::from_utf8_lossy(&answer.stdout).into_owned())
}
