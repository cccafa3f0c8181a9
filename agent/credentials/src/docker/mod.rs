//! Docker's configuration files.

mod config;
mod files;
#[cfg(test)]
mod tests;

pub use config::{DockerConfig, Format};
pub use files::DockerConfigFiles;
