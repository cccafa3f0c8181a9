//! The hosts of registries, as they are configured now.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use coracle_fetch::{Identity, Tls, Trust};
use tokio::task::spawn_blocking;

use super::file::{Configured, HostsFile};
use super::{Capabilities, Host, elsewhere};
use crate::error::Error;

/// More than this is no configuration.
const MOST: u64 = 1 << 20;

/// Knows the hosts of every registry. Files are read anew for each request; what TLS needs of them is kept.
#[derive(Debug)]
pub(crate) struct Hosts {
    directories: Vec<PathBuf>,
    tls: Mutex<HashMap<Trust, Arc<Tls>>>,
    /// What was warned of already.
    warned: Mutex<HashSet<String>>,
}

/// What was found of a registry.
struct Found {
    path: PathBuf,
    file: HostsFile,
}

// === impl Hosts ===

impl Hosts {
    pub(crate) fn new(directories: Vec<PathBuf>) -> Self {
        Self { directories, tls: Mutex::default(), warned: Mutex::default() }
    }

    /// Whom to ask for the images of a registry, in order.
    pub(crate) async fn of(&self, registry: &str) -> Result<Vec<Arc<Host>>, Error> {
        let (directories, name) = (self.directories.clone(), registry.to_owned());
        let unread = |reason: String| Error::HostsFile { path: PathBuf::from("hosts.toml"), reason };
        let found = spawn_blocking(move || find(&directories, &name)).await;
        let found = found.map_err(|error| unread(error.to_string()))??;
        let Some(Found { path, file }) = found else {
            let (tls, elsewhere) = self.pair(&Trust::default());
            return Ok(vec![Arc::new(Host::default_of(registry, tls, elsewhere))]);
        };
        for warning in file.warnings {
            let text = format!("{}: {warning}", path.display());
            if self.warned.lock().unwrap_or_else(PoisonError::into_inner).insert(text.clone()) {
                tracing::warn!("{text}");
            }
        }
        let mut hosts: Vec<Arc<Host>> = Vec::new();
        for configured in file.hosts {
            let (tls, elsewhere) = self.pair(&configured.trust);
            let host = Host::configured(configured, registry, tls, elsewhere);
            // Most files name the registry itself as a host, with its CA, and again as `server`, without.
            if !hosts.iter().any(|before| before.stands_for(&host)) {
                hosts.push(Arc::new(host));
            }
        }
        Ok(hosts)
    }

    fn pair(&self, trust: &Trust) -> (Arc<Tls>, Arc<Tls>) {
        let mut all = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        let mut one =
            |trust: Trust| Arc::clone(all.entry(trust.clone()).or_insert_with(|| Arc::new(Tls::new(trust))));
        (one(trust.clone()), one(elsewhere(trust)))
    }
}

/// What is configured for a registry, as containerd looks for it: of each directory the host's, then `_default`; and
/// the first directory that has either.
fn find(directories: &[PathBuf], registry: &str) -> Result<Option<Found>, Error> {
    let names = names_of(registry);
    let all = directories.iter().flat_map(|directory| names.iter().map(move |name| directory.join(name)));
    for directory in all {
        let path = directory.join("hosts.toml");
        let failed = |reason: String| Error::HostsFile { path: path.clone(), reason };
        match fs::metadata(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error.to_string())),
            Ok(metadata) if !metadata.is_dir() => continue,
            Ok(_) => {}
        }
        let file = match fs::File::open(&path) {
            Ok(file) => {
                let mut text = String::new();
                file.take(MOST).read_to_string(&mut text).map_err(|error| failed(error.to_string()))?;
                HostsFile::parse(&text, &directory).map_err(failed)?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                certificates_in(&directory).map_err(|error| failed(error.to_string()))?
            }
            Err(error) => return Err(failed(error.to_string())),
        };
        return Ok(Some(Found { path, file }));
    }
    Ok(None)
}

/// The directories of a registry. A colon cannot stand in a name on every file system; containerd writes `_5000_`.
fn names_of(registry: &str) -> Vec<String> {
    let mut names = Vec::new();
    if let Some((host, port)) = registry.rsplit_once(':').filter(|(_, port)| !port.contains(']')) {
        names.push(format!("{host}_{port}_"));
    }
    names.extend([registry.to_owned(), "_default".to_owned()]);
    names
}

/// Docker's layout, from before there was a hosts.toml: each `*.crt` is a root, each `*.cert` a client's certificate
/// with the key `*.key`.
fn certificates_in(directory: &Path) -> io::Result<HostsFile> {
    let mut trust = Trust::default();
    let mut paths =
        fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => trust.roots.push(path),
            Some("cert") => {
                let key = Some(path.with_extension("key")).filter(|key| key.exists());
                trust.identities.push(Identity { certificate: path, key });
            }
            _ => {}
        }
    }
    let host = Configured {
        place: None,
        capabilities: Capabilities::ALL,
        trust,
        headers: hyper::HeaderMap::new(),
        dial_timeout: None,
    };
    Ok(HostsFile { hosts: vec![host], warnings: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_registry_is_configured() {
        assert_eq!(names_of("docker.io"), ["docker.io", "_default"]);
        assert_eq!(names_of("localhost:5000"), ["localhost_5000_", "localhost:5000", "_default"]);
        assert_eq!(names_of("[::1]:5000"), ["[::1]_5000_", "[::1]:5000", "_default"]);
        assert_eq!(names_of("[::1]"), ["[::1]", "_default"]);
    }

    fn found(directories: &[PathBuf], registry: &str) -> Option<String> {
        let found = find(directories, registry).unwrap()?;
        let host = found.file.hosts.first().unwrap();
        Some(match &host.place {
            Some(place) => place.authority.clone(),
            None => format!("itself {} {}", host.trust.roots.len(), host.trust.identities.len()),
        })
    }

    #[test]
    fn the_first_directory_that_has_something_counts() {
        let root = tempfile::tempdir().unwrap();
        let directories: Vec<_> = ["one", "two"].map(|name| root.path().join(name)).to_vec();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(found(&directories, "a"), None);
        write("two/a/hosts.toml", "[host.'https://two-a']");
        write("two/_default/hosts.toml", "[host.'https://two-default']");
        write("two/h:5000/hosts.toml", "[host.'https://two-port']");
        assert_eq!(found(&directories, "a").as_deref(), Some("two-a"));
        assert_eq!(found(&directories, "b").as_deref(), Some("two-default"));
        assert_eq!(found(&directories, "h:5000").as_deref(), Some("two-port"));
        write("two/h_5000_/hosts.toml", "[host.'https://two-underscore']");
        assert_eq!(found(&directories, "h:5000").as_deref(), Some("two-underscore"));
        write("one/b/ca.crt", "");
        write("one/b/client.cert", "");
        write("one/b/client.key", "");
        write("one/b/README", "");
        assert_eq!(found(&directories, "b").as_deref(), Some("itself 1 1"));
        write("one/_default/hosts.toml", "[host.'https://one-default']");
        assert_eq!(found(&directories, "a").as_deref(), Some("one-default"));
        write("one/a/hosts.toml", "server = 1");
        let error = find(&directories, "a").err().unwrap().to_string();
        assert_eq!(error, format!("{}/one/a/hosts.toml: server: must be a string", root.path().display()));
    }
}
