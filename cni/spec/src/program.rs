//! Plugins as a program: the exec protocol of the specification's section 2, from the plugin's side.

use std::ffi::OsString;
use std::io::{Read, Write};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::environment::Environment;
use crate::{CniError, GcCall, PluginConfig, Plugins, StatusCall, Version, code};

/// The most that is read of a configuration, in bytes.
const MOST_STDIN: u64 = 16 << 20;

/// Runs the verb that the environment and standard input ask for, and says on standard output what came of it. The
/// plugin is the one of that type or, without one, of the configuration's. Returns the exit code.
pub fn run(
    plugins: &Plugins,
    kind: Option<&str>,
    environment: &dyn Fn(&str) -> Option<OsString>,
    stdin: &mut dyn Read,
    stdout: &mut dyn Write,
) -> u8 {
    let mut version = Version::NEWEST;
    let (json, code) = match answer(plugins, kind, &Environment(environment), stdin, &mut version) {
        Ok(None) => return 0,
        Ok(Some(json)) => (json, 0),
        Err(error) => (error_json(&error, version), 1),
    };
    // Nobody is left to be told of a standard output that cannot be written.
    match writeln!(stdout, "{json}").and_then(|()| stdout.flush()) {
        Ok(()) => code,
        Err(_) => 1,
    }
}

/// The specification's section 5, "Error".
fn error_json(error: &CniError, version: Version) -> Value {
    let mut json = json!({"cniVersion": version.as_str(), "code": error.code, "msg": error.msg});
    if let Value::Object(fields) = &mut json
        && !error.details.is_empty()
    {
        fields.insert("details".to_owned(), json!(error.details));
    }
    json
}

/// What is to be printed, if anything. `version` becomes that of the configuration, once it is known.
fn answer(
    plugins: &Plugins,
    kind: Option<&str>,
    environment: &Environment<'_>,
    stdin: &mut dyn Read,
    version: &mut Version,
) -> Result<Option<Value>, CniError> {
    let command = environment.text("CNI_COMMAND")?.ok_or_else(|| {
        CniError::new(
            code::INVALID_ENVIRONMENT,
            "CNI_COMMAND is not in the environment: this is a CNI plugin, which a container runtime executes",
        )
    })?;
    if !["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"].contains(&command.as_str()) {
        return Err(CniError::new(
            code::INVALID_ENVIRONMENT,
            format!("CNI_COMMAND {command:?} is no verb of CNI"),
        ));
    }
    let mut text = Vec::new();
    stdin.take(MOST_STDIN + 1).read_to_end(&mut text).map_err(|error| {
        CniError::new(code::IO, format!("cannot read the network configuration from standard input: {error}"))
    })?;
    if text.len() as u64 > MOST_STDIN {
        return Err(CniError::new(code::DECODING, "the network configuration is larger than 16 MiB"));
    }
    if command == "VERSION" {
        return Ok(Some(versions(&text, version)));
    }
    let json: Value = serde_json::from_slice(&text).map_err(|error| {
        CniError::new(
            code::DECODING,
            format!("the network configuration on standard input is not JSON: {error}"),
        )
    })?;
    if let Some(known) = json.get("cniVersion").and_then(Value::as_str).and_then(|text| text.parse().ok()) {
        *version = known;
    }
    let valid = valid_attachments(&json);
    let config = PluginConfig::from_json(json)?;
    let kind = kind.unwrap_or(&config.kind).to_owned();
    let plugin = plugins.get(&kind).ok_or_else(|| unknown(plugins, &kind))?;
    let newer = |verb: &str| match config.cni_version >= Version::V1_1_0 {
        true => Ok(()),
        false => Err(CniError {
            code: code::INCOMPATIBLE_VERSION,
            msg: format!("{verb} is of version 1.1.0 of CNI, the configuration of {}", config.cni_version),
            details: format!("the supported ones are {}", Version::all()),
        }),
    };
    match command.as_str() {
        "ADD" => {
            let result = plugin.add(&environment.call(config, true)?)?;
            return Ok(Some(result.to_json(*version)));
        }
        "DEL" => plugin.del(&environment.call(config, false)?)?,
        "CHECK" => {
            if config.prev_result.is_none() {
                let msg = format!("network {}: plugin {kind}: a CHECK needs prevResult", config.name);
                return Err(CniError::new(code::INVALID_CONFIG, msg));
            }
            plugin.check(&environment.call(config, true)?)?;
        }
        "GC" => {
            newer("GC")?;
            plugin.gc(&GcCall { valid: valid?, path: environment.path(), config, deadline: None })?;
        }
        _ => {
            newer("STATUS")?;
            plugin.status(&StatusCall { path: environment.path(), config, deadline: None })?;
        }
    }
    Ok(None)
}

fn unknown(plugins: &Plugins, kind: &str) -> CniError {
    let kinds: Vec<&str> = plugins.0.iter().map(|plugin| plugin.kind()).collect();
    CniError {
        code: code::INVALID_CONFIG,
        msg: format!("{kind:?} is no plugin of this program"),
        details: format!("there are {}", kinds.join(", ")),
    }
}

/// What VERSION answers. It succeeds whatever stands on standard input: it is asked in order to find out what may.
fn versions(stdin: &[u8], version: &mut Version) -> Value {
    let asked = serde_json::from_slice::<Value>(stdin).ok();
    if let Some(known) =
        asked.as_ref().and_then(|json| json.get("cniVersion")?.as_str()).and_then(|text| text.parse().ok())
    {
        *version = known;
    }
    json!({"cniVersion": version.as_str(), "supportedVersions": Version::ALL.map(Version::as_str)})
}

/// The attachments a GC is to leave alone.
fn valid_attachments(json: &Value) -> Result<Vec<(String, String)>, CniError> {
    #[derive(Deserialize)]
    struct Attachment {
        #[serde(rename = "containerID")]
        container_id: String,
        ifname: String,
    }
    // The second name is that of the first text of 1.1.0. A caller without attachments may say `null`, as libcni does;
    // one that does not say anything is refused, because everything would be garbage.
    let name = "cni.dev/valid-attachments";
    let list = json.get(name).or_else(|| json.get("cni.dev/attachments"));
    let list = list.ok_or_else(|| CniError::new(code::INVALID_CONFIG, format!("a GC needs {name}")))?;
    if list.is_null() {
        return Ok(Vec::new());
    }
    let list: Vec<Attachment> = Vec::deserialize(list)
        .map_err(|error| CniError::new(code::INVALID_CONFIG, format!("{name} is wrong: {error}")))?;
    Ok(list.into_iter().map(|attachment| (attachment.container_id, attachment.ifname)).collect())
}
