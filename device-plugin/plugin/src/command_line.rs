//! The command line, of the program of its own and of the daemon's subcommand.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use coracle_device_api::deviceplugin::PLUGIN_DIR;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{Config, HookError, Options, PluginError, ldconfig, run};

/// The longest a configuration may be.
const MOST_CONFIG: u64 = 4 << 20;

/// Offer the devices of this host to any kubelet: GPUs, and what is configured
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    /// The directory of device plugins' sockets, and of the kubelet's
    /// [default: /var/lib/kubelet/device-plugins]
    #[arg(long, value_name = "DIR")]
    plugins_dir: Option<PathBuf>,
    /// What is offered beside GPUs, and how GPUs are (YAML or JSON); without it every GPU there is, and nothing else
    #[arg(long, value_name = "FILE")]
    device_plugin_config: Option<PathBuf>,
    /// Where GPUs are described to container runtimes (CDI)
    #[arg(long, value_name = "DIR", default_value = "/var/run/cdi")]
    cdi_dir: PathBuf,
    /// Where /dev, /proc, /sys and drivers' files are looked for
    #[arg(long, value_name = "DIR", default_value = "/")]
    host_root: PathBuf,
    /// The program that container runtimes execute as a hook, if it has another path for them than for this process
    #[arg(long, value_name = "PATH")]
    hook_path: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What container runtimes execute in containers with a GPU
    #[command(hide = true)]
    Hook {
        #[command(subcommand)]
        hook: Hook,
    },
}

#[derive(Debug, Subcommand)]
enum Hook {
    /// Tell the container's dynamic linker where libraries are; the container's state (OCI) stands on standard input
    Ldconfig {
        /// By what name programs ask for a library, and where it is in the container
        #[arg(long = "library", value_name = "NAME=PATH")]
        libraries: Vec<String>,
    },
}

/// What failed of a command.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The plugin.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// A hook.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// What a program needs of the system to begin.
    #[error("cannot {what}: {error}")]
    Begin {
        /// What was tried.
        what: &'static str,
        /// Why.
        error: io::Error,
    },
}

// === impl CommandLine ===

impl CommandLine {
    /// Does what the command line asks. `leading` are the words by which this command line is reached in its program:
    /// `device-plugin` in the daemon's, none in that of its own. `usual` is where plugins' sockets are, where it is not said.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn execute(mut self, leading: &[&str], usual: Option<PathBuf>) -> Result<(), CommandError> {
        match self.command.take() {
            Some(Command::Hook { hook: Hook::Ldconfig { libraries } }) => {
                Ok(ldconfig(io::stdin().lock(), &libraries)?)
            }
            None => {
                let usual = usual.unwrap_or_else(|| PLUGIN_DIR.into());
                self.plugins_dir.get_or_insert(usual);
                self.serve(leading)
            }
        }
    }

    fn serve(self, leading: &[&str]) -> Result<(), CommandError> {
        let config =
            self.device_plugin_config.as_deref().map_or_else(|| Ok(Config::default()), Config::load)?;
        let program = match self.hook_path {
            Some(path) => path,
            None => std::env::current_exe()
                .map_err(|error| CommandError::Begin { what: "find out the path of this program", error })?,
        };
        let options = Options {
            plugins_dir: self.plugins_dir.unwrap_or_else(|| PLUGIN_DIR.into()),
            cdi_dir: self.cdi_dir,
            root: self.host_root,
            hook: hook_command(&program, leading),
            config,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime =
            runtime.map_err(|error| CommandError::Begin { what: "start the asynchronous runtime", error })?;
        let result = runtime.block_on(async {
            let cancel = CancellationToken::new();
            let failed = |error| CommandError::Begin { what: "listen for signals", error };
            let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
            let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
            let ended = cancel.clone();
            tokio::spawn(async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                ended.cancel();
            });
            run(options, cancel).await.map_err(CommandError::from)
        });
        // A thread that waits in a driver's library is not waited for.
        runtime.shutdown_background();
        result
    }
}

/// The command by which a runtime executes our hooks; `leading` as in [`CommandLine::execute`].
pub fn hook_command(program: &Path, leading: &[&str]) -> Vec<OsString> {
    [program.as_os_str().to_owned()]
        .into_iter()
        .chain(leading.iter().map(Into::into))
        .chain(["hook".into()])
        .collect()
}

// === impl Config ===

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, and with everything that is wrong in it.
    pub fn load(path: &Path) -> Result<Self, PluginError> {
        let failed = |error| PluginError::ReadConfig { path: path.to_owned(), error };
        let file = std::fs::File::open(path).map_err(failed)?;
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, MOST_CONFIG + 1), &mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MOST_CONFIG {
            return Err(failed(io::Error::other(format!("it has more than {MOST_CONFIG} bytes"))));
        }
        Self::decode(&bytes, &path.display().to_string()).map_err(PluginError::Config)
    }
}
