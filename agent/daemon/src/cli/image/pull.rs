//! `coracle image pull`.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use coracle_credentials::{
    CredentialProviders, DockerConfigFiles, Format, Found, Keyring, PullSecrets, Source,
};
use coracle_image::{ImageName, Store};
use coracle_pull::{PullLimits, Puller};
use coracle_registry::{Credential, Secret};

use super::progress::Shown;
use super::{short, size};
use crate::agent::Signals;
use crate::config::Config;

/// As a shell sees a program that SIGINT has ended.
const INTERRUPTED: u8 = 130;

/// The most that standard input may have as a password.
const MAX_PASSWORD: u64 = 64 << 10;

/// Pull images from registries
///
/// Hosts, mirrors and certificates are those of the configuration (hosts.toml in /etc/coracle/certs.d,
/// /etc/containerd/certs.d or /etc/docker/certs.d), as for pods, and proxies those of the environment. No agent need
/// run. The image is the one for this machine. An interrupted pull goes on where it was with the next one.
///
/// Credentials are those of --username, or else of --authfile, or else the user's own, where podman and Docker keep
/// them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle image pull nginx
  coracle image pull registry.example.com/team/web:1.4
  coracle image pull --username me --password-stdin registry.example.com/team/web < password")]
pub(super) struct Pull {
    /// Names, by tag or digest
    #[arg(value_name = "NAME", required = true)]
    names: Vec<ImageName>,
    /// Print the images' identifiers alone
    #[arg(short, long)]
    quiet: bool,
    /// A file of credentials, as `docker login` and `podman login` write it
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// User name for the registry; the password is read from standard input
    #[arg(short, long, value_name = "USER", requires = "password_stdin")]
    username: Option<String>,
    /// Read the password of --username, or the access token in its place, from standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
}

// === impl Pull ===

impl Pull {
    pub(super) fn execute(self, config: &Config, store: Store) -> anyhow::Result<ExitCode> {
        // Asked for before anything is begun, and in no runtime: it may wait for a person.
        let own = self.username.as_deref().map(credential).transpose()?;
        let files = match &self.authfile {
            Some(path) => {
                std::fs::metadata(path).with_context(|| format!("--authfile {}", path.display()))?;
                DockerConfigFiles::new(vec![(path.clone(), Format::ConfigJson)], true)
            }
            None => DockerConfigFiles::of_user(),
        };
        let keyring = match &config.images.credential_providers {
            Some(providers) => Keyring::with_providers(
                vec![files],
                CredentialProviders::load(&providers.config, &providers.bin_dir)?,
            ),
            None => Keyring::new(vec![files]),
        };
        coracle_linux::keep_malloc_small(crate::agent::MALLOC_ARENAS);
        let registries = crate::registry::client(config)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let puller = Puller::new(store, registries, PullLimits::default(), None);
        let code = runtime.block_on(async {
            let mut signals = Signals::new()?;
            tokio::select! {
                code = self.pull_all(&puller, &keyring, own) => code,
                () = signals.recv() => {
                    eprintln!("interrupted; the layers that are complete are kept for the next pull");
                    Ok(ExitCode::from(INTERRUPTED))
                }
            }
        });
        runtime.shutdown_background();
        code
    }

    /// Pulls one after another; one that fails keeps none of the others from being tried.
    async fn pull_all(
        &self,
        puller: &Puller,
        keyring: &Keyring,
        own: Option<Credential>,
    ) -> anyhow::Result<ExitCode> {
        let mut failed = Vec::new();
        for name in &self.names {
            if let Err(error) = self.pull(puller, keyring, own.as_ref(), name).await {
                if self.names.len() == 1 {
                    return Err(error);
                }
                eprintln!("error: {}", crate::words::whole(&error));
                failed.push(name.familiar());
            }
        }
        if failed.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        bail!("{} of {} images were not pulled: {}", failed.len(), self.names.len(), failed.join(", "))
    }

    async fn pull(
        &self,
        puller: &Puller,
        keyring: &Keyring,
        own: Option<&Credential>,
        name: &ImageName,
    ) -> anyhow::Result<()> {
        let found = match own {
            Some(credential) => {
                vec![Found { credential: credential.clone(), source: Source::File("--username".into()) }]
            }
            None => {
                let lookup = keyring.lookup(name, &PullSecrets::default()).await;
                for problem in &lookup.problems {
                    eprintln!("warning: {problem}");
                }
                lookup.found
            }
        };
        let pull = puller.pull(name, found);
        let progress = pull.progress();
        let shown = async {
            if !self.quiet {
                Shown::new(name).follow(progress).await;
            }
        };
        let (pulled, ()) = tokio::join!(pull.ended(), shown);
        let pulled = pulled.map_err(|error| {
            let room = "; coracle image prune --all removes the images that nobody uses";
            let remedy = if error.is_disk_full() { room } else { "" };
            anyhow::anyhow!("cannot pull {}: {error}{remedy}", name.familiar())
        })?;
        let (id, out) = (pulled.image.id, &mut io::stdout());
        if self.quiet {
            writeln!(out, "{id}")?;
        } else if pulled.fetched {
            writeln!(out, "pulled {} ({}, {})", name.familiar(), short(&id), size(pulled.image.size))?;
        } else {
            writeln!(out, "{} is up to date ({})", name.familiar(), short(&id))?;
        }
        Ok(())
    }
}

fn credential(username: &str) -> anyhow::Result<Credential> {
    let mut password = String::new();
    let mut input = io::stdin().lock().take(MAX_PASSWORD);
    input.read_to_string(&mut password).context("cannot read the password from standard input")?;
    let password = password.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        bail!("there is no password on standard input");
    }
    Ok(Credential::Basic { username: username.to_owned(), password: Secret::new(password) })
}
