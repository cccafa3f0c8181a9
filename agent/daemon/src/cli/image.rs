//! `coracle image`.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use coracle_image::{Digest, Image as StoredImage, ImageName, ImportOptions, Removed, RootfsConfig, Store};
use coracle_server::client::{Client, ClientError, Pod};
use jiff::Timestamp;
use serde_json::json;

use super::age::age;
use super::table::{Cell, Table};
use crate::config::Config;

/// Bring images onto the node, list and remove them
#[derive(Debug, Args)]
pub(super) struct Image {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    Import(Box<Import>),
    Ls(List),
    Rm(Remove),
}

/// Import an image from a file or directory
///
/// PATH is an OCI image layout (directory or tar), a `docker save` archive, or a plain root file system
/// (directory or tar). Archives may be compressed with gzip or zstd.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  docker save nginx:1.27 | gzip > nginx.tar.gz
  coracle image import nginx.tar.gz
  coracle image import layout/ --name localhost/web:1
  coracle image import rootfs/ --name localhost/shell:1 --cmd sh --cmd -l --env PATH=/bin --user 1000")]
struct Import {
    /// File or directory
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// The image's name, as pods use it; an archive that names its images needs none
    #[arg(long, value_name = "NAME")]
    name: Option<ImageName>,
    /// A word of the program to run; repeat it for its arguments (root file systems only)
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    entrypoint: Vec<String>,
    /// A word of the default arguments, or of the program without --entrypoint; repeatable
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    cmd: Vec<String>,
    /// A variable of the program's environment; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<String>,
    /// The user to run as: name or number, with an optional :group
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// The directory to run in
    #[arg(long, value_name = "DIR")]
    workdir: Option<String>,
}

/// List the images of the node
#[derive(Debug, Args)]
#[command(visible_alias = "list")]
struct List {
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Table, hide_default_value = true)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// One line per name
    Table,
    /// In the form of the container runtime interface
    Json,
    /// Names alone
    Name,
}

/// Remove a name, and with its last name the image
#[derive(Debug, Args)]
#[command(visible_alias = "remove")]
struct Remove {
    /// Names, or beginnings of identifiers
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

// === impl Image ===

impl Image {
    pub(super) fn execute(self, config: &Config) -> anyhow::Result<ExitCode> {
        let store = Store::open(config.images_dir())?;
        match self.command {
            ImageCommand::Import(import) => import.execute(&store),
            ImageCommand::Ls(list) => list.execute(&store),
            ImageCommand::Rm(remove) => remove.execute(&store, &Client::new(config.socket())),
        }
    }
}

// === impl Import ===

impl Import {
    fn execute(self, store: &Store) -> anyhow::Result<ExitCode> {
        let options = ImportOptions {
            name: self.name,
            config: RootfsConfig {
                entrypoint: self.entrypoint,
                cmd: self.cmd,
                env: self.env,
                user: self.user,
                working_dir: self.workdir,
            },
            ..ImportOptions::default()
        };
        let mut out = io::stdout();
        for image in store.import(&self.path, &options)? {
            for name in &image.names {
                writeln!(out, "imported {} ({})", name.familiar(), short(&image.id))?;
            }
            if image.names.is_empty() {
                writeln!(out, "imported {}", short(&image.id))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

// === impl List ===

impl List {
    fn execute(&self, store: &Store) -> anyhow::Result<ExitCode> {
        let images = store.list()?;
        let mut out = io::stdout();
        match self.output {
            Output::Json => {
                let familiar =
                    |names: &[ImageName]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
                let images = images.iter().map(|image| {
                    json!({
                        "id": image.id.to_string(),
                        "repoTags": familiar(&image.repo_tags),
                        "repoDigests": familiar(&image.repo_digests),
                        "size": image.size.to_string(),
                    })
                });
                let list = json!({"images": images.collect::<Vec<_>>()});
                writeln!(out, "{list:#}")?;
            }
            Output::Name => {
                images
                    .iter()
                    .flat_map(|image| &image.repo_tags)
                    .try_for_each(|name| writeln!(out, "{}", name.familiar()))?;
            }
            Output::Table => table(&images, Timestamp::now()).write(&mut out)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn table(images: &[StoredImage], now: Timestamp) -> Table {
    let mut table = Table::new(vec!["IMAGE", "ID", "SIZE", "IMPORTED"]);
    for image in images {
        let mut names: Vec<_> = image.repo_tags.iter().map(ImageName::familiar).collect();
        if names.is_empty() {
            names.push("<none>".to_owned());
        }
        for name in names {
            let imported = format!("{} ago", age(Some(image.imported), now));
            let row: Vec<Cell> =
                vec![name.into(), short(&image.id).into(), size(image.size).into(), imported.into()];
            table.push(row);
        }
    }
    table
}

// === impl Remove ===

impl Remove {
    fn execute(self, store: &Store, client: &Client) -> anyhow::Result<ExitCode> {
        let users = users(client)?;
        let mut out = io::stdout();
        for image in &self.images {
            match store.remove(image, |id| users.get(&id.to_string()).cloned())? {
                Removed::Untagged(name) => writeln!(out, "untagged {}", name.familiar())?,
                Removed::Deleted { id, freed, .. } => {
                    writeln!(out, "deleted {} ({} freed)", short(&id), size(freed))?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Which pod uses an image, by the image's identifier. Containers that run hold their image by
/// themselves, also while no agent runs; what only the agent knows is who waits to be started again.
fn users(client: &Client) -> anyhow::Result<HashMap<String, String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let pods: Vec<Pod> = match runtime.block_on(client.pods()) {
        Ok(pods) => pods,
        Err(ClientError::Unreachable { .. }) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let living = pods.iter().filter(|pod| !matches!(pod.status.phase.as_str(), "Succeeded" | "Failed"));
    let used = living.flat_map(|pod| {
        let status = &pod.status;
        let statuses = status.init_container_statuses.iter().chain(&status.container_statuses);
        let statuses = statuses.chain(&status.ephemeral_container_statuses);
        let name = format!("pod {}/{}", pod.metadata.namespace, pod.metadata.name);
        statuses.map(move |status| (status.image_id.clone(), name.clone()))
    });
    Ok(used.collect())
}

fn variable(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((name, _)) if !name.is_empty() => Ok(text.to_owned()),
        _ => Err("must be NAME=VALUE".to_owned()),
    }
}

/// As many digits as people tell images apart by.
fn short(id: &Digest) -> String {
    id.hex().chars().take(12).collect()
}

/// In decimal units, as `docker image ls` and `crictl images` give it.
fn size(bytes: u64) -> String {
    let units = [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
    match units.into_iter().find(|(_, unit)| bytes >= *unit) {
        // Three digits matter.
        Some((name, unit)) => {
            let tenths = bytes.saturating_mul(10) / unit;
            if tenths < 1000 {
                format!("{}.{}{name}", tenths / 10, tenths % 10)
            } else {
                format!("{}{name}", tenths / 10)
            }
        }
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.0kB"),
            (12_345_678, "12.3MB"),
            (123_456_789, "123MB"),
            (5_000_000_000, "5.0GB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn a_variable_has_a_name() {
        assert_eq!(variable("A=b=c").unwrap(), "A=b=c");
        assert!(variable("A").is_err() && variable("=b").is_err());
    }
}
