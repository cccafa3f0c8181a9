//! An image's configuration, and what becomes of it together with a container's specification.

use std::collections::BTreeMap;

use coracle_model::{Container, expand};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{Digest, ImageError};

/// The OCI image configuration document, as far as the node acts on it. Unknown fields are ignored,
/// and `null` stands for absent, as Docker writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageDocument {
    /// In Go's words: `amd64`, `arm64`, ...
    #[serde(default, deserialize_with = "null_is_default")]
    pub architecture: String,
    /// `linux`.
    #[serde(default, deserialize_with = "null_is_default")]
    pub os: String,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// How a container is run.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: ImageConfig,
    /// The layers.
    #[serde(default, deserialize_with = "null_is_default")]
    pub rootfs: RootFs,
}

/// `rootfs` of the configuration document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default, deserialize_with = "null_is_default")]
    pub kind: String,
    /// Digests of the uncompressed layers, lowest first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub diff_ids: Vec<Digest>,
}

/// `config` of the configuration document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageConfig {
    /// `user`, `uid`, `user:group`, `uid:gid`, ...; empty for root.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Declared ports, as `80/tcp`.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    /// `NAME=value`.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The program and its first arguments.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Arguments, or the program where there is no entrypoint.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Paths the image's author wants to be volumes. Kubernetes ignores them; they never cause a copy.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    /// Where the program starts; empty for `/`.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// For people and tools; never changes how a container runs.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `SIGTERM`, `15`, ...; empty for SIGTERM.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
}

/// What a container executes, after image and specification have been merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectiveProcess {
    /// The program and its arguments; never empty.
    pub args: Vec<String>,
    /// Each name once. `HOME` is added by whoever resolves the user, where it is not set.
    pub env: Vec<(String, String)>,
    /// Absolute.
    pub cwd: String,
    /// `SIGTERM`, `15`, ...; `None` for SIGTERM.
    pub stop_signal: Option<String>,
}

/// What programs are looked up in where neither image nor container sets `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// One variable of a container's environment, in the order in which they are set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvEntry {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Whether `$(VAR)` in the value refers to variables before it. Only a literal `value` is expanded.
    pub expand: bool,
}

/// Merges the container's specification with its image, as the kubelet and a CRI runtime do.
///
/// `command` replaces the image's entrypoint and discards its command; `args` replaces the image's
/// command. The environment is, later entries winning: `PATH` and (with a terminal) `TERM`,
/// `HOSTNAME`, the image's, the container's own (`entries`: its `envFrom` and `env`, resolved).
/// `$(VAR)` refers to variables of the container that stand before it, never to the image's.
///
/// # Errors
///
/// [`ImageError::NoCommand`] when neither names a program.
pub fn effective_process(
    container: &Container,
    entries: &[EnvEntry],
    image: &ImageConfig,
    hostname: &str,
) -> Result<EffectiveProcess, ImageError> {
    let mut own = BTreeMap::<&str, String>::new();
    let mut env = Environment::default();
    env.set("PATH", DEFAULT_PATH);
    if container.tty {
        env.set("TERM", "xterm");
    }
    env.set("HOSTNAME", hostname);
    for entry in &image.env {
        // An entry without '=' sets nothing; an empty name cannot be set.
        if let Some((name, value)) = entry.split_once('=').filter(|(name, _)| !name.is_empty()) {
            env.set(name, value);
        }
    }
    for entry in entries {
        let value = match entry.expand {
            true => expand(&entry.value, |name| own.get(name).map(String::as_str)),
            false => entry.value.clone(),
        };
        env.set(&entry.name, &value);
        own.insert(&entry.name, value);
    }

    let expanded = |words: &Option<Vec<String>>| -> Vec<String> {
        let lookup = |name: &str| own.get(name).map(String::as_str);
        words.iter().flatten().map(|word| expand(word, lookup)).collect()
    };
    let (command, args) = (expanded(&container.command), expanded(&container.args));
    let mut words;
    if !command.is_empty() {
        words = command;
        words.extend(args);
    } else {
        words = image.entrypoint.clone();
        words.extend(if args.is_empty() { image.cmd.clone() } else { args });
    }
    if words.first().is_none_or(String::is_empty) {
        return Err(ImageError::NoCommand);
    }

    let cwd = match &container.working_dir {
        Some(dir) if !dir.is_empty() => dir.as_str(),
        _ => image.working_dir.as_str(),
    };
    Ok(EffectiveProcess {
        args: words,
        env: env.0,
        // A relative directory is taken from the root, as in other runtimes.
        cwd: if cwd.starts_with('/') { cwd.to_owned() } else { format!("/{cwd}") },
        stop_signal: Some(image.stop_signal.clone()).filter(|signal| !signal.is_empty()),
    })
}

