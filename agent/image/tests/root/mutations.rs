//! Archives that are nearly right, for as long as `CORACLE_TEST_MUTATIONS` says (seconds, 20 by default): each is refused
//! with a reason, or comes out again byte for byte; nothing outside the layer changes. `make fuzz` does the same by
//! coverage, for hours.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use coracle_image::{Digest, Limits};
use fastrand::Rng;
use tar::EntryType;

use crate::export::odd;
use crate::incoming::Remote;
use crate::support::{Fixture, Tar, gzip, names};

const BLOCK: usize = 512;

fn base() -> Vec<u8> {
    Tar::new().dir("d", 0o1777).dir("usr/lib", 0o711).file("d/first", "x").symlink("lib", "usr/lib").build()
}

/// What may be in a hostile archive, each once and as it should be.
fn seeds(outside: &str) -> Vec<Vec<u8>> {
    let up = format!("{}{outside}", "../".repeat(20));
    let tars = [
        Tar::new().symlink("out", outside).file("out/canary", "x").hard_link("h", "out/canary"),
        Tar::new()
            .symlink("out", &up)
            .dir("out/d", 0o755)
            .file("out/d/.wh.x", "")
            .file("out/.wh..wh..opq", ""),
        Tar::new().file("lib/f", "x").file("d/.wh.first", "").file(".wh..wh..opq", "").file("a/.wh.b", ""),
        Tar::new().file("a", "one").hard_link("b", "a").file("a", "two").dir("a", 0o700).file("a/c", "three"),
        Tar::new()
            .dir("t", 0o755)
            .dir("t/u", 0o755)
            .file("t/u/v", "x")
            .hard_link("t/w", "t/u/v")
            .file("t", "y"),
        Tar::new()
            .device(EntryType::Char, "c", 1, 3)
            .device(EntryType::Block, "b", 7, 1)
            .hard_link("c2", "c"),
        Tar::new()
            .pax(&[("path", b"long/name"), ("size", b"4"), ("mtime", b"1.5"), ("uid", b"70000")])
            .file("short", "data")
            .pax(&[("SCHILY.xattr.user.a", b"b"), ("SCHILY.xattr.security.capability", &[1, 0, 0, 2])])
            .file("x", ""),
        Tar::new().pax(&[("GNU.sparse.map", b"0,1,9,1"), ("GNU.sparse.size", b"20")]).file("sparse", "ab"),
    ];
    tars.into_iter().map(Tar::build).chain([odd()]).collect()
}

fn fix_checksum(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn mutate(rng: &mut Rng, seeds: &[Vec<u8>], outside: &str) -> Vec<u8> {
    let mut tar = seeds[rng.usize(..seeds.len())].clone();
    for _ in 0..rng.usize(1..5) {
        let blocks = tar.len() / BLOCK;
        let at = rng.usize(..blocks) * BLOCK;
        match rng.u8(..8) {
            // A field of a header: name, size, type, link, time.
            0 | 1 => {
                let names = ["..", "/", "lib", "out", "a/../../x", ".wh.d", "d", "./", outside, "lib/../.."];
                let name = names[rng.usize(..names.len())].as_bytes();
                let field = [0, 157, 345][rng.usize(..3)];
                tar[at + field..at + field + name.len()].copy_from_slice(name);
            }
            2 => tar[at + 156] = b"01234567xgLKS\0"[rng.usize(..14)],
            3 => {
                let size = format!("{:011o}\0", rng.u64(..3000));
                tar[at + 124..at + 136].copy_from_slice(size.as_bytes());
            }
            4 => tar[at + rng.usize(..BLOCK)] = rng.u8(..),
            // Blocks go, come twice, or come from elsewhere.
            5 => drop(tar.drain(at..at + BLOCK)),
            6 => {
                let other = &seeds[rng.usize(..seeds.len())];
                let from = rng.usize(..other.len() / BLOCK) * BLOCK;
                let to = (from + rng.usize(1..6) * BLOCK).min(other.len());
                tar.splice(at..at, other[from..to].iter().copied());
            }
            _ => tar.truncate(tar.len() - rng.usize(..tar.len().min(600))),
        }
        if tar.len() < BLOCK {
            return tar;
        }
        // Most checksums are right, or nothing but the checksum would be tested.
        if at + BLOCK <= tar.len() && rng.u8(..10) > 0 && tar[at] != 0 {
            fix_checksum(&mut tar[at..at + BLOCK]);
        }
    }
    tar
}

#[test]
fn mutated_archives_are_refused_or_come_back() {
    // In memory, so that nothing waits for a disk.
    let f = Fixture::within(Path::new("/dev/shm"));
    let outside = f.dir.path().to_str().unwrap().to_owned();
    let seconds = std::env::var("CORACLE_TEST_MUTATIONS").map_or(20, |text| text.parse().unwrap());
    let seed =
        std::env::var("CORACLE_TEST_SEED").map_or_else(|_| fastrand::u64(..), |text| text.parse().unwrap());
    println!("CORACLE_TEST_SEED={seed}");
    let (mut rng, seeds, base) = (Rng::with_seed(seed), seeds(&outside), base());
    Remote::new(std::slice::from_ref(&base)).pull(&f.store, "base");
    let limits = Limits { max_layer_bytes: Some(1 << 20), max_entries: 1000, keep_free: Some(0) };
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut accepted, mut refused) = (0u64, 0u64);
    while Instant::now() < end {
        let tar = mutate(&mut rng, &seeds, &outside);
        let mut remote = Remote::new(&[base.clone(), tar.clone()]);
        if rng.u8(..4) == 0 {
            remote.blobs[1] = match rng.bool() {
                true => zstd::encode_all(&tar[..], 1).unwrap(),
                false => gzip(&tar),
            };
            let at = rng.usize(..remote.blobs[1].len());
            remote.blobs[1][at] = rng.u8(..);
        }
        let incoming = f.store.incoming(&remote.manifest, &remote.config, limits).unwrap();
        match remote.unpack(&incoming, 1) {
            Ok(()) => {
                incoming.commit(&["x".parse().unwrap()], None).unwrap();
                drop(incoming);
                let problems = f.store.verify_whole().unwrap();
                assert!(problems.is_empty(), "{problems:?} of {}", keep(&tar));
                f.store.remove("x", |_| None).unwrap();
                accepted += 1;
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                refused += 1;
            }
        }
        assert_eq!(names(f.dir.path()), ["canary", "images"], "after {}", keep(&tar));
        assert_eq!(fs::read(f.path("canary")).unwrap(), b"untouched", "after {}", keep(&tar));
        assert_eq!(names(&f.path("images/tmp")), Vec::<String>::new(), "after {}", keep(&tar));
        assert_eq!(names(&f.path("images/layers")).len(), 1, "after {}", keep(&tar));
    }
    println!("{accepted} accepted, {refused} refused");
    assert!(accepted > 10 && refused > 10, "{accepted} accepted, {refused} refused: too much of one kind");
    f.assert_sound();
}

