//! `coracle image`.

mod df;
mod export;
mod import;
mod inspect;
mod ls;
mod progress;
mod prune;
mod pull;
mod rm;
mod tag;
mod users;
mod verify;
mod words;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use coracle_image::Store;
use coracle_server::client::Client;

use self::words::{after, listed, short, size};
use crate::config::Config;

/// Bring images onto the node, list and remove them
#[derive(Debug, Args)]
pub(super) struct Image {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    Pull(pull::Pull),
    Ls(ls::List),
    Inspect(inspect::Inspect),
    Tag(tag::Tag),
    Import(Box<import::Import>),
    Export(export::Export),
    Rm(rm::Remove),
    Prune(prune::Prune),
    Df(df::Df),
    Verify(verify::Verify),
}

// === impl Image ===

impl Image {
    pub(super) fn execute(self, config: &Config) -> anyhow::Result<ExitCode> {
        let store = Store::open(config.images_dir())?;
        let client = || Client::new(config.socket()).when_late(super::tell_late);
        match self.command {
            ImageCommand::Pull(pull) => pull.execute(config, store),
            ImageCommand::Ls(list) => list.execute(&store),
            ImageCommand::Inspect(inspect) => inspect.execute(&store),
            ImageCommand::Tag(tag) => tag.execute(&store),
            ImageCommand::Import(import) => import.execute(&store),
            ImageCommand::Export(export) => export.execute(&store),
            ImageCommand::Rm(remove) => remove.execute(&store, &client()),
            ImageCommand::Prune(prune) => prune.execute(&store, &client()),
            ImageCommand::Df(df) => df.execute(&store, &client()),
            ImageCommand::Verify(verify) => verify.execute(&store),
        }
    }
}
