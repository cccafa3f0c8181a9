//! The process of a VM.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::directory::Directory;
use super::guest::Guest;
use super::qmp::Monitor;
use crate::wait::{SOON, wait_for};

/// The size of the disk that the payload is on. It is the same for all VMs, for one that is restored has the disks it
/// was saved with.
pub(super) const PAYLOAD_SIZE: u64 = 2 << 30;

/// How the processor is had: emulated, which works anywhere at about a tenth of the speed, or as `$CORACLE_VM_ACCEL`
/// says, `kvm` where there is one.
pub(super) fn accelerator() -> String {
    std::env::var("CORACLE_VM_ACCEL").ok().filter(|it| !it.is_empty()).unwrap_or_else(|| "tcg".to_owned())
}

/// What a VM is made of.
pub(super) struct Parts {
    /// The directory with `kernel` and `initrd`.
    pub(super) image: PathBuf,
    /// Its disk.
    pub(super) disk: Disk,
    /// The disk with the payload, raw and read-only.
    pub(super) payload: PathBuf,
    /// What its clock says when it is switched on, in the form of `-rtc base=`; without, the time.
    pub(super) clock: Option<String>,
}

/// Where a VM's disk is.
pub(super) enum Disk {
    /// In a qcow2.
    Overlay(PathBuf),
    /// At the socket of a server of NBD.
    Served(PathBuf),
}

/// A qemu that runs. It ends with this, as by a power cut, and with the thread that started it.
pub(super) struct Qemu {
    process: Child,
    /// Its monitor.
    pub(super) monitor: Monitor,
    /// Who does in it what the test asks for.
    pub(super) guest: Guest,
}

/// What does not depend on the test: with anything else of it a saved VM cannot be restored.
pub(super) fn arguments() -> Vec<String> {
    let mut kernel =
        "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on systemd.show_status=0".to_owned();
    let accelerator = accelerator();
    let processor = match accelerator.as_str() {
        "tcg" => {
            // The emulated clock of a restored machine goes on; to measure it against another costs a second.
            kernel.push_str(" clocksource=tsc tsc=reliable no_timer_check");
            ["tcg,thread=multi", "max,la57=off"]
        }
        other => [other, "host"],
    };
    let words = [
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-machine",
        "q35,hpet=off",
        "-smp",
        "2",
        "-m",
        "3G",
        "-accel",
        processor[0],
        "-cpu",
        processor[1],
        "-append",
        &kernel,
        "-device",
        "virtio-blk-pci,drive=disk",
        "-device",
        "virtio-blk-pci,drive=payload",
        "-device",
        "virtio-serial-pci",
        "-device",
        "virtserialport,chardev=guest,name=guest",
    ];
    words.map(str::to_owned).to_vec()
}

impl Qemu {
    /// Switches a VM on, or has it wait for what is to be restored.
    pub(super) fn start(parts: &Parts, work: &Directory, incoming: bool) -> Self {
        let log = work.join("qemu.log");
        let [monitor, guest, serial] = ["monitor", "guest", "serial"].map(|name| work.join(name));
        for socket in [&monitor, &guest] {
            let _ = fs::remove_file(socket);
        }
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]).args(arguments());
        let mut option = |name: &str, value: String| {
            command.arg(name).arg(value);
        };
        let kernel = parts.image.join("kernel");
        option("-kernel", kernel.display().to_string());
        option("-initrd", parts.image.join("initrd").display().to_string());
        let disk = match &parts.disk {
            // Without caring for the host's own disk. What the guest flushes is the host's from then on, and survives the
            // death of qemu; what it does not is in the guest's memory, and is lost with it.
            Disk::Overlay(file) => format!("file={},format=qcow2,cache=unsafe", file.display()),
            Disk::Served(socket) => {
                let server = "driver=raw,cache=writeback,file.driver=nbd,file.server.type=unix";
                format!("{server},file.server.path={}", socket.display())
            }
        };
        option("-drive", format!("{disk},if=none,id=disk,discard=unmap"));
        let payload = format!("file={},if=none,id=payload,format=raw,read-only=on", parts.payload.display());
        option("-drive", payload);
        option("-serial", format!("file:{}", serial.display()));
        option("-qmp", format!("unix:{},server=on,wait=off", monitor.display()));
        option("-chardev", format!("socket,id=guest,path={},server=on,wait=off", guest.display()));
        if let Some(clock) = &parts.clock {
            option("-rtc", format!("base={clock}"));
        }
        if incoming {
            option("-incoming", "defer".to_owned());
        }
        let output = File::create(&log).expect("the VM's directory is writable");
        let mut process = command
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second descriptor"))
            .stderr(output)
            .spawn()
            .expect("util-linux's setpriv is installed");
        let mut connect = |path: &Path| {
            wait_for(format_args!("qemu to listen on {}", path.display()), SOON, || {
                if let Ok(Some(status)) = process.try_wait() {
                    panic!("qemu ended: {status}\n{}", fs::read_to_string(&log).unwrap_or_default());
                }
                UnixStream::connect(path).ok()
            })
        };
        let guest = Guest::new(connect(&guest));
        let monitor = Monitor::new(connect(&monitor));
        Self { process, monitor, guest }
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub(super) fn wait(mut self, what: &str, limit: Duration) {
        wait_for(what, limit, || self.process.try_wait().ok().flatten());
    }

    /// Stops the machine, saves it to a file and ends it.
    pub(super) fn save(mut self, file: &Path) {
        self.monitor.save(file);
        self.wait("the saved VM to end", SOON);
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
