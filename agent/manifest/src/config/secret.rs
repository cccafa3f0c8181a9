//! What a Secret's `type` asks of its data.

use coracle_document::{Faults, Path};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::de::IgnoredAny;

use crate::error::REDACTED;

const SERVICE_ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";

/// Of a type that Kubernetes does not know nothing is asked.
pub(super) fn check(
    kind: &str,
    data: &BTreeMap<String, Arc<[u8]>>,
    annotations: &BTreeMap<String, String>,
    faults: &mut Faults,
) {
    let path = Path::ROOT.child("data");
    let mut needs = |keys: &[&str]| {
        for key in keys.iter().filter(|key| !data.contains_key(**key)) {
            faults.required(&path.key(key), "");
        }
    };
    match kind {
        "kubernetes.io/dockercfg" => needs_json(".dockercfg", data, faults),
        "kubernetes.io/dockerconfigjson" => needs_json(".dockerconfigjson", data, faults),
        // Either will do.
        "kubernetes.io/basic-auth" if !data.contains_key("username") && !data.contains_key("password") => {
            needs(&["username", "password"]);
        }
        "kubernetes.io/ssh-auth" if data.get("ssh-privatekey").is_none_or(|key| key.is_empty()) => {
            faults.required(&path.key("ssh-privatekey"), "");
        }
        "kubernetes.io/tls" => needs(&["tls.crt", "tls.key"]),
        "kubernetes.io/service-account-token"
            if annotations.get(SERVICE_ACCOUNT_NAME).is_none_or(String::is_empty) =>
        {
            let metadata = Path::ROOT.child("metadata");
            faults.required(&metadata.child("annotations").key(SERVICE_ACCOUNT_NAME), "");
        }
        _ => {}
    }
}

fn needs_json(key: &str, data: &BTreeMap<String, Arc<[u8]>>, faults: &mut Faults) {
    let path = Path::ROOT.child("data");
    let Some(value) = data.get(key) else { return faults.required(&path.key(key), "") };
    // The parser's own words would show what stands there.
    if serde_json::from_slice::<Option<HashMap<String, IgnoredAny>>>(value).is_err() {
        faults.push(&path.key(key), format!("Invalid value: {REDACTED}: must be a JSON object"));
    }
}
