//! The command line: one file per verb.

mod age;
mod attach;
mod check;
mod config;
mod cp;
mod debug;
mod describe;
mod detach;
mod escape;
mod exec;
mod follow;
mod get;
mod image;
mod install;
mod logs;
mod port_forward;
pub(crate) mod prefix;
mod session;
pub(crate) mod stream;
pub(crate) mod style;
mod summary;
mod table;
mod target;
mod terminal;
mod uninstall;
mod version;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use coracle_server::client::Client;

use crate::config::{Config, Overrides};

/// Runs Kubernetes pods on this machine, with nothing else installed.
///
/// One program is the node: it reads the same Pod manifests as Kubernetes, starts their containers and
/// keeps them running. The words are kubectl's where kubectl has them.
#[derive(Debug, Parser)]
#[command(name = "coracle", version, propagate_version = false, max_term_width = 100)]
#[command(
    after_help = "Every option under \"Node options\" can be given to every command. Clients find the agent by --run-dir."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    overrides: Overrides,
}

/// The subcommand by which this program is the device plugin, and by which runtimes execute its hooks.
pub(crate) const DEVICE_PLUGIN: &str = "device-plugin";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the node: the pods of the manifest directory, until SIGTERM; pods outlive the agent
    Agent,
    /// Run the pods of manifests in the foreground, print their logs, and leave nothing behind
    #[command(after_help = "Example:
  coracle run -f examples/two-containers.yaml")]
    Run {
        /// Manifests, or directories of them
        #[arg(short, long = "filename", value_name = "FILE", required = true)]
        files: Vec<std::path::PathBuf>,
    },
    Get(get::Get),
    Describe(describe::Describe),
    Logs(logs::Logs),
    Exec(exec::Exec),
    Attach(attach::Attach),
    PortForward(port_forward::PortForward),
    Cp(cp::Cp),
    Debug(debug::Debug),
    Image(image::Image),
    Check(check::Check),
    Config(config::Config),
    DevicePlugin(coracle_device_plugin::CommandLine),
    Install(install::Install),
    Uninstall(uninstall::Uninstall),
    /// Print a completion script for a shell
    #[command(after_help = "Example:
  coracle completion bash > /etc/bash_completion.d/coracle")]
    Completion {
        /// The shell
        shell: Shell,
    },
    /// Print the version
    Version,
}

// === impl Cli ===

impl Cli {
    /// Does what the command line asks.
    pub(crate) fn execute(self) -> anyhow::Result<ExitCode> {
        let config = || Config::load(&self.overrides);
        let client = || client(&self.overrides);
        match self.command {
            Command::Agent => crate::agent::run(&self.overrides),
            Command::Run { files } => crate::run::run(&Config::load(&self.overrides)?, &files),
            Command::Get(get) => block_on(get.execute(&client()?)),
            Command::Describe(describe) => block_on(describe.execute(&client()?)),
            Command::Logs(logs) => block_on(logs.execute(&client()?)),
            Command::Exec(exec) => block_on(exec.execute(&client()?)),
            Command::Attach(attach) => block_on(attach.execute(&client()?)),
            Command::PortForward(forward) => block_on(forward.execute(&client()?)),
            Command::Cp(cp) => block_on(cp.execute(&client()?)),
            Command::Debug(debug) => block_on(debug.execute(&client()?)),
            Command::Image(image) => image.execute(&config()?),
            Command::Check(check) => check.execute(&config()?),
            Command::Config(config) => config.execute(&self.overrides),
            Command::DevicePlugin(plugin) => {
                crate::agent::logging("info");
                plugin.execute(&[DEVICE_PLUGIN], self.overrides.device_plugin_dir)?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Install(install) => install.execute(),
            Command::Uninstall(uninstall) => {
                uninstall.execute(|| Ok(config()?), self.overrides.config.is_some())
            }
            Command::Completion { shell } => {
                // Into memory first: the generator panics where a pipe closes.
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Self::command(), "coracle", &mut script);
                std::io::Write::write_all(&mut std::io::stdout(), &script)?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Version => version::execute(),
        }
    }
}

/// A client of the agent there is, of which a configuration that became wrong since it was started says nothing.
fn client(overrides: &Overrides) -> anyhow::Result<Client> {
    let (socket, invalid) = crate::config::socket(overrides)?;
    if invalid.is_some() {
        eprintln!(
            "warning: the configuration is wrong (`coracle config check` says how); the agent may go by another"
        );
    }
    Ok(Client::new(socket).when_late(tell_late))
}

/// Where systemd holds the socket, the client of an agent that cannot start waits for it: not without a word.
fn tell_late() {
    eprintln!("the agent has not answered yet: `systemctl status coracle` may say why");
}

/// Runs a client's work on one thread.
fn block_on(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(work);
    // A read of standard input that nobody waits for any more must not hold the process.
    runtime.shutdown_background();
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// The help of every command, as a stranger reads it.
    #[test]
    fn help() {
        fn write(command: &mut clap::Command, path: &str, out: &mut String) {
            let path = format!("{path} {}", command.get_name());
            out.push_str(&format!("$ {} --help\n{}\n", path.trim(), command.render_long_help()));
            for inner in command.get_subcommands_mut().filter(|inner| inner.get_name() != "help") {
                write(inner, &path, out);
            }
        }
        let mut out = String::new();
        // Global options are told once: in front.
        write(&mut Cli::command(), "", &mut out);
        insta::assert_snapshot!(out);
    }
}
