//! A made-up driver of NVIDIA with two GPUs, on a machine of its own: what its kernel modules show in /proc and /dev, and its
//! libraries and programs, with interfaces that are the real ones'.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use coracle_tests::machine::Machine;

const VERSION: &str = "570.86.15";

/// The driver's libraries: what each calls itself, and of what it is made.
const LIBRARIES: [(&str, &str); 2] = [
    ("libcuda.so.1", include_str!("libcuda.c")),
    ("libnvidia-ml.so.1", include_str!("../../../../device-plugin/nvml/tests/library.c")),
];

/// Puts a directory in the place of /dev, with what is needed of the host's; nodes of GPUs whose numbers nothing answers at;
/// and the driver's files where only the linker's cache leads to, with directories on this machine alone.
const SETUP: &str = r#"
mkdir dev
mount -t tmpfs -o mode=755 dev dev
for node in null zero full random urandom tty console kmsg; do
    [ ! -e /dev/$node ] || cp -a /dev/$node dev
done
ln -s /proc/self/fd dev/fd
ln -s pts/ptmx dev/ptmx
mkdir dev/pts dev/shm
mount --rbind /dev/pts dev/pts
mount --rbind /dev/shm dev/shm
mknod -m 666 dev/nvidia0 c 195 0
mknod -m 666 dev/nvidia1 c 195 1
mknod -m 666 dev/nvidiactl c 195 255
mknod -m 666 dev/nvidia-uvm c 510 0
mknod -m 666 dev/nvidia-uvm-tools c 510 1
mount --move dev /dev
mount --bind proc /proc/driver
mount --bind lib /usr/local/lib
mount --bind bin /usr/local/bin
"#;

/// The UUIDs of its GPUs.
pub(super) fn gpus() -> Vec<String> {
    (0..2).map(|minor| format!("GPU-00000000-0000-0000-0000-{minor:012}")).collect()
}

/// A machine with the driver. Says why there is none where it cannot be made.
pub(super) fn machine() -> Option<Machine> {
    if Path::new("/proc/driver/nvidia").exists() || Path::new("/sys/module/nvidia").exists() {
        println!("skipped: this machine has a driver of NVIDIA, which a made-up one would be mixed with");
        return None;
    }
    if Command::new("cc").arg("--version").output().is_err() {
        println!("skipped: there is no C compiler (cc) to make the driver's libraries with");
        return None;
    }
    let machine = Machine::new();
    write_files(&machine.path("driver"));
    let mut setup = machine.command("sh");
    setup.args(["-ec", &format!("cd {}\n{SETUP}", machine.path("driver").display())]);
    assert!(setup.status().unwrap().success(), "the driver cannot be put on the machine");
    Some(machine)
}

fn write_files(directory: &Path) {
    let file = |path: &str, text: &str| {
        let path = directory.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let release = "Release Build  (made-up@machine)";
    file(
        "proc/nvidia/version",
        &format!("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {VERSION}  {release}\n"),
    );
    file("proc/nvidia/params", "ModifyDeviceFiles: 0\n");
    file("bin/nvidia-smi", include_str!("nvidia-smi"));
    fs::set_permissions(directory.join("bin/nvidia-smi"), fs::Permissions::from_mode(0o755)).unwrap();
    for (soname, source) in LIBRARIES {
        let name = soname.trim_end_matches(".1");
        file(&format!("source/{name}.c"), source);
        fs::create_dir_all(directory.join("lib")).unwrap();
        let library = format!("{name}.{VERSION}");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", &format!("-Wl,-soname,{soname}"), "-o"]);
        compiler.arg(directory.join("lib").join(&library));
        let made = compiler.arg(directory.join(format!("source/{name}.c"))).status().unwrap();
        assert!(made.success(), "{soname} cannot be made");
        symlink(&library, directory.join("lib").join(soname)).unwrap();
    }
}
