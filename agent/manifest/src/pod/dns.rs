//! How a pod is named, and how it resolves names.

use coracle_document::{Faults, Path};
use std::net::IpAddr;

use coracle_model::{DnsConfig, DnsOption, DnsPolicy, HostAlias, Name, PodDns, validate_subdomain};
use k8s_openapi::api::core::v1;

use super::word;

const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARACTERS: usize = 2048;
const MAX_HOST_NAME: usize = 64;

const IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

/// The fields of `spec` this is made of; `policy` has its default.
pub(super) struct Fields<'a> {
    pub(super) policy: &'a str,
    pub(super) config: Option<&'a v1::PodDNSConfig>,
    pub(super) host_aliases: &'a [v1::HostAlias],
    pub(super) subdomain: Option<&'a str>,
    pub(super) hostname_as_fqdn: bool,
    pub(super) hostname_override: Option<&'a str>,
    pub(super) host_network: bool,
}

pub(super) fn convert(fields: &Fields<'_>, spec: &Path<'_>, faults: &mut Faults) -> Option<PodDns> {
    let policy = word(
        fields.policy,
        &[
            ("ClusterFirst", DnsPolicy::ClusterFirst),
            ("ClusterFirstWithHostNet", DnsPolicy::ClusterFirstWithHostNet),
            ("Default", DnsPolicy::Default),
            ("None", DnsPolicy::None),
        ],
        &spec.child("dnsPolicy"),
        faults,
    );
    let path = spec.child("dnsConfig");
    if policy == Some(DnsPolicy::None) {
        match fields.config {
            None => faults.required(&path, "must provide `dnsConfig` when `dnsPolicy` is None"),
            Some(config) if config.nameservers.as_deref().unwrap_or_default().is_empty() => faults.required(
                &path.child("nameservers"),
                "must provide at least one DNS nameserver when `dnsPolicy` is None",
            ),
            Some(_) => {}
        }
    }
    let config = fields.config.map(|config| dns_config(config, &path, faults)).unwrap_or_default();
    let path = spec.child("hostAliases");
    let aliases = fields.host_aliases.iter().enumerate();
    let host_aliases = aliases.filter_map(|(at, alias)| host_alias(alias, &path.index(at), faults)).collect();
    let subdomain = fields.subdomain.filter(|text| !text.is_empty()).and_then(|text| {
        Name::label(text).map_err(|error| faults.invalid(&spec.child("subdomain"), text, error)).ok()
    });
    let hostname_override =
        fields.hostname_override.and_then(|text| hostname_override(text, fields, spec, faults));
    Some(PodDns {
        policy: policy?,
        config,
        host_aliases,
        subdomain,
        hostname_as_fqdn: fields.hostname_as_fqdn,
        hostname_override,
    })
}

fn dns_config(config: &v1::PodDNSConfig, path: &Path<'_>, faults: &mut Faults) -> DnsConfig {
    let v1::PodDNSConfig { nameservers, options, searches } = config;
    let servers = nameservers.as_deref().unwrap_or_default();
    let servers_path = path.child("nameservers");
    if servers.len() > MAX_NAMESERVERS {
        let detail = format!("must not have more than {MAX_NAMESERVERS} nameservers");
        faults.invalid(&servers_path, &servers.join(","), detail);
    }
    let nameservers = servers.iter().enumerate();
    let nameservers =
        nameservers.filter_map(|(at, server)| address(server, &servers_path.index(at), faults)).collect();

    let searches = searches.as_deref().unwrap_or_default();
    let searches_path = path.child("searches");
    if searches.len() > MAX_SEARCHES {
        let detail = format!("must not have more than {MAX_SEARCHES} search paths");
        faults.invalid(&searches_path, &searches.join(","), detail);
    }
    if searches.join(" ").len() > MAX_SEARCH_CHARACTERS {
        let detail = format!(
            "must not have more than {MAX_SEARCH_CHARACTERS} characters (including spaces) in the search list"
        );
        faults.invalid(&searches_path, &searches.join(","), detail);
    }
    for (at, search) in searches.iter().enumerate() {
        // A single dot is the root; names of services may have an underscore in front.
        let plain = search.strip_suffix('.').unwrap_or(search).replace('_', "-");
        let plain = plain.trim_start_matches('-').replace(".-", ".");
        if search != "."
            && let Err(error) = validate_subdomain(&plain)
        {
            faults.invalid(&searches_path.index(at), search, error);
        }
    }

    let options_path = path.child("options");
    let options = options.as_deref().unwrap_or_default().iter().enumerate();
    let options = options
        .filter_map(|(at, v1::PodDNSConfigOption { name, value })| {
            let at = options_path.index(at);
            let name = name.clone().filter(|name| !name.is_empty());
            let Some(name) = name else {
                faults.required(&at.child("name"), "");
                return None;
            };
            for (field, text) in [("name", Some(&name)), ("value", value.as_ref())] {
                // What would be another option, or another line of the file, and not this one.
                if text
                    .is_some_and(|text| text.contains(|char: char| char.is_whitespace() || char.is_control()))
                {
                    let text = text.map(String::as_str).unwrap_or_default();
                    faults.invalid(&at.child(field), text, "must not contain white space");
                }
            }
            Some(DnsOption { name, value: value.clone() })
        })
        .collect();
    DnsConfig { nameservers, searches: searches.to_vec(), options }
}

fn host_alias(alias: &v1::HostAlias, path: &Path<'_>, faults: &mut Faults) -> Option<HostAlias> {
    let v1::HostAlias { hostnames, ip } = alias;
    let ip = address(ip, &path.child("ip"), faults);
    let names_path = path.child("hostnames");
    let names = hostnames.as_deref().unwrap_or_default().iter().enumerate();
    let hostnames = names
        .filter_map(|(at, name)| {
            Name::subdomain(name.as_str())
                .map_err(|error| faults.invalid(&names_path.index(at), name, error))
                .ok()
        })
        .collect();
    Some(HostAlias { ip: ip?, hostnames })
}

fn hostname_override(text: &str, fields: &Fields<'_>, spec: &Path<'_>, faults: &mut Faults) -> Option<Name> {
    let path = spec.child("hostnameOverride");
    for (there, what) in
        [(fields.host_network, "hostNetwork"), (fields.hostname_as_fqdn, "setHostnameAsFQDN")]
    {
        if there {
            faults.invalid(&path, text, format!("may not be set when {what} is true"));
        }
    }
    if text.len() > MAX_HOST_NAME {
        faults.invalid(&path, text, format!("must be no more than {MAX_HOST_NAME} characters"));
    }
    Name::subdomain(text).map_err(|error| faults.invalid(&path, text, error)).ok()
}

fn address(text: &str, path: &Path<'_>, faults: &mut Faults) -> Option<IpAddr> {
    text.parse().map_err(|_| faults.invalid(path, text, IP)).ok()
}
