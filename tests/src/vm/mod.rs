//! A virtual machine under test: Debian with systemd as init and cgroup v2 alone, run by qemu.
//!
//! Most tests begin with a snapshot of a booted one ([`Vm::restore`]), in about a second; where it matters that the
//! machine is another than before (its boot id), it is booted ([`Vm::boot`]). Each has a disk of its own, which outlasts
//! [`Vm::power_cut`] and [`Vm::reboot`] and goes with the test. What the tests bring along is mounted at `/payload`.
//!
//! A test that fails shows the console and the journal of its VM.

mod cached;
mod directory;
mod guest;
mod image;
mod qemu;
mod qmp;

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use self::guest::Ended;
pub use self::image::Suite;

use self::cached::CachedDisk;
use self::directory::Directory;
use self::image::{Image, Snapshot, copy, lay_over};
use self::qemu::{Disk, PAYLOAD_SIZE, Parts, Qemu};

/// How long a command may take unless the test says otherwise.
pub const COMMAND: Duration = Duration::from_secs(120);
/// How long an emulated machine may take to boot, or to shut down.
const BOOT: Duration = Duration::from_secs(240);

/// How much longer than that is waited: `CORACLE_TEST_PATIENCE`, as in a test without a VM.
fn patience() -> u32 {
    crate::wait::patience()
}

/// A VM, on or off.
pub struct Vm {
    work: Directory,
    parts: Parts,
    qemu: Option<Qemu>,
    cached: Option<CachedDisk>,
}

// === impl Vm ===

impl Vm {
    /// One of the chosen suite that is up: a copy of the snapshot.
    pub fn restore() -> Self {
        Self::restore_suite(Suite::chosen())
    }

    /// As [`Vm::restore`], of this suite.
    pub fn restore_suite(suite: Suite) -> Self {
        Self::restore_on(suite, false)
    }

    /// As [`Vm::restore`], on a disk with a volatile cache: a power cut takes any part of what was written and not flushed.
    pub fn restore_on_cached_disk() -> Self {
        Self::restore_on(Suite::chosen(), true)
    }

    fn restore_on(suite: Suite, cached: bool) -> Self {
        let image = Image::of(suite);
        let Snapshot { disk, memory } = image.snapshot();
        let mut vm = Self::of(&image, &disk, None);
        if cached {
            vm.cache_disk(&disk);
        }
        let started = Instant::now();
        let mut qemu = vm.start(true);
        qemu.monitor.restore(&memory);
        vm.qemu = Some(qemu);
        // It has slept since it was saved.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        vm.ok(&format!("date --set=@{now} > /dev/null"));
        vm.mount_payload();
        println!("VM of {}: restored in {:.1} s", suite.name(), started.elapsed().as_secs_f64());
        vm
    }

    /// One of the chosen suite that boots.
    pub fn boot() -> Self {
        Self::boot_with(Suite::chosen(), None)
    }

    /// As [`Vm::boot`], of this suite and, if given, with this time on its clock (in the form of qemu's `-rtc base=`).
    pub fn boot_with(suite: Suite, clock: Option<&str>) -> Self {
        let image = Image::of(suite);
        let mut vm = Self::of(&image, &image.disk(), clock);
        vm.boot_again();
        vm
    }

    fn of(image: &Image, disk: &std::path::Path, clock: Option<&str>) -> Self {
        let work = Directory::new();
        let own = work.join("disk");
        lay_over(disk, &own);
        let parts = Parts {
            image: image.directory().to_owned(),
            disk: Disk::Overlay(own),
            payload: payload().to_owned(),
            clock: clock.map(str::to_owned),
        };
        Self { work, parts, qemu: None, cached: None }
    }

    fn cache_disk(&mut self, disk: &std::path::Path) {
        let file = self.work.join("raw");
        copy(disk, &file);
        let cached = CachedDisk::new(&file, self.work.join("nbd"));
        self.parts.disk = Disk::Served(cached.socket().to_owned());
        self.cached = Some(cached);
    }

    fn start(&mut self, incoming: bool) -> Qemu {
        if let Some(cached) = &mut self.cached {
            cached.serve();
        }
        Qemu::start(&self.parts, &self.work, incoming)
    }

    // --- Power ---

    /// Ends it as a power cut does: what is in its memory is lost, and what the cache of its disk holds, if that has one.
    pub fn power_cut(&mut self) {
        self.qemu = None;
        if let Some(cached) = &mut self.cached {
            cached.power_cut();
        }
    }

    /// Boots it, with the disk it has; it is up when its guest answers.
    #[track_caller]
    pub fn boot_again(&mut self) {
        assert!(self.qemu.is_none(), "the VM is on already");
        let started = Instant::now();
        let mut qemu = self.start(false);
        let ready = qemu.guest.wait_ready(BOOT * patience());
        self.qemu = Some(qemu);
        ready.unwrap_or_else(|error| panic!("the VM does not boot: {error}"));
        self.mount_payload();
        println!("VM booted in {:.1} s", started.elapsed().as_secs_f64());
    }

    /// Has systemd reboot it, and waits until it is up again.
    #[track_caller]
    pub fn reboot(&mut self) {
        self.wait_off("systemctl reboot");
        self.boot_again();
    }

    /// Gives a command that ends the machine, and waits until it is off.
    #[track_caller]
    pub fn wait_off(&mut self, command: &str) {
        let mut qemu = self.qemu.take().expect("the VM is on");
        let limit = BOOT * patience();
        let answer = qemu.guest.run(&format!("{command}; sleep infinity"), b"", limit, false);
        match answer {
            Err(error) if error.kind() != io::ErrorKind::TimedOut => qemu.wait("the VM to be off", limit),
            other => {
                self.qemu = Some(qemu);
                panic!("{command} does not end the VM: {other:?}");
            }
        }
    }

