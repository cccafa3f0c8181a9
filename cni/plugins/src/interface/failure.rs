//! Errors, in a plugin's words.

use std::fmt::Display;

use coracle_cni::{CniError, PluginConfig, code};

/// Of a code, naming network and plugin.
pub(crate) fn failure(config: &PluginConfig, code: u32, what: impl Display) -> CniError {
    CniError::new(code, format!("network {}: {}: {what}", config.name, config.kind))
}

/// The configuration is wrong.
pub(crate) fn invalid(config: &PluginConfig, what: impl Display) -> CniError {
    failure(config, code::INVALID_CONFIG, what)
}

/// CHECK has found something that is not as ADD has left it.
pub(crate) fn damaged(config: &PluginConfig, what: impl Display) -> CniError {
    failure(config, code::CHECK_FAILED, what)
}

/// The kernel has refused, or could not be asked.
pub(crate) fn kernel(config: &PluginConfig) -> impl Fn(coracle_netlink::Error) -> CniError {
    |error| failure(config, code::KERNEL, error)
}

/// A file could not be read or written.
pub(crate) fn file(
    config: &PluginConfig,
    verb: &str,
    path: impl Display,
    error: &std::io::Error,
) -> CniError {
    failure(config, code::IO, format_args!("{verb} {path}: {error}"))
}

/// Keeps the first of several failures of work that goes on.
pub(crate) fn first(results: impl IntoIterator<Item = Result<(), CniError>>) -> Result<(), CniError> {
    results.into_iter().fold(Ok(()), Result::and)
}
