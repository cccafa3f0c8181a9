//! `coracle config`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use coracle_device_plugin::PluginError;
use serde_json::{Map, Value, json};

use crate::config::table::FIELDS;
use crate::config::{ConfigError, Loaded, Origin, Overrides, written};

/// Check the configuration, show what counts, and write a file to start from
#[derive(Debug, Args)]
pub(super) struct Config {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    Check(Check),
    Show(Show),
    /// Print a file with every field, its default and what it means
    #[command(after_help = "Example:
  coracle config defaults > /etc/coracle/config.yaml")]
    Defaults,
}

/// Say everything that is wrong with the configuration, and what in it has no effect
///
/// The file that `devicePluginConfig` names is looked into as well.
///
/// Exits with 1 when something is wrong. Nothing is applied; a running agent reads the file with
/// `systemctl reload coracle`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  coracle config check /var/lib/kubelet/config.yaml")]
struct Check {
    /// The file [default: that of --config]
    file: Option<PathBuf>,
}

/// Show the settings that count: flags over the file over defaults
///
/// Header values and credentials in addresses are masked. What a running agent goes by, which may have
/// been started with other flags, says /configz of its API.
#[derive(Debug, Args)]
struct Show {
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Yaml)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// YAML, with where each value comes from
    Yaml,
    /// JSON
    Json,
}

// === impl Config ===

impl Config {
    pub(super) fn execute(self, overrides: &Overrides) -> anyhow::Result<ExitCode> {
        match self.command {
            ConfigCommand::Check(check) => check.execute(overrides),
            ConfigCommand::Show(show) => show.execute(overrides),
            ConfigCommand::Defaults => {
                io::stdout().write_all(written::defaults().as_bytes())?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

impl Check {
    fn execute(self, overrides: &Overrides) -> anyhow::Result<ExitCode> {
        let overrides = match self.file {
            Some(file) => &Overrides { config: Some(file), ..overrides.clone() },
            None => overrides,
        };
        let mut out = io::stdout();
        let (is_right, own_plugin) = match Loaded::load(overrides) {
            Ok(loaded) => {
                for warning in &loaded.warnings {
                    writeln!(out, "warning: {warning}")?;
                }
                match &loaded.file {
                    Some(file) => writeln!(out, "{}: nothing is wrong", file.display())?,
                    None => writeln!(out, "there is no configuration file, and none is needed")?,
                }
                (true, loaded.config.devices.own_plugin)
            }
            Err(ConfigError::Invalid(invalid)) => {
                writeln!(out, "{invalid}")?;
                (false, invalid.own_plugin)
            }
            Err(error) => return Err(error.into()),
        };
        let plugin_is_right = match own_plugin {
            Some(file) => check_own_plugin(&file, &mut out)?,
            None => true,
        };
        Ok(if is_right && plugin_is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Says what is wrong with the file that `devicePluginConfig` names. Whether nothing is.
fn check_own_plugin(file: &Path, out: &mut impl Write) -> io::Result<bool> {
    match coracle_device_plugin::Config::load(file) {
        Ok(_) => writeln!(out, "{}: nothing is wrong", file.display())?,
        Err(PluginError::Config(faults)) => {
            for fault in &faults {
                writeln!(out, "{fault}")?;
            }
            return Ok(false);
        }
        Err(error) => {
            writeln!(out, "devicePluginConfig: {error}")?;
            return Ok(false);
        }
    }
    Ok(true)
}

impl Show {
    fn execute(&self, overrides: &Overrides) -> anyhow::Result<ExitCode> {
        let loaded = Loaded::load(overrides)?;
        let settings =
            FIELDS.iter().filter_map(|field| Some((field.name, loaded.config.settings.shown(field)?)));
        let header = [("apiVersion", json!(written::VERSION)), ("kind", json!(written::KIND))];
        let all = header.into_iter().chain(settings);
        let mut out = io::stdout();
        match self.output {
            Output::Json => {
                let all: Map<String, Value> = all.map(|(name, value)| (name.to_owned(), value)).collect();
                serde_json::to_writer_pretty(&mut out, &all).map_err(io::Error::from)?;
                writeln!(out)?;
            }
            Output::Yaml => {
                let origin = |name| match loaded.origins.get(name) {
                    None | Some(Origin::Default) => None,
                    Some(origin) => Some(origin.to_string()),
                };
                let text = written::yaml(all.map(|(name, value)| (name, value, origin(name))))?;
                out.write_all(text.as_bytes())?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
