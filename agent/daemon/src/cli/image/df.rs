//! `coracle image df`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use coracle_image::{ImageUsage, Store, Usage};
use coracle_server::client::Client;
use serde_json::{Value, json};

use super::users::Users;
use super::{listed, short, size};
use crate::cli::table::{Cell, Table};

/// Show what images take of the disk
///
/// Layers that several images have are counted with each of them, and once in the totals.
#[derive(Debug, Args)]
pub(super) struct Df {
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Table, hide_default_value = true)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Table,
    /// Numbers of bytes, for programs
    Json,
}

// === impl Df ===

impl Df {
    pub(super) fn execute(&self, store: &Store, client: &Client) -> anyhow::Result<ExitCode> {
        let users = Users::ask(client, store)?;
        let usage = store.df(|id| users.of(id))?;
        let mut out = io::stdout();
        match self.output {
            Output::Json => writeln!(out, "{:#}", json(&usage))?,
            Output::Table => print(&usage, &mut out)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print(usage: &Usage, out: &mut impl Write) -> io::Result<()> {
    let mut table = Table::new(vec!["IMAGE", "ID", "SIZE", "UNIQUE", "KEPT BY"]);
    for image in &usage.images {
        let row: Vec<Cell> = vec![
            listed(&image.image).swap_remove(0).into(),
            short(&image.image.id).into(),
            size(image.size).into(),
            size(image.unique).into(),
            keeper(image).unwrap_or_else(|| "<none>".to_owned()).into(),
        ];
        table.push(row);
    }
    if !table.is_empty() {
        table.write(out)?;
        writeln!(out)?;
    }
    writeln!(out, "layers of images:   {} (shared by several: {})", size(usage.layers), size(usage.shared))?;
    writeln!(out, "layers of none:     {}", size(usage.unreferenced))?;
    writeln!(out, "on their way:       {}", size(usage.in_flight))?;
    writeln!(out, "could be removed:   {}", size(usage.reclaimable))
}

fn keeper(usage: &ImageUsage) -> Option<String> {
    usage.user.clone().or_else(|| usage.image.pins.first().map(ToString::to_string))
}

fn json(usage: &Usage) -> Value {
    let image = |usage: &ImageUsage| {
        json!({
            "id": usage.image.id.to_string(),
            "repoTags": usage.image.repo_tags.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "size": usage.size,
            "unique": usage.unique,
            "keptBy": keeper(usage),
        })
    };
    json!({
        "images": usage.images.iter().map(image).collect::<Vec<_>>(),
        "layers": usage.layers,
        "shared": usage.shared,
        "unreferenced": usage.unreferenced,
        "inFlight": usage.in_flight,
        "reclaimable": usage.reclaimable,
    })
}
