//! A manager and a plugin that are processes of their own: this program again, told by its environment what to be.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use coracle_device_manager::{DeviceManager, Options};
use coracle_model::{PodDevices, PodUid};
use coracle_scripted_plugin::{Does, Plugin, Script, healthy};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::super::{LONG, RESOURCE, name, pod, resource, usual};
use super::DEVICES;

/// The directory that both are at work in.
const DIRECTORY: &str = "CORACLE_TEST_DEVICES_DIRECTORY";
/// What a plugin does when it is asked.
const KIND: &str = "CORACLE_TEST_DEVICES_PLUGIN";

/// What a manager can be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Verb {
    Allocate {
        pod: String,
        count: u64,
        init: u64,
    },
    Release {
        pod: String,
    },
    Given {
        pod: String,
    },
    /// How many descriptors it has open.
    Descriptors,
}

/// What it says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Said {
    /// What the pod has now.
    Given(PodDevices),
    Refused(String),
    Descriptors(usize),
}

/// It does not answer any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Killed;

/// A manager's process.
pub(super) struct Manager {
    child: Child,
    to: OwnedWriteHalf,
    from: Lines<BufReader<OwnedReadHalf>>,
    asked: u64,
    /// How many descriptors it had open when it began.
    pub(super) at_first: usize,
}

/// A plugin's process, killed when this is dropped.
pub(super) struct PluginProcess {
    _child: Child,
}

fn this_program(part: &str, directory: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", part]).env(DIRECTORY, directory);
    command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    command
}

// === impl Manager ===

impl Manager {
    /// Starts one that knows of these pods; returns when it has begun.
    pub(super) async fn start(directory: &Path, known: &BTreeMap<PodUid, PodDevices>) -> Self {
        fs::write(directory.join("known"), serde_json::to_vec(known).unwrap()).unwrap();
        let socket = directory.join("control");
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        let child = this_program("kills::processes::a_manager", directory).spawn().unwrap();
        let (stream, _) = timeout(LONG, listener.accept()).await.expect("a manager begins").unwrap();
        let (from, to) = stream.into_split();
        let from = BufReader::new(from).lines();
        let mut manager = Self { child, to, from, asked: 0, at_first: 0 };
        manager.at_first = manager.descriptors().await;
        manager
    }

    /// Kills it, wherever it is.
    pub(super) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Asks for something; it is told by this number what came of it.
    pub(super) async fn send(&mut self, verb: &Verb) -> u64 {
        self.asked += 1;
        let line = serde_json::to_string(&(self.asked, verb)).unwrap() + "\n";
        self.to.write_all(line.as_bytes()).await.unwrap();
        self.asked
    }

    /// The next answer.
    pub(super) async fn answer(&mut self) -> Result<(u64, Said), Killed> {
        match timeout(LONG, self.from.next_line()).await.expect("it answers") {
            // What it was killed while it wrote is no answer.
            Ok(Some(line)) => serde_json::from_str(&line).map_err(|_| Killed),
            Ok(None) | Err(_) => Err(Killed),
        }
    }

    pub(super) async fn ask(&mut self, verb: Verb) -> Result<Said, Killed> {
        self.send(&verb).await;
        self.answer().await.map(|(_, said)| said)
    }

    pub(super) async fn descriptors(&mut self) -> usize {
        match self.ask(Verb::Descriptors).await {
            Ok(Said::Descriptors(count)) => count,
            other => panic!("the manager says {other:?}"),
        }
    }
}

async fn answer(manager: &DeviceManager, verb: Verb) -> Said {
    let refused = |error: &dyn std::fmt::Display| Said::Refused(error.to_string());
    match verb {
        Verb::Allocate { pod: uid, count, init } => {
            let mut pod = pod(&uid, count);
            let mut container = pod.spec.containers[0].clone();
            container.name = name("i");
            container.resources.extended.insert(resource(), init);
            pod.spec.init_containers.push(container);
            manager.allocate(&pod).await.map_or_else(|error| refused(&error), Said::Given)
        }
        Verb::Release { pod } => match manager.release(&pod.parse().unwrap()).await {
            Ok(()) => Said::Given(PodDevices::new()),
            Err(error) => refused(&error),
        },
        Verb::Given { pod } => Said::Given(manager.given(&pod.parse().unwrap()).unwrap_or_default()),
        Verb::Descriptors => Said::Descriptors(fs::read_dir("/proc/self/fd").unwrap().count()),
    }
}

#[tokio::test]
#[ignore = "a part of the test of kills, which starts it as a process"]
async fn a_manager() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let known = serde_json::from_slice(&fs::read(directory.join("known")).unwrap()).unwrap();
    let mut options = Options::new(directory.join("checkpoint"));
    options.plugin_dir = directory.join("plugins");
    options.registry_dir = None;
    options.deadlines.allocate = Duration::from_millis(300);
    let manager = Arc::new(DeviceManager::open(options, &known).await.unwrap());
    let (from, to) = UnixStream::connect(directory.join("control")).await.unwrap().into_split();
    let (mut lines, to) = (BufReader::new(from).lines(), Arc::new(Mutex::new(to)));
    while let Some(line) = lines.next_line().await.unwrap() {
        let (id, verb): (u64, Verb) = serde_json::from_str(&line).unwrap();
        let (manager, to) = (manager.clone(), to.clone());
        tokio::spawn(async move {
            let said = answer(&manager, verb).await;
            let line = serde_json::to_string(&(id, said)).unwrap() + "\n";
            to.lock().await.write_all(line.as_bytes()).await.unwrap();
        });
    }
}

// === impl PluginProcess ===

impl PluginProcess {
    /// Starts one that does well, `fails` or `hangs` when it is to allocate.
    pub(super) fn start(directory: &Path, kind: &str) -> Self {
        let mut command = this_program("kills::processes::a_plugin", directory);
        Self { _child: command.env(KIND, kind).spawn().unwrap() }
    }
}

#[tokio::test]
#[ignore = "a part of the test of kills, which starts it as a process"]
async fn a_plugin() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(|path| PathBuf::from(path).join("plugins")) else {
        return;
    };
    let allocate = match std::env::var(KIND).as_deref() {
        Ok("fails") => Does::Fail("the device is on fire"),
        Ok("hangs") => Does::Hang,
        _ => Does::Answer,
    };
    let ids: Vec<String> = (0..DEVICES).map(|id| id.to_string()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let socket = directory.join("x.sock");
    fs::create_dir_all(&directory).unwrap();
    let serve = || Plugin::start(socket.clone(), Script { allocate, ..usual() }, healthy(&ids));
    let (mut plugin, mut is_registered) = (serve(), false);
    loop {
        // As plugins do: who finds its socket gone has a new kubelet to register with.
        if !socket.exists() {
            (plugin, is_registered) = (serve(), false);
        }
        if !is_registered {
            is_registered = plugin.register(&directory, RESOURCE).await.is_ok();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
