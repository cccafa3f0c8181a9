//! Docker's configuration files.

mod config;
mod files;
#[cfg(test)]
mod tests;

pub(crate) use config::basic;
pub use config::{DockerConfig, Format};
pub use files::DockerConfigFiles;
