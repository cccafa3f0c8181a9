//! The docker configurations that lie on the host. They are read when they are asked for, and again when they changed.

use std::collections::HashMap;
use std::env;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use coracle_linux::Stamp;
use rustix::process::geteuid;

use super::{DockerConfig, Format};
use crate::CredentialError;
use crate::ask::home;

/// The most a file may hold, in bytes: as much as a Secret.
const MOST_BYTES: u64 = 1 << 20;

/// Places of docker configurations, the first that counts first.
#[derive(Debug)]
pub struct DockerConfigFiles {
    places: Vec<(PathBuf, Format)>,
    /// Those behind the first that can be used do not count.
    only_first: bool,
    read: Mutex<HashMap<PathBuf, (Stamp, Arc<DockerConfig>)>>,
}

// === impl DockerConfigFiles ===

impl DockerConfigFiles {
    /// These places. With `only_first`, those behind the first file that can be used do not count.
    pub fn new(places: Vec<(PathBuf, Format)>, only_first: bool) -> Self {
        Self { places, only_first, read: Mutex::default() }
    }

    /// A node's, where the [kubelet] looks for them: `config.json` in the agent's and the kubelet's root directory,
    /// in `DOCKER_CONFIG`, in `.docker` at home and in `/.docker`; then `.dockercfg`. The first that is there counts.
    /// The working directory, where the kubelet looks as well, is left out: a service does not choose it.
    ///
    /// [kubelet]: https://kubernetes.io/docs/concepts/containers/images/#configuring-nodes-to-authenticate-to-a-private-registry
    pub fn of_node(root_dir: &Path) -> Self {
        let kubelet = Path::new("/var/lib/kubelet");
        let home = home();
        let docker = env::var_os("DOCKER_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
        let json = [Some(root_dir.to_owned()), Some(kubelet.to_owned()), docker]
            .into_iter()
            .flatten()
            .chain([home.join(".docker"), PathBuf::from("/.docker")])
            .map(|directory| (directory.join("config.json"), Format::ConfigJson));
        let legacy = [root_dir, kubelet, &home, Path::new("/")]
            .map(|directory| (directory.join(".dockercfg"), Format::Dockercfg));
        Self::new(json.chain(legacy).collect(), true)
    }

    /// A user's, where podman and Docker keep them: `REGISTRY_AUTH_FILE` alone if it is set, or else
    /// `$XDG_RUNTIME_DIR/containers/auth.json`, `$XDG_CONFIG_HOME/containers/auth.json`, `config.json` in
    /// `DOCKER_CONFIG` or `~/.docker`, and `~/.dockercfg`. All of them count, in this order.
    pub fn of_user() -> Self {
        let path = |name: &str| env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        if let Some(file) = path("REGISTRY_AUTH_FILE") {
            return Self::new(vec![(file, Format::ConfigJson)], false);
        }
        let home = home();
        let runtime = path("XDG_RUNTIME_DIR").map(|directory| directory.join("containers"));
        let runtime =
            runtime.unwrap_or_else(|| PathBuf::from(format!("/run/containers/{}", geteuid().as_raw())));
        let config = path("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config"));
        let docker = path("DOCKER_CONFIG").unwrap_or_else(|| home.join(".docker"));
        let places = vec![
            (runtime.join("auth.json"), Format::ConfigJson),
            (config.join("containers/auth.json"), Format::ConfigJson),
            (docker.join("config.json"), Format::ConfigJson),
            (home.join(".dockercfg"), Format::Dockercfg),
        ];
        Self::new(places, false)
    }

    /// Those that count, with their paths; what cannot be used of those that are there goes to `problems`.
    pub(crate) fn read(&self, problems: &mut Vec<CredentialError>) -> Vec<(&Path, Arc<DockerConfig>)> {
        let mut found = Vec::new();
        for (path, format) in &self.places {
            match self.read_one(path, *format) {
                Ok(Some(config)) => found.push((path.as_path(), config)),
                Ok(None) => continue,
                Err(error) => {
                    problems.push(error);
                    continue;
                }
            }
            if self.only_first {
                break;
            }
        }
        found
    }

    fn read_one(&self, path: &Path, format: Format) -> Result<Option<Arc<DockerConfig>>, CredentialError> {
        let failed = |source| CredentialError::Read { path: path.to_owned(), source };
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                read.remove(path);
                return Ok(None);
            }
            Err(error) => return Err(failed(error)),
        };
        if let Some((stamp, config)) = read.get(path)
            && *stamp == Stamp::of(&metadata)
        {
            return Ok(Some(Arc::clone(config)));
        }
        read.remove(path);
        // A fifo would hold us up.
        if !metadata.is_file() {
            return Err(failed(io::Error::other("it is not a regular file")));
        }
        let file = File::open(path).map_err(failed)?;
        let stamp = Stamp::of(&file.metadata().map_err(failed)?);
        let mut bytes = Vec::new();
        file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MOST_BYTES {
            return Err(failed(io::Error::other(format!("it is larger than {MOST_BYTES} bytes"))));
        }
        let config = Arc::new(DockerConfig::parse(&path.display().to_string(), format, &bytes)?);
        read.insert(path.to_owned(), (stamp, Arc::clone(&config)));
        Ok(Some(config))
    }
}
