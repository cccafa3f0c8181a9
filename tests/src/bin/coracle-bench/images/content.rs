//! Images to pull, of what this machine has in its own directories.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use coracle_tests::docker_registry::DockerRegistry;
use coracle_tests::registry::{Descriptor, Image};
use serde_json::json;

use super::command;

const MB: u64 = 1_000_000;

/// A kind of image.
#[derive(Clone, Copy)]
pub(super) enum Content {
    /// One layer of programs and libraries.
    Large,
    /// 30 layers of some files each.
    Many,
    /// One layer of 100,000 files.
    Files,
}

/// The layers of an image that was pushed.
pub(super) struct Layers {
    directory: PathBuf,
    /// Compressed, lowest first.
    pub(super) archives: Vec<PathBuf>,
    unpacked: u64,
}

// === impl Content ===

impl Content {
    pub(super) const ALL: [Self; 3] = [Self::Large, Self::Many, Self::Files];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Large => "large",
            Self::Many => "many",
            Self::Files => "files",
        }
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Large => "One large layer",
            Self::Many => "30 small layers",
            Self::Files => "100,000 small files",
        }
    }

    pub(super) fn describe(self, layers: &Layers) -> String {
        let size: u64 =
            layers.archives.iter().map(|path| fs::metadata(path).map_or(0, |data| data.len())).sum();
        format!("{} MB compressed with gzip, {} MB unpacked", size / MB, layers.unpacked / MB)
    }

    /// Makes the image and pushes it.
    pub(super) fn push(self, work: &Path, registry: &DockerRegistry) -> Layers {
        let directory = work.join("content");
        fs::create_dir_all(&directory).expect("a directory for content");
        let mut archives = Vec::new();
        let (mut unpacked, mut diff_ids) = (0, Vec::new());
        for (number, tree) in self.trees(&directory).into_iter().enumerate() {
            let tar = directory.join(format!("layer{number}.tar"));
            command(
                Command::new("tar")
                    .args(["--sort=name", "--numeric-owner", "-cf"])
                    .arg(&tar)
                    .arg("-C")
                    .arg(&tree)
                    .arg("."),
            );
            fs::remove_dir_all(&tree).expect("the tree goes");
            let archive = fs::read(&tar).expect("tar has written it");
            unpacked += archive.len() as u64;
            diff_ids.push(Descriptor::of("", &archive).digest);
            command(Command::new("gzip").arg("-6").arg(&tar));
            archives.push(tar.with_extension("tar.gz"));
        }
        let layers = archives.iter().map(|path| fs::read(path).expect("gzip has written it")).collect();
        registry.push(self.name(), "1", &Image::of_layers(layers, &diff_ids, &json!({})));
        Layers { directory, archives, unpacked }
    }

    /// Directories, each what is to be a layer.
    fn trees(self, directory: &Path) -> Vec<PathBuf> {
        match self {
            Self::Large => {
                let tree = directory.join("tree");
                let mut source = Source::new();
                source.copy(&tree, 400 * MB);
                vec![tree]
            }
            Self::Many => {
                let mut source = Source::new();
                let tree = |number| {
                    let tree = directory.join(format!("tree{number}"));
                    source.copy(&tree.join(format!("part{number}")), 8 * MB);
                    tree
                };
                (0..30).map(tree).collect()
            }
            Self::Files => {
                let tree = directory.join("tree");
                for number in 0..100_000 {
                    let parent = tree.join(format!("{:03}", number / 100));
                    if number % 100 == 0 {
                        fs::create_dir_all(&parent).expect("a directory");
                    }
                    let line = format!("This is file {number}, and it says so again.\n");
                    fs::write(parent.join(number.to_string()), line.repeat(20 + number % 60))
                        .expect("a file");
                }
                vec![tree]
            }
        }
    }
}

// === impl Layers ===

impl Layers {
    /// Removes all of it.
    pub(super) fn remove(self) {
        fs::remove_dir_all(&self.directory).expect("content goes");
    }
}

/// Regular files of `/usr`, one after another: as compressible as what images hold.
struct Source {
    waiting: Vec<PathBuf>,
    copied: u64,
}

impl Source {
    fn new() -> Self {
        Self { waiting: vec!["/usr/lib".into(), "/usr/bin".into(), "/usr/share".into()], copied: 0 }
    }

    /// Copies the next ones, until they have as many bytes.
    fn copy(&mut self, to: &Path, bytes: u64) {
        let end = self.copied + bytes;
        while self.copied < end {
            let next = self.waiting.pop().expect("/usr holds enough for the benchmark's images");
            let Ok(data) = fs::symlink_metadata(&next) else { continue };
            if data.is_dir() {
                let mut entries: Vec<_> =
                    fs::read_dir(&next).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
                entries.sort();
                self.waiting.extend(entries.into_iter().rev());
            } else if data.is_file() && data.len() <= 100 * MB {
                let target = to.join(next.strip_prefix("/").expect("it is absolute"));
                fs::create_dir_all(target.parent().expect("it lies in the tree")).expect("a directory");
                fs::copy(&next, &target).expect("a file of /usr can be copied");
                self.copied += data.len();
            }
        }
    }
}
