//! Who holds the space of a disk that images cannot free.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use coracle_image::{HeldImage, Hold};

use super::collector::Disk;

/// The most images that are named, the largest first.
const NAMED: usize = 5;

/// Says who holds the space: images that stay, what lies in the directories of pods, and the rest. `images` and `pods`
/// are the bytes of all images and of those directories.
pub(super) fn describe(held: &[HeldImage], images: u64, pods: u64, disk: Disk) -> String {
    let used = disk.capacity.saturating_sub(disk.available);
    let others = used.saturating_sub(images).saturating_sub(pods);
    let mut text = format!(
        "Of {used} bytes in use, images have {images}, containers' layers and volumes {pods}, and what is not of this node \
         {others}."
    );
    let mut held: Vec<_> = held.iter().collect();
    held.sort_by_key(|image| std::cmp::Reverse(image.size));
    for (at, image) in held.iter().take(NAMED).enumerate() {
        let name = image.names.first().map_or_else(|| image.id.to_string(), |name| name.familiar());
        let why = match &image.why {
            Hold::InUse(user) => format!("used by {user}"),
            Hold::Pinned(pins) => pins.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            Hold::TooYoung => "younger than imageMinimumGCAge".to_owned(),
        };
        let before = if at == 0 { " Images that stay: " } else { "; " };
        text.push_str(&format!("{before}{name}, {} bytes, {why}", image.size));
    }
    match held.len().checked_sub(NAMED) {
        None if held.is_empty() => text.push_str(" No image is left that could go."),
        None | Some(0) => text.push('.'),
        Some(more) => text.push_str(&format!("; and {more} more.")),
    }
    text
}

/// What is beneath a directory, in bytes of the disk. What cannot be looked at does not count; links are not followed,
/// nor mounts entered.
pub(super) fn disk_usage(path: &Path) -> u64 {
    let Ok(root) = fs::symlink_metadata(path) else { return 0 };
    let (device, mut found, mut directories) = (root.dev(), 0, vec![path.to_owned()]);
    while let Some(directory) = directories.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let Ok(metadata) = fs::symlink_metadata(entry.path()) else { continue };
            if metadata.dev() != device {
                continue;
            }
            found += metadata.blocks() * 512;
            if metadata.is_dir() {
                directories.push(entry.path());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use coracle_image::{Digest, Pin};

    use super::*;

    #[test]
    fn who_holds_the_space_is_said() {
        let disk = Disk { capacity: 1000, available: 100 };
        let image = |name: &str, size, why| HeldImage {
            id: Digest::of(name.as_bytes()),
            names: vec![name.parse().unwrap()],
            size,
            why,
        };
        let held = [
            image("a", 10, Hold::TooYoung),
            image("b", 300, Hold::InUse("pod default/web".to_owned())),
            image("c", 200, Hold::Pinned(vec![Pin::Hand])),
        ];
        assert_eq!(
            describe(&held, 500, 150, disk),
            "Of 900 bytes in use, images have 500, containers' layers and volumes 150, and what is not of this node 250. \
             Images that stay: b:latest, 300 bytes, used by pod default/web; c:latest, 200 bytes, pinned by hand; \
             a:latest, 10 bytes, younger than imageMinimumGCAge."
        );
        assert!(describe(&[], 0, 0, disk).ends_with("No image is left that could go."));
        let many: Vec<_> = (0..8).map(|n| image(&format!("i{n}"), n, Hold::TooYoung)).collect();
        assert!(describe(&many, 0, 0, disk).ends_with("; and 3 more."));
    }
}
