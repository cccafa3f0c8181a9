//! A node's network whose plugins are shell scripts.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_model::{Container, Name, Pod, PodKey, PodSpec, PodUid};
use coracle_network::{Attach, Attached, DefaultNetwork, Network, NetworkError, NetworkSettings};
use serde_json::{Value, json};

/// A result whose address is the pod's.
pub(crate) const RESULT: &str = r#"{"cniVersion": "1.0.0", "ips": [{"address": "10.9.0.7/16"}]}"#;

/// How long plugins may take that are not about that.
const DEADLINE: Duration = Duration::from_secs(60);

/// Directories of a node, and a namespace.
pub(crate) struct Node {
    directory: PathBuf,
    /// Removes it.
    _owned: Option<tempfile::TempDir>,
    pub(crate) deadline: Duration,
}

/// One execution of a plugin.
#[derive(Debug)]
pub(crate) struct Executed {
    pub(crate) kind: String,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) stdin: Value,
}

// === impl Node ===

impl Node {
    pub(crate) fn new() -> Self {
        let owned = tempfile::tempdir().unwrap();
        let node = Self { directory: owned.path().to_owned(), _owned: Some(owned), deadline: DEADLINE };
        for name in ["conf", "bin", "log"] {
            fs::create_dir(node.path(name)).unwrap();
        }
        fs::write(node.path("netns"), "").unwrap();
        node
    }

    /// The one that another process has made there.
    pub(crate) fn at(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), _owned: None, deadline: DEADLINE }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Configures a network of these plugins.
    pub(crate) fn configure(&self, version: &str, plugins: Value) {
        let list = json!({"cniVersion": version, "name": "testnet", "plugins": plugins});
        self.configure_as(&list);
    }

    pub(crate) fn configure_as(&self, list: &Value) {
        fs::write(self.path("conf/10-test.conflist"), list.to_string()).unwrap();
    }

    /// Installs a plugin: it puts down what it was called with, and then does what the script says.
    pub(crate) fn install(&self, kind: &str, script: &str) {
        let path = self.path("bin").join(kind);
        let log = self.path("log");
        let text = format!(
            "#!/bin/sh\n\
             n=$(ls {log} | wc -l)\n\
             mkdir {log}/$n && env > {log}/$n/env && cat > {log}/$n/stdin && echo {kind} > {log}/$n/kind\n\
             {script}\n",
            log = log.display(),
        );
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A plugin that answers an ADD with this.
    pub(crate) fn install_answering(&self, kind: &str, result: &str) {
        self.install(kind, &format!("[ $CNI_COMMAND != ADD ] || cat <<'END'\n{result}\nEND"));
    }

    /// The driver as an agent that starts has it.
    pub(crate) fn network(&self) -> Network {
        let default = DefaultNetwork {
            name: "coracle".to_owned(),
            bridge: "coracle0".to_owned(),
            pod_cidrs: vec!["10.83.0.0/24".parse().unwrap()],
            data_dir: self.path("addresses"),
        };
        Network::new(NetworkSettings {
            conf_dir: self.path("conf"),
            bin_dirs: vec![self.path("nonexistent"), self.path("bin")],
            state_dir: self.path("state"),
            default,
            deadline: self.deadline,
        })
        .unwrap()
    }

    pub(crate) fn add(&self, network: &Network) -> Result<Attached, NetworkError> {
        let (pod, netns) = (pod(), self.path("netns"));
        network.add(&Attach::of_pod(&pod, 0, &netns)?)
    }

    /// The files of attachments.
    pub(crate) fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("state")).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// All executions so far, in order; forgets them.
    pub(crate) fn executed(&self) -> Vec<Executed> {
        let log = self.path("log");
        let all = (0..).map(|n| log.join(n.to_string())).take_while(|path| path.exists());
        let all = all.map(|path| {
            let text = |name: &str| fs::read_to_string(path.join(name)).unwrap();
            let variables = text("env");
            let variables = variables.lines().filter_map(|line| line.split_once('='));
            Executed {
                kind: text("kind").trim().to_owned(),
                environment: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
                stdin: serde_json::from_str(&text("stdin")).unwrap(),
            }
        });
        let all = all.collect();
        fs::remove_dir_all(&log).unwrap();
        fs::create_dir(&log).unwrap();
        all
    }

    /// As `VERB kind`, in order.
    pub(crate) fn verbs(&self) -> Vec<String> {
        self.executed().iter().map(|one| format!("{} {}", one.environment["CNI_COMMAND"], one.kind)).collect()
    }
}

/// The pod of the tests.
pub(crate) fn pod() -> Pod {
    Pod {
        uid: uid(),
        key: PodKey { namespace: Name::label("shop").unwrap(), name: Name::subdomain("web").unwrap() },
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        spec: PodSpec::new(vec![Container::new(Name::label("c").unwrap(), "image")]),
        object: String::new(),
    }
}

pub(crate) fn uid() -> PodUid {
    "0f0e-uid".parse().unwrap()
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn write(path: &Path, text: &[u8]) {
    fs::write(path, text).unwrap();
}
