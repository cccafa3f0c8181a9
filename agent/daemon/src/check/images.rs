//! What is configured for images: registries and their mirrors, proxies, credential providers, archives.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use coracle_credentials::CredentialProviders;
use coracle_registry::Client;

use super::Finding;
use crate::config::Config;
use crate::words::whole;

pub(super) fn check(config: &Config) -> Vec<Finding> {
    let name = "registries";
    let client = match crate::registry::client(config) {
        Ok(client) => client,
        Err(error) => {
            let remedy = "set HTTP_PROXY, HTTPS_PROXY and NO_PROXY right where the agent is started";
            return vec![Finding::missing(name, whole(&error), remedy)];
        }
    };
    let mut findings = hosts(config, &client);
    findings.extend(proxies());
    findings.extend(providers(config));
    findings.extend(archives(&config.images.archive_dir));
    findings
}

/// What is configured for hosts; what cannot be used of it.
fn hosts(config: &Config, client: &Client) -> Vec<Finding> {
    let name = "registries";
    let directories = &config.images.registry_config_dirs;
    let configured = configured(directories.iter().map(AsRef::as_ref));
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return vec![Finding::weaker(name, error.to_string(), "nothing is known of them", "try again")];
        }
    };
    let mut found = Vec::new();
    let mut findings = Vec::new();
    for host in configured {
        // What is configured for all that have nothing of their own is looked at as somebody's who has not.
        let registry = if host == "_default" { "registry.invalid" } else { &host };
        match runtime.block_on(client.hosts(registry)) {
            Ok(asked) => found.push(format!("{host}: {}", asked.join(", then "))),
            Err(error) => findings.push(Finding::weaker(
                name,
                error.to_string(),
                "no image of this registry can be pulled",
                "mend the file; it is read anew with each pull",
            )),
        }
    }
    let known = match found.is_empty() {
        true => "each is asked itself; mirrors and certificates would be in hosts.toml files".to_owned(),
        false => found.join("; "),
    };
    findings.insert(0, Finding::ok(name, known));
    findings
}

/// The registries that something is configured for.
fn configured<'a>(directories: impl Iterator<Item = &'a Path>) -> BTreeSet<String> {
    let entries = directories.filter_map(|directory| fs::read_dir(directory).ok()).flatten().flatten();
    let directories = entries.filter(|entry| entry.path().is_dir());
    directories.filter_map(|entry| entry.file_name().into_string().ok()).map(|name| registry(&name)).collect()
}

/// `host_5000_`, as containerd writes it, is `host:5000`.
fn registry(directory: &str) -> String {
    let ported = directory.strip_suffix('_').and_then(|name| name.rsplit_once('_'));
    match ported {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{host}:{port}")
        }
        _ => directory.to_owned(),
    }
}

/// Which variables say that registries are reached by a proxy; their values may hold passwords.
fn proxies() -> Option<Finding> {
    let names = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
    let set = names.into_iter().filter(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    let set: Vec<_> = set.collect();
    let found = format!("set here: {}; the agent uses those of its own environment", set.join(", "));
    (!set.is_empty()).then(|| Finding::ok("proxies", found))
}

fn providers(config: &Config) -> Option<Finding> {
    let name = "credential providers";
    let providers = config.images.credential_providers.as_ref()?;
    Some(match CredentialProviders::load(&providers.config, &providers.bin_dir) {
        Ok(_) => Finding::ok(name, providers.config.display().to_string()),
        Err(error) => {
            Finding::missing(name, error.to_string(), "mend it: the agent does not start like that")
        }
    })
}

fn archives(directory: &Path) -> Option<Finding> {
    let name = "archives of images";
    match fs::read_dir(directory) {
        Ok(entries) => {
            let found =
                format!("{} in {}, imported when the agent starts", entries.count(), directory.display());
            Some(Finding::ok(name, found))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            let found = format!("cannot read {}: {error}", directory.display());
            Some(Finding::weaker(name, found, "none of them is imported", "make it readable"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_named_after_registries() {
        for (directory, expected) in [
            ("docker.io", "docker.io"),
            ("127.0.0.1:5000", "127.0.0.1:5000"),
            ("registry.example_5000_", "registry.example:5000"),
            ("_default", "_default"),
            ("a_b", "a_b"),
        ] {
            assert_eq!(registry(directory), expected);
        }
    }
}
