//! `coracle image ls`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use coracle_image::{Image, ImageName, Store};
use jiff::Timestamp;
use serde_json::json;

use super::{listed, short, size};
use crate::cli::age::age;
use crate::cli::table::{Cell, Table};

/// List the images of the node
#[derive(Debug, Args)]
#[command(visible_alias = "list")]
pub(super) struct List {
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

// === impl List ===

impl List {
    pub(super) fn execute(&self, store: &Store) -> anyhow::Result<ExitCode> {
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
            Output::Name => images.iter().flat_map(names).try_for_each(|name| writeln!(out, "{name}"))?,
            Output::Table => table(&images, Timestamp::now()).write(&mut out)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Names to use: by digest where there is no tag.
fn names(image: &Image) -> Vec<String> {
    let names = if image.repo_tags.is_empty() { &image.repo_digests } else { &image.repo_tags };
    names.iter().map(ImageName::familiar).collect()
}

fn table(images: &[Image], now: Timestamp) -> Table {
    let mut table = Table::new(vec!["IMAGE", "ID", "SIZE", "IMPORTED"]);
    for image in images {
        for name in listed(image) {
            let imported = format!("{} ago", age(Some(image.imported), now));
            let row: Vec<Cell> =
                vec![name.into(), short(&image.id).into(), size(image.size).into(), imported.into()];
            table.push(row);
        }
    }
    table
}