    fn mount_payload(&mut self) {
        self.ok("blockdev --flushbufs /dev/vdb && mount -t ext4 -o ro /dev/vdb /payload");
    }

    // --- Inside ---

    /// Runs a command with bash, as root, for at most this long, and tells how it ended. The clock is that of the host;
    /// `CORACLE_TEST_PATIENCE` lengthens it.
    #[track_caller]
    pub fn run_for(&mut self, limit: Duration, command: &str) -> Ended {
        self.ask(command, b"", limit, false)
    }

    /// As [`Vm::run_for`], and shows what the command writes as it comes.
    #[track_caller]
    pub fn run_shown(&mut self, limit: Duration, command: &str) -> i32 {
        self.ask(command, b"", limit, true).code
    }

    /// As [`Vm::run_for`], for two minutes.
    #[track_caller]
    pub fn run(&mut self, command: &str) -> Ended {
        self.run_for(COMMAND, command)
    }

    /// Runs a command that must succeed; what it wrote, without the last newline.
    #[track_caller]
    pub fn ok(&mut self, command: &str) -> String {
        let Ended { code, output } = self.run(command);
        let output = String::from_utf8_lossy(&output).into_owned();
        assert_eq!(code, 0, "{command}: {output}");
        output.trim_end_matches('\n').to_owned()
    }

    /// Runs a command over and over until it succeeds; fails the test when it does not in that time. What the last run
    /// wrote.
    #[track_caller]
    pub fn wait(&mut self, what: &str, limit: Duration, command: &str) -> String {
        // In one go: a request costs more than most commands.
        let limit = limit * patience();
        let script = format!(
            "up() {{ read -r up rest < /proc/uptime; echo ${{up%.*}}; }}\n\
             end=$(($(up) + {}))\n\
             until output=$(\n{command}\n); do\n\
             [ $(up) -lt $end ] || {{ printf '%s' \"$output\"; exit 1; }}\n\
             sleep 0.2\n\
             done\n\
             printf '%s' \"$output\"",
            limit.as_secs()
        );
        let Ended { code, output } = self.run_for(limit + COMMAND, &script);
        let output = String::from_utf8_lossy(&output).into_owned();
        assert_eq!(code, 0, "waited {limit:?} in vain for {what}: {output}");
        output
    }

    /// Writes a file, durably, and makes its directory.
    #[track_caller]
    pub fn put(&mut self, path: &str, content: impl AsRef<[u8]>) {
        // Under a name that no directory is read for, and then whole.
        let command = format!(
            "at='{path}' && dir=$(dirname \"$at\") && mkdir -p \"$dir\" && cat > \"$dir/.put\" && sync \"$dir/.put\" &&\n\
             mv \"$dir/.put\" \"$at\" && sync \"$dir\""
        );
        let ended = self.ask(&command, content.as_ref(), COMMAND, false);
        assert_eq!(ended.code, 0, "{path} cannot be written: {}", String::from_utf8_lossy(&ended.output));
    }

    /// Reads a file.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> Vec<u8> {
        let Ended { code, output } = self.run(&format!("cat '{path}'"));
        assert_eq!(code, 0, "{path} cannot be read: {}", String::from_utf8_lossy(&output));
        output
    }

    /// The journal of this boot.
    #[track_caller]
    pub fn journal(&mut self) -> String {
        self.ok("journalctl --boot --no-pager --output=short-monotonic")
    }

    #[track_caller]
    fn ask(&mut self, command: &str, input: &[u8], limit: Duration, show: bool) -> Ended {
        let qemu = self.qemu.as_mut().expect("the VM is on");
        let answer = qemu.guest.run(command, input, limit * patience(), show);
        answer.unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    fn show(&mut self) {
        let serial = fs::read(self.work.join("serial")).unwrap_or_default();
        println!("--- the VM's console\n{}", last_lines(&String::from_utf8_lossy(&serial), 40));
        let Some(qemu) = self.qemu.as_mut() else { return };
        let journal = "journalctl --boot --no-pager --output=short-monotonic --lines=150";
        match qemu.guest.run(journal, b"", COMMAND, false) {
            Ok(ended) => println!("--- its journal\n{}", String::from_utf8_lossy(&ended.output)),
            Err(error) => println!("--- its journal cannot be had: {error}"),
        }
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show();
        }
        // Before its files.
        self.qemu = None;
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// The disk with the payload, `$CORACLE_VM_PAYLOAD` (a directory that `tests/vm/payload` fills), made once.
fn payload() -> &'static std::path::Path {
    static DISK: OnceLock<(Directory, PathBuf)> = OnceLock::new();
    let (_, disk) = DISK.get_or_init(|| {
        let directory = Directory::new();
        let disk = directory.join("payload");
        let file = File::create(&disk).and_then(|file| file.set_len(PAYLOAD_SIZE));
        file.expect("the VM's directory is writable");
        let mut make = Command::new("mke2fs");
        make.args([
            "-q",
            "-F",
            "-t",
            "ext4",
            "-O",
            "^has_journal",
            "-m",
            "0",
            "-E",
            "lazy_itable_init=1,nodiscard",
        ]);
        if let Some(payload) = std::env::var_os("CORACLE_VM_PAYLOAD") {
            make.arg("-d").arg(payload);
        }
        let made = make.arg(&disk).status().expect("e2fsprogs is installed");
        assert!(made.success(), "mke2fs of the payload: {made}");
        (directory, disk)
    });
    disk
}
