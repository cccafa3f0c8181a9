//! `coracle image import`.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use coracle_image::{ImageName, ImportOptions, RootfsConfig, Store};

use super::short;

/// Import an image from a file or directory
///
/// PATH is an OCI image layout (directory or tar), a `docker save` archive, or a plain root file system
/// (directory or tar). Archives may be compressed with gzip or zstd.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  docker save nginx:1.27 | gzip > nginx.tar.gz
  coracle image import nginx.tar.gz
  podman save nginx:1.27 | coracle image import -
  coracle image import layout/ --name localhost/web:1
  coracle image import rootfs/ --name localhost/shell:1 --cmd sh --cmd -l --env PATH=/bin --user 1000")]
pub(super) struct Import {
    /// File or directory; - is standard input
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// The image's name, as pods use it, or the repository of several that have tags alone; an archive that names its
    /// images needs none
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

// === impl Import ===

impl Import {
    pub(super) fn execute(self, store: &Store) -> anyhow::Result<ExitCode> {
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
        let images = if self.path == Path::new("-") {
            let archive = from_standard_input(store)?;
            let path = format!("/proc/self/fd/{}", archive.as_raw_fd());
            store.import(Path::new(&path), &options).context("standard input")?
        } else {
            store.import(&self.path, &options)?
        };
        for image in images {
            for name in &image.names {
                writeln!(out, "imported {} ({})", name.familiar(), short(&image.image.id))?;
            }
            if image.names.is_empty() {
                writeln!(out, "imported {}", short(&image.image.id))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn from_standard_input(store: &Store) -> anyhow::Result<File> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        bail!("standard input is a terminal: give a file, or the archive on standard input");
    }
    Ok(store.keep_archive("standard input", stdin)?)
}

fn variable(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((name, _)) if !name.is_empty() => Ok(text.to_owned()),
        _ => Err("must be NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_has_a_name() {
        assert_eq!(variable("A=b=c").unwrap(), "A=b=c");
        assert!(variable("A").is_err() && variable("=b").is_err());
    }
}
