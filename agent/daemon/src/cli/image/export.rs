//! `coracle image export`.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, ValueEnum};
use coracle_image::{Compression, Store};

use super::short;

/// Write images to a file
///
/// The archive is an OCI image layout and what `docker save` writes in one: docker, podman, skopeo and `coracle image
/// import` read it. Images have the same identifiers there.
#[derive(Debug, Args)]
#[command(override_usage = "coracle image export [OPTIONS] <IMAGE>... <FILE>")]
#[command(after_help = "Examples:
  coracle image export nginx:1.27 nginx.tar
  coracle image export --compress zstd nginx:1.27 redis:8 images.tar
  coracle image export nginx:1.27 - | ssh other coracle image import -")]
pub(super) struct Export {
    /// Names, or beginnings of identifiers, and where to write last; - is standard output
    #[arg(value_names = ["IMAGE", "FILE"], required = true, num_args = 2..)]
    words: Vec<String>,
    /// What to write
    #[arg(long, value_enum, default_value_t = Format::Archive)]
    format: Format,
    /// How layers are compressed
    #[arg(long, value_enum, default_value_t = Compress::None)]
    compress: Compress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A tar archive: an OCI image layout that Docker reads too
    Archive,
    /// An OCI image layout as a directory
    OciDir,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Compress {
    /// Not at all
    None,
    /// With gzip
    Gzip,
    /// With zstd
    Zstd,
}

// === impl Export ===

impl Export {
    pub(super) fn execute(self, store: &Store) -> anyhow::Result<ExitCode> {
        let Some((file, images)) = self.words.split_last().filter(|(_, images)| !images.is_empty()) else {
            bail!("name the images, and the file to write them to: coracle image export IMAGE... FILE");
        };
        let compression = match self.compress {
            Compress::None => Compression::None,
            Compress::Gzip => Compression::Gzip,
            Compress::Zstd => Compression::Zstd,
        };
        let exported = match (self.format, file.as_str()) {
            (Format::OciDir, "-") => bail!("a directory cannot be written to standard output"),
            (Format::OciDir, path) => store.export_directory(images, compression, Path::new(path))?,
            (Format::Archive, "-") => {
                let out = io::stdout();
                if out.is_terminal() {
                    bail!("an archive is not for a terminal; name a file, or lead the output into one");
                }
                store.export(images, compression, out.lock())?
            }
            (Format::Archive, path) => store.export_file(images, compression, &PathBuf::from(path))?,
        };
        // Standard output may be the archive.
        let mut err = io::stderr();
        for image in exported {
            let names: Vec<_> = image.names.iter().map(|name| name.familiar()).collect();
            let names = if names.is_empty() { short(&image.id) } else { names.join(", ") };
            writeln!(err, "exported {names} ({})", short(&image.id))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
