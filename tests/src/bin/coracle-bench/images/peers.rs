//! Who pulls, and who serves.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coracle_tests::node::binary;
use coracle_tests::processes::memory_kb;

use super::content::Layers;
use super::{Cost, command, measured};

/// Nobody else is in the network namespace.
const REGISTRY: &str = "127.0.0.1:5000";

/// Debian's registry.
pub(super) struct Registry(Child);

/// Debian's containerd, without its Kubernetes part.
pub(super) struct Containerd {
    process: Child,
    socket: PathBuf,
}

/// A way to have an image.
pub(super) enum Tool<'a> {
    Coracle,
    /// A copy of the image, then unpacked.
    SkopeoUmoci,
    Ctr(&'a Containerd),
    /// The layers, which are on disk already, one after another.
    Tar(&'a Layers),
}

// === impl Registry ===

impl Registry {
    pub(super) fn start(work: &Path) -> Self {
        let storage = work.join("registry");
        fs::create_dir(&storage).expect("a directory for the registry");
        let config = work.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: \
             {}}}}}\nhttp: {{addr: {REGISTRY}}}\n",
            storage.display()
        );
        fs::write(&config, text).expect("the registry's configuration");
        let mut program = Command::new("docker-registry");
        program.arg("serve").arg(&config);
        let registry = Self(quiet(&mut program).spawn().expect("Debian's docker-registry is installed"));
        wait("the registry", || TcpStream::connect(REGISTRY).is_ok());
        registry
    }

    pub(super) fn image(&self, name: &str) -> String {
        format!("{REGISTRY}/{name}:1")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

// === impl Containerd ===

impl Containerd {
    pub(super) fn start(work: &Path) -> Self {
        let directory = work.join("containerd");
        fs::create_dir(&directory).expect("a directory for containerd");
        let socket = directory.join("containerd.sock");
        let config = directory.join("config.toml");
        let text = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \
             {:?}\n",
            directory.join("root"),
            directory.join("state"),
            socket
        );
        fs::write(&config, text).expect("containerd's configuration");
        let mut program = Command::new("containerd");
        program.arg("--config").arg(&config);
        let process = quiet(&mut program).spawn().expect("Debian's containerd is installed");
        let containerd = Self { process, socket };
        let ready = || {
            let mut version = containerd.ctr();
            quiet(version.arg("version")).status().is_ok_and(|status| status.success())
        };
        wait("containerd", ready);
        containerd
    }

    fn ctr(&self) -> Command {
        let mut ctr = Command::new("ctr");
        ctr.arg("--address").arg(&self.socket);
        ctr
    }

    fn process(&self) -> i32 {
        self.process.id().cast_signed()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

// === impl Tool ===

impl Tool<'_> {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Coracle => "`coracle image pull`",
            Self::SkopeoUmoci => "`skopeo copy` and `umoci unpack`",
            Self::Ctr(_) => "`ctr images pull`",
            Self::Tar(_) => "`zcat \\| tar x`, layers on disk",
        }
    }

    /// Pulls and unpacks the image, and removes it again.
    pub(super) fn pull(&self, work: &Path, image: &str) -> Cost {
        match self {
            Self::Coracle => {
                let script = format!("{} image pull --root-dir store --quiet {image}", binary().display());
                clean(work, &["store"], measured(work, &script))
            }
            Self::SkopeoUmoci => {
                let script = format!(
                    "skopeo copy -q --src-tls-verify=false docker://{image} oci:layout:1\numoci unpack --image layout:1 bundle"
                );
                clean(work, &["layout", "bundle"], measured(work, &script))
            }
            Self::Ctr(containerd) => {
                // From here on counts what it has at most.
                fs::write(format!("/proc/{}/clear_refs", containerd.process()), "5")
                    .expect("a kernel's file");
                let socket = containerd.socket.display();
                let script = format!(
                    "ctr --address {socket} images pull --plain-http --snapshotter overlayfs {image} > pulled"
                );
                let cost = measured(work, &script);
                let memory = memory_kb(containerd.process(), "VmHWM").unwrap_or_default();
                command(containerd.ctr().args(["images", "rm", "--sync", image]));
                Cost { memory: cost.memory.max(memory), ..cost }
            }
            Self::Tar(layers) => {
                let archives: Vec<_> =
                    layers.archives.iter().map(|path| path.display().to_string()).collect();
                let script = format!(
                    "mkdir tree\nfor layer in {}; do zcat $layer | tar -x -C tree; done",
                    archives.join(" ")
                );
                clean(work, &["tree"], measured(work, &script))
            }
        }
    }
}

fn clean(work: &Path, directories: &[&str], cost: Cost) -> Cost {
    for directory in directories {
        fs::remove_dir_all(work.join(directory)).expect("what was unpacked goes");
    }
    cost
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

fn end(process: &mut Child) {
    let _ = process.kill();
    let _ = process.wait();
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "{what} does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
}
