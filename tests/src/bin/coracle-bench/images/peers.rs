//! Who pulls, and who serves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use coracle_tests::node::binary;
use coracle_tests::processes::memory_kb;
use coracle_tests::wait::{SOON, wait_until};

use super::content::Layers;
use super::disk::Disk;
use super::{Cost, measured};

/// Debian's containerd, without its Kubernetes part.
struct Containerd {
    process: Child,
    socket: PathBuf,
}

/// A way to have an image.
pub(super) enum Tool<'a> {
    Coracle,
    /// A copy of the image, then unpacked.
    SkopeoUmoci,
    Ctr,
    /// The layers, which are on disk already, one after another.
    Tar(&'a Layers),
}

// === impl Containerd ===

impl Containerd {
    fn start(work: &Path) -> Self {
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
        wait_until("containerd to start", SOON, ready);
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
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

// === impl Tool ===

impl Tool<'_> {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Coracle => "`coracle image pull`",
            Self::SkopeoUmoci => "`skopeo copy` and `umoci unpack`",
            Self::Ctr => "`ctr images pull`",
            Self::Tar(_) => "`zcat \\| tar x`, layers on disk",
        }
    }

    /// Pulls and unpacks the image, to a disk of its own in `work`.
    pub(super) fn pull(&self, work: &Path, image: &str) -> Cost {
        let disk = Disk::new(work);
        match self {
            Self::Coracle => {
                let binary = binary();
                let script = format!("{} image pull --root-dir store --quiet {image}", binary.display());
                measured(disk.path(), &script)
            }
            Self::SkopeoUmoci => {
                let script = format!(
                    "skopeo copy -q --src-tls-verify=false docker://{image} oci:layout:1\numoci unpack --image layout:1 bundle"
                );
                measured(disk.path(), &script)
            }
            Self::Ctr => {
                let containerd = Containerd::start(disk.path());
                // From here on counts what it has at most.
                fs::write(format!("/proc/{}/clear_refs", containerd.process()), "5")
                    .expect("a kernel's file");
                let socket = containerd.socket.display();
                let script = format!(
                    "ctr --address {socket} images pull --plain-http --snapshotter overlayfs {image} > pulled"
                );
                let cost = measured(disk.path(), &script);
                let memory = memory_kb(containerd.process(), "VmHWM").unwrap_or_default();
                Cost { memory: cost.memory.max(memory), ..cost }
            }
            Self::Tar(layers) => {
                let archives: Vec<_> =
                    layers.archives.iter().map(|path| path.display().to_string()).collect();
                let script = format!(
                    "mkdir tree\nfor layer in {}; do zcat $layer | tar -x -C tree; done",
                    archives.join(" ")
                );
                measured(disk.path(), &script)
            }
        }
    }
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}