/// Variables in the order they were first set.
#[derive(Default)]
struct Environment(Vec<(String, String)>);

impl Environment {
    fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use coracle_model::Name;

    use super::*;

    pub(crate) fn container() -> Container {
        Container::new(Name::label("main").unwrap(), "x")
    }

    fn literal(name: &str, value: &str) -> EnvEntry {
        EnvEntry { name: name.into(), value: value.into(), expand: true }
    }

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn command_and_args_against_entrypoint_and_cmd() {
        let image = ImageConfig { entrypoint: words("ep 1"), cmd: words("c 2"), ..Default::default() };
        let only_cmd = ImageConfig { cmd: words("c 2"), ..Default::default() };
        for (image, command, args, expected) in [
            (&image, "", "", "ep 1 c 2"),
            (&image, "x y", "", "x y"),
            (&image, "", "a b", "ep 1 a b"),
            (&image, "x", "a", "x a"),
            (&only_cmd, "", "", "c 2"),
            (&only_cmd, "", "a", "a"),
        ] {
            let container =
                Container { command: Some(words(command)), args: Some(words(args)), ..container() };
            assert_eq!(effective_process(&container, &[], image, "h").unwrap().args, words(expected));
        }
        assert!(matches!(
            effective_process(&container(), &[], &ImageConfig::default(), "h"),
            Err(ImageError::NoCommand)
        ));
    }

    #[test]
    fn the_containers_environment_wins_and_refers_only_to_itself() {
        let image = ImageConfig {
            env: vec!["A=image".into(), "B=image".into(), "broken".into()],
            ..Default::default()
        };
        let container =
            Container { command: Some(vec!["$(C)".into(), "$$(C)".into(), "$(B)".into()]), ..container() };
        let entries = [
            literal("A", "own"),
            literal("C", "<$(A)>"),
            literal("D", "$(LATER) $(B)"),
            literal("LATER", "l"),
            EnvEntry { expand: false, ..literal("E", "$(A)") },
            literal("A", "again"),
        ];
        let process = effective_process(&container, &entries, &image, "host").unwrap();
        assert_eq!(process.args, ["<own>", "$(C)", "$(B)"]);
        let env: Vec<_> = process.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            env,
            [
                &format!("PATH={DEFAULT_PATH}"),
                "HOSTNAME=host",
                "A=again",
                "B=image",
                "C=<own>",
                "D=$(LATER) $(B)",
                "LATER=l",
                "E=$(A)"
            ]
        );
    }

    #[test]
    fn the_working_directory() {
        let image = ImageConfig { working_dir: "srv".into(), cmd: words("x"), ..Default::default() };
        assert_eq!(effective_process(&container(), &[], &image, "h").unwrap().cwd, "/srv");
        let own = Container { working_dir: Some("/w".into()), ..container() };
        assert_eq!(effective_process(&own, &[], &image, "h").unwrap().cwd, "/w");
        let bare = ImageConfig { cmd: words("x"), ..Default::default() };
        assert_eq!(effective_process(&container(), &[], &bare, "h").unwrap().cwd, "/");
    }

    #[test]
    fn null_is_absent() {
        let document: ImageDocument = serde_json::from_str(
            r#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Cmd":["a"],"Entrypoint":null,"Labels":null},
                "rootfs":{"type":"layers","diff_ids":null},"history":[{"created":"x"}]}"#,
        )
        .unwrap();
        assert_eq!(document.config.cmd, ["a"]);
        assert!(serde_json::from_str::<ImageDocument>(r#"{"config":null,"rootfs":null}"#).is_ok());
    }
}