/// Where the archive lies that failed.
fn keep(tar: &[u8]) -> String {
    let path = std::env::temp_dir().join(format!("mutated-{}.tar", &Digest::of(tar).hex()[..12]));
    fs::write(&path, tar).unwrap();
    path.display().to_string()
}

/// Entries of which nobody holds many at once: a thousand names of one file, again and again.
struct Entries {
    blocks: Vec<u8>,
    left: u64,
}

impl Entries {
    fn new(count: u64) -> Self {
        let mut blocks = Vec::new();
        for n in 0..1000 {
            let mut header = Tar::header(EntryType::Link, &format!("d/{n}"), 0, 0o644);
            header.as_mut_bytes()[157..162].copy_from_slice(b"first");
            header.set_cksum();
            blocks.extend(header.as_bytes());
        }
        Self { left: count * BLOCK as u64, blocks }
    }
}

impl Read for Entries {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let size = self.blocks.len() as u64;
        let rest = &self.blocks[((size - self.left % size) % size) as usize..];
        let count = rest.len().min(out.len()).min(usize::try_from(self.left).unwrap());
        out[..count].copy_from_slice(&rest[..count]);
        self.left -= count as u64;
        Ok(count)
    }
}

#[test]
fn entries_without_number_take_no_memory() {
    let f = Fixture::new();
    let entries = || {
        let first = Tar::new().dir("d", 0o755).file("first", "").build();
        let first = first[..first.len() - 2 * BLOCK].to_vec();
        std::io::Cursor::new(first).chain(Entries::new(200_000))
    };
    let mut hasher = coracle_model::Hasher::default();
    let mut size = 0;
    let mut buffer = vec![0; 1 << 20];
    let mut source = entries();
    while let Ok(count @ 1..) = source.read(&mut buffer) {
        hasher.update(&buffer[..count]);
        size += count as u64;
    }
    let digest = hasher.finish();
    let architecture = if std::env::consts::ARCH == "x86_64" { "amd64" } else { "arm64" };
    let config = serde_json::json!({"architecture": architecture, "os": "linux",
                                    "rootfs": {"type": "layers", "diff_ids": [digest]}});
    let incoming = f.store.incoming(b"{}", config.to_string().as_bytes(), Limits::default()).unwrap();
    let before = peak();
    incoming.unpack(0, entries(), (digest, size)).unwrap();
    let grown = peak() - before;
    assert!(grown < 8 << 10, "{grown} KiB of memory for one layer");
    incoming.commit(&["x".parse().unwrap()], None).unwrap();
    assert_eq!(names(&f.image("x").lower_dirs()[0].join("d")).len(), 1000);
}

/// The most memory this process had at a time, in KiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
