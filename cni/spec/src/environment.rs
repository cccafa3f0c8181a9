//! The environment a plugin's program is called with: the variables of the specification's section 2.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::names::{check_container_id, check_ifname};
use crate::{Call, CniError, NetworkNamespace, PluginConfig, code};

/// Keys of `CNI_ARGS` that plugins here know, beside `IgnoreUnknown`: of the [conventions], and what runtimes of
/// Kubernetes say.
///
/// [conventions]: https://www.cni.dev/docs/conventions/
const KNOWN_ARGS: &[&str] =
    &["IP", "MAC", "K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_INFRA_CONTAINER_ID", "K8S_POD_UID"];

/// The key by which a caller says that not everybody has to know all the others.
const IGNORE_UNKNOWN: &str = "IgnoreUnknown";

/// All of them. None is inherited by a plugin that is called with others.
pub(crate) const VARIABLES: [&str; 6] =
    ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH"];

/// Reads variables from wherever they are.
pub(crate) struct Environment<'a>(pub(crate) &'a dyn Fn(&str) -> Option<OsString>);

// === impl Environment ===

impl Environment<'_> {
    /// One that must be UTF-8; empty is the same as absent.
    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, CniError> {
        let Some(value) = (self.0)(name).filter(|value| !value.is_empty()) else { return Ok(None) };
        value.into_string().map(Some).map_err(|value| invalid(format!("{name} {value:?} is not UTF-8")))
    }

    /// `CNI_PATH`; may be absent.
    pub(crate) fn path(&self) -> Vec<PathBuf> {
        let Some(path) = (self.0)("CNI_PATH") else { return Vec::new() };
        std::env::split_paths(&path).filter(|directory| !directory.as_os_str().is_empty()).collect()
    }

    /// What ADD, DEL and CHECK are called with.
    ///
    /// # Errors
    /// [`code::INVALID_ENVIRONMENT`], naming the variables that are missing or wrong.
    pub(crate) fn call(&self, config: PluginConfig, netns_needed: bool) -> Result<Call, CniError> {
        let netns = (self.0)("CNI_NETNS").filter(|path| !path.is_empty());
        let (container_id, ifname) = (self.text("CNI_CONTAINERID")?, self.text("CNI_IFNAME")?);
        let missing: Vec<&str> = [
            ("CNI_CONTAINERID", container_id.is_none()),
            ("CNI_NETNS", netns_needed && netns.is_none()),
            ("CNI_IFNAME", ifname.is_none()),
        ]
        .into_iter()
        .filter_map(|(name, missing)| missing.then_some(name))
        .collect();
        let (Some(container_id), Some(ifname), []) = (container_id, ifname, missing.as_slice()) else {
            return Err(invalid(format!(
                "required variables are not in the environment: {}",
                missing.join(", ")
            )));
        };
        check_container_id(&container_id)?;
        check_ifname(&ifname)?;
        let args = parse_args(&self.text("CNI_ARGS")?.unwrap_or_default())?;
        check_args(&args)?;
        Ok(Call {
            container_id,
            netns: netns.map(NetworkNamespace::new),
            ifname,
            args,
            path: self.path(),
            config,
            namespace_ends: false,
            deadline: None,
        })
    }
}

/// The variables of a call.
pub(crate) fn variables(call: &Call) -> Vec<(&'static str, OsString)> {
    let mut variables = vec![
        ("CNI_CONTAINERID", OsString::from(&call.container_id)),
        (
            "CNI_NETNS",
            call.netns.as_ref().map_or(OsStr::new(""), |netns| netns.path().as_os_str()).to_owned(),
        ),
        ("CNI_IFNAME", OsString::from(&call.ifname)),
    ];
    if !call.args.is_empty() {
        let args: Vec<String> = call.args.iter().map(|(key, value)| format!("{key}={value}")).collect();
        variables.push(("CNI_ARGS", args.join(";").into()));
    }
    variables
}

/// `CNI_PATH` of these directories.
///
/// # Errors
/// [`code::INVALID_ENVIRONMENT`] if one of them cannot stand there.
pub(crate) fn join_path(path: &[PathBuf]) -> Result<OsString, CniError> {
    std::env::join_paths(path.iter().map(PathBuf::as_path).map(Path::as_os_str))
        .map_err(|error| invalid(format!("the directories of plugins cannot be told as CNI_PATH: {error}")))
}

