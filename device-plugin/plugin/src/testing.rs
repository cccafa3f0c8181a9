//! Trees of /sys, /proc and /dev as real machines have them, for tests.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::host::Host;

/// A made-up machine.
pub(crate) struct Tree {
    root: tempfile::TempDir,
}

impl Tree {
    /// With nothing in it.
    pub(crate) fn new() -> Self {
        Self { root: tempfile::tempdir().expect("a directory") }
    }

    pub(crate) fn host(&self) -> Host {
        Host::new(self.root.path())
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    pub(crate) fn file(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("directories");
        fs::write(path, text).expect("a file");
    }

    pub(crate) fn link(&self, path: &str, target: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("directories");
        symlink(target, path).expect("a link");
    }

    /// A device on the PCI bus, behind a bridge of its bus.
    pub(crate) fn pci(&self, address: &str, vendor: &str, driver: &str) -> String {
        let bus = address.get(5..7).expect("an address");
        let device = format!("sys/devices/pci0000:00/0000:00:{bus}.0/{address}");
        self.file(&format!("{device}/vendor"), format!("{vendor}\n"));
        self.file(&format!("{device}/numa_node"), "0\n");
        self.file(&format!("sys/bus/pci/drivers/{driver}/bind"), "");
        self.link(&format!("{device}/driver"), &format!("/sys/bus/pci/drivers/{driver}"));
        self.link(&format!("sys/bus/pci/devices/{address}"), &format!("/{device}"));
        device
    }

    /// The same, of a GPU with a card and a render node.
    pub(crate) fn drm(&self, address: &str, vendor: &str, driver: &str, card: u32, render: u32) {
        let device = self.pci(address, vendor, driver);
        for (name, link) in [(format!("card{card}"), "card"), (format!("renderD{render}"), "render")] {
            self.file(&format!("{device}/drm/{name}/dev"), "226:0\n");
            self.link(&format!("{device}/drm/{name}/device"), &format!("/{device}"));
            self.link(&format!("sys/class/drm/{name}"), &format!("/{device}/drm/{name}"));
            self.file(&format!("dev/dri/{name}"), "");
            self.link(&format!("dev/dri/by-path/pci-{address}-{link}"), &format!("../{name}"));
        }
    }
}

/// The driver of NVIDIA whose files [`Tree::nvidia`] makes.
pub(crate) const DRIVER: &str = "570.86.15";

impl Tree {
    /// GPUs of NVIDIA with these addresses, as the driver shows them, and what belongs to the driver.
    pub(crate) fn nvidia(&self, addresses: &[&str]) {
        self.file("sys/module/nvidia/version", format!("{DRIVER}\n"));
        for (minor, address) in addresses.iter().enumerate() {
            let render = 128 + u32::try_from(minor).expect("a small number");
            self.drm(address, "0x10de", "nvidia", render - 128, render);
            self.file(
                &format!("proc/driver/nvidia/gpus/{address}/information"),
                format!(
                    "Model: \t\t NVIDIA A100-SXM4-40GB\nIRQ:   \t\t 97\nGPU UUID: \t GPU-00000000-0000-0000-0000-{minor:012}\n\
                     Video BIOS: \t 92.00.45.00.03\nBus Type: \t PCIe\nBus Location: \t {address}\nDevice Minor: \t {minor}\n\
                     GPU Firmware: \t {DRIVER}\nGPU Excluded:\t No\n"
                ),
            );
            self.file(&format!("dev/nvidia{minor}"), "");
        }
        for node in ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"] {
            self.file(&format!("dev/{node}"), "");
        }
    }

    /// The driver's libraries and programs where Debian has them. They are no real libraries but for their names.
    pub(crate) fn nvidia_files(&self) {
        let directory = "usr/lib/x86_64-linux-gnu";
        for (name, soname) in [
            ("libcuda.so", "libcuda.so.1"),
            ("libnvidia-ml.so", "libnvidia-ml.so.1"),
            ("libnvidia-ptxjitcompiler.so", "libnvidia-ptxjitcompiler.so.1"),
            ("libnvidia-glcore.so", ""),
        ] {
            let file = format!("{name}.{DRIVER}");
            let named = if soname.is_empty() { file.as_str() } else { soname };
            self.file(&format!("{directory}/{file}"), elf_with_soname(named));
            if !soname.is_empty() {
                self.link(&format!("{directory}/{soname}"), &file);
                self.link(&format!("{directory}/{name}"), soname);
            }
        }
        self.file(&format!("{directory}/libcuda.so.535.104.05"), elf_with_soname("libcuda.so.1"));
        self.file(&format!("{directory}/libz.so.1"), elf_with_soname("libz.so.1"));
        self.file("usr/bin/nvidia-smi", "");
        self.file(&format!("lib/firmware/nvidia/{DRIVER}/gsp_ga10x.bin"), "");
        self.file("run/nvidia-persistenced/socket", "");
    }
}

/// The least that is a shared library with a name of its own: a header, one dynamic segment, its strings.
pub(crate) fn elf_with_soname(soname: &str) -> Vec<u8> {
    let mut bytes = vec![0; 64 + 2 * 56];
    bytes[..8].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0]);
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(16, &3u16.to_le_bytes());
    put(18, &u16::try_from(crate::elf::MACHINE).expect("a small number").to_le_bytes());
    put(32, &64u64.to_le_bytes());
    put(54, &56u16.to_le_bytes());
    put(56, &2u16.to_le_bytes());
    let dynamic = 64 + 2 * 56;
    let strings = dynamic + 4 * 16;
    let length = u64::try_from(strings + soname.len() + 2).expect("a small file");
    // PT_LOAD of the whole file, then PT_DYNAMIC.
    for (at, kind, offset, size) in [(64, 1u32, 0u64, length), (64 + 56, 2, dynamic as u64, 64)] {
        put(at, &kind.to_le_bytes());
        put(at + 8, &offset.to_le_bytes());
        put(at + 16, &offset.to_le_bytes());
        put(at + 32, &size.to_le_bytes());
        put(at + 40, &size.to_le_bytes());
    }
    // DT_STRTAB, DT_STRSZ, DT_SONAME.
    for (tag, value) in [(5u64, strings as u64), (10, soname.len() as u64 + 2), (14, 1), (0, 0)] {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    bytes.push(0);
    bytes.extend(soname.as_bytes());
    bytes.push(0);
    bytes
}
