//! Our device plugin, within the agent: it meets the device manager at the socket where every plugin does.

use std::path::PathBuf;

use coracle_device_plugin::{Options, hook_command, run};
use tokio_util::sync::CancellationToken;

use crate::cli::DEVICE_PLUGIN;
use crate::config::Config;

/// Offers the host's devices for as long as the agent is there. Without it pods that ask for no devices, or for those of
/// others' plugins, run as ever, so what keeps it from working is told and no more.
pub(crate) fn start(config: &Config) {
    let devices = &config.devices;
    let loaded = devices.own_plugin.as_deref().map(coracle_device_plugin::Config::load).transpose();
    let plugin = match loaded {
        Ok(plugin) => plugin.unwrap_or_default(),
        Err(error) => return tracing::error!("the node offers no devices of its own: {error}"),
    };
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => {
            return tracing::error!(
                "the node offers no devices of its own: cannot find out the path of this program: {error}"
            );
        }
    };
    let options = Options {
        plugins_dir: devices.plugin_dir.clone(),
        cdi_dir: devices.own_cdi_dir().to_owned(),
        root: PathBuf::from("/"),
        hook: hook_command(&program, &[DEVICE_PLUGIN]),
        config: plugin,
    };
    tokio::spawn(async move {
        // It ends with the agent.
        if let Err(error) = run(options, CancellationToken::new()).await {
            tracing::error!("the node offers no devices of its own any more: {error}");
        }
    });
}