/// `K=V;K2=V2`.
fn parse_args(text: &str) -> Result<Vec<(String, String)>, CniError> {
    text.split(';')
        .filter(|pair| !pair.is_empty())
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(invalid(format!("CNI_ARGS: {pair:?} is not KEY=VALUE"))),
        })
        .collect()
}

/// As the reference plugins have it: a key that nobody knows is an error unless the caller says otherwise.
fn check_args(args: &[(String, String)]) -> Result<(), CniError> {
    let mut ignore = false;
    for (_, value) in args.iter().filter(|(key, _)| key == IGNORE_UNKNOWN) {
        ignore = match value.to_ascii_lowercase().as_str() {
            "1" | "true" => true,
            "0" | "false" => false,
            _ => return Err(invalid(format!("CNI_ARGS: {IGNORE_UNKNOWN}={value:?} is neither 1 nor 0"))),
        };
    }
    let unknown: Vec<&str> = args
        .iter()
        .map(|(key, _)| key.as_str())
        .filter(|key| *key != IGNORE_UNKNOWN && !KNOWN_ARGS.contains(key))
        .collect();
    if ignore || unknown.is_empty() {
        return Ok(());
    }
    Err(invalid(format!(
        "CNI_ARGS: not known here: {}. Add {IGNORE_UNKNOWN}=1 if that does not matter",
        unknown.join(", ")
    )))
}

fn invalid(msg: String) -> CniError {
    CniError::new(code::INVALID_ENVIRONMENT, msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> PluginConfig {
        let json = serde_json::json!({"cniVersion": "1.1.0", "name": "net", "type": "bridge"});
        PluginConfig::from_json(json).unwrap()
    }

    fn call(variables: &[(&str, &str)], netns_needed: bool) -> Result<Call, CniError> {
        let read =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        Environment(&read).call(config(), netns_needed)
    }

    const WHOLE: [(&str, &str); 5] = [
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/proc/1/ns/net"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=a;FOO=b=c"),
        ("CNI_PATH", "/a:/b"),
    ];

    #[test]
    fn a_call_is_read_and_told_the_same() {
        let call = call(&WHOLE, true).unwrap();
        assert_eq!(call.arg("FOO"), Some("b=c"));
        assert_eq!(call.path, ["/a", "/b"].map(PathBuf::from));
        let told = variables(&call);
        for (name, value) in WHOLE.iter().filter(|(name, _)| *name != "CNI_PATH") {
            assert!(told.contains(&(name, value.into())), "{name}");
        }
        assert_eq!(join_path(&call.path).unwrap(), "/a:/b");
    }

    #[test]
    fn what_is_missing_is_named_at_once() {
        let error = call(&[("CNI_IFNAME", "eth0"), ("CNI_NETNS", "")], true).unwrap_err();
        assert_eq!(error.code, code::INVALID_ENVIRONMENT);
        assert!(error.msg.ends_with(": CNI_CONTAINERID, CNI_NETNS"), "{error}");
        let without = call(&[("CNI_IFNAME", "eth0"), ("CNI_CONTAINERID", "a")], false).unwrap();
        assert_eq!(without.netns, None);
    }

    #[test]
    fn arguments_nobody_knows_are_refused_unless_the_caller_says_otherwise() {
        let with = |args: &'static str| {
            call(&[("CNI_IFNAME", "eth0"), ("CNI_CONTAINERID", "a"), ("CNI_ARGS", args)], false)
        };
        for good in
            ["", "IP=10.0.0.1;MAC=02:00:00:00:00:01", "IgnoreUnknown=true;X=1", "X=1;IgnoreUnknown=1;"]
        {
            with(good).unwrap();
        }
        for bad in ["X=1", "X=1;IgnoreUnknown=0", "IgnoreUnknown=maybe", "X", "=1;IgnoreUnknown=1"] {
            assert_eq!(with(bad).unwrap_err().code, code::INVALID_ENVIRONMENT, "{bad}");
        }
    }
}
