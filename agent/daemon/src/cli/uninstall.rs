//! `coracle uninstall`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use crate::config::Config;
use crate::install::Place;
use crate::uninstall::{Keep, uninstall};

/// End all pods, and remove everything of Coracle from this host
///
/// Ends the pods as if their manifests were taken away, also where no agent runs. Then nothing is left of them, of the
/// node, and of what `coracle install` has installed: no process, cgroup, mount, interface, rule or file, but the
/// forwarding of packets (net.ipv4.ip_forward and that of IPv6), on which others may rely.
#[derive(Debug, Args)]
pub(super) struct Uninstall {
    /// Keep images, configuration and manifests
    #[arg(long)]
    keep_data: bool,
    /// Where it was installed [default: where this program is]
    #[arg(long, value_name = "DIR")]
    prefix: Option<PathBuf>,
    /// The root directory of a file system that is being made
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Keep what was installed: a package manager removes it
    #[arg(long, hide = true)]
    keep_files: bool,
}

// === impl Uninstall ===

impl Uninstall {
    /// `own_file`: whether the configuration is that of a file somewhere else than where it is by default.
    pub(super) fn execute(
        self,
        config: impl FnOnce() -> anyhow::Result<Config>,
        own_file: bool,
    ) -> anyhow::Result<ExitCode> {
        let prefix = match self.prefix {
            Some(prefix) => prefix,
            None => own_prefix()?,
        };
        let keep = Keep { etc: own_file, data: self.keep_data, files: self.keep_files };
        uninstall(&Place::new(prefix, self.root)?, config, keep)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// `/usr/local`, of `/usr/local/bin/coracle`.
fn own_prefix() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("cannot tell where this program is; use --prefix")?;
    let prefix = program.parent().and_then(Path::parent).map(Path::to_owned);
    prefix.with_context(|| format!("{} is in no prefix; use --prefix", program.display()))
}
