//! The client of image registries, as the configuration has it.

use anyhow::Context;
use coracle_fetch::Proxies;
use coracle_registry::{Client, Limits, Platform, Settings};

use crate::config::Config;

/// A client that asks as the configuration, and the environment's proxies, say.
pub(crate) fn client(config: &Config) -> anyhow::Result<Client> {
    let proxies = Proxies::from_environment().context("cannot ask registries by this proxy")?;
    let settings = Settings {
        hosts_dirs: config.images.registry_config_dirs.clone(),
        proxies,
        user_agent: concat!("coracle/", env!("CARGO_PKG_VERSION")).to_owned(),
        limits: Limits::default(),
        platform: Platform::host(),
    };
    Ok(Client::new(settings)?)
}
