//! `coracle image inspect`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use coracle_image::{Image, ImageName, Store};
use serde_json::{Value, json};

/// Show all there is to know of images, as JSON
///
/// The form is that of `docker image inspect` and `podman image inspect`.
#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// Names, or beginnings of identifiers
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

// === impl Inspect ===

impl Inspect {
    pub(super) fn execute(&self, store: &Store) -> anyhow::Result<ExitCode> {
        let images = self.images.iter().map(|image| store.find(image).map(|found| describe(&found)));
        let images = images.collect::<Result<Vec<_>, _>>()?;
        writeln!(io::stdout(), "{:#}", Value::Array(images))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn describe(image: &Image) -> Value {
    let document = &image.document;
    let config = &document.config;
    let texts = |names: &[ImageName]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let pins: Vec<_> = image.pins.iter().map(ToString::to_string).collect();
    let layers: Vec<_> = document.rootfs.diff_ids.iter().map(ToString::to_string).collect();
    json!({
        "Id": image.id.to_string(),
        "Digest": image.manifest.map(|digest| digest.to_string()),
        "RepoTags": texts(&image.repo_tags),
        "RepoDigests": texts(&image.repo_digests),
        "Created": document.created,
        "Architecture": document.architecture,
        "Os": document.os,
        "Size": image.size,
        "Config": {
            "User": config.user,
            "ExposedPorts": config.exposed_ports,
            "Env": config.env,
            "Entrypoint": config.entrypoint,
            "Cmd": config.cmd,
            "Volumes": config.volumes,
            "WorkingDir": config.working_dir,
            "Labels": config.labels,
            "StopSignal": config.stop_signal,
        },
        "RootFS": {"Type": "layers", "Layers": layers},
        "Metadata": {
            "LastTagTime": image.imported.to_string(),
            "LastUsedTime": image.last_used.to_string(),
            "Pinned": pins,
        },
    })
}
