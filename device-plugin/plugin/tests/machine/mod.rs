//! A made-up machine, as far as a plugin looks at one.

#![allow(dead_code, reason = "each test uses some of it")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

pub(crate) struct Machine {
    directory: tempfile::TempDir,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let machine = Self { directory: tempfile::tempdir().expect("a directory") };
        fs::create_dir(machine.path("root")).expect("a directory");
        machine
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    pub(crate) fn plugins(&self) -> PathBuf {
        self.path("plugins")
    }

    /// A file that stands for a device node.
    pub(crate) fn node(&self, path: &str) {
        self.file(path, "");
    }

    pub(crate) fn file(&self, path: &str, text: &str) {
        let path = self.path("root").join(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("directories");
        fs::write(path, text).expect("a file");
    }

    /// GPUs as NVIDIA's driver shows them. Their nodes come last, as with a driver that is loaded.
    pub(crate) fn nvidia(&self, count: u32) {
        self.file("sys/module/nvidia/version", "570.86.15\n");
        for minor in 0..count {
            let information = format!(
                "Model: \t\t NVIDIA A100-SXM4-40GB\nGPU UUID: \t {}\nDevice Minor: \t {minor}\nGPU Excluded:\t No\n",
                self.uuid(minor)
            );
            self.file(&format!("proc/driver/nvidia/gpus/0000:{minor:02x}:00.0/information"), &information);
        }
        for node in ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools"] {
            self.node(&format!("dev/{node}"));
        }
        for minor in 0..count {
            self.node(&format!("dev/nvidia{minor}"));
        }
    }

    /// Puts a library with NVML's interface where Debian has NVIDIA's, and says where.
    pub(crate) fn library(&self) -> PathBuf {
        let directory = self.path("root/usr/lib64");
        fs::create_dir_all(&directory).expect("directories");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../nvml/tests/library.c");
        let library = directory.join("libnvidia-ml.so.1");
        let made = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(library).arg(source).status();
        assert!(made.expect("there is a C compiler").success());
        directory
    }

    #[expect(clippy::unused_self, reason = "it is the machine's")]
    pub(crate) fn uuid(&self, minor: u32) -> String {
        format!("GPU-00000000-0000-0000-0000-{minor:012}")
    }
}
