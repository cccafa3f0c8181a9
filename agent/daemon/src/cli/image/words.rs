//! Sizes, identifiers and names, as people read them.

use coracle_image::{Digest, Image, ImageName};

/// As many digits as people tell images apart by.
pub(super) fn short(id: &Digest) -> String {
    id.hex().chars().take(12).collect()
}

/// In decimal units, as `docker image ls` and `crictl images` give it.
pub(super) fn size(bytes: u64) -> String {
    let units = [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
    match units.into_iter().find(|(_, unit)| bytes >= *unit) {
        // Three digits matter.
        Some((name, unit)) => {
            let tenths = bytes.saturating_mul(10) / unit;
            if tenths < 1000 {
                format!("{}.{}{name}", tenths / 10, tenths % 10)
            } else {
                format!("{}{name}", tenths / 10)
            }
        }
        None => format!("{bytes}B"),
    }
}

/// The names an image is listed by: its tags, or else, as Docker has it, the repositories that it was pulled from by digest.
pub(super) fn listed(image: &Image) -> Vec<String> {
    let mut names: Vec<_> = image.repo_tags.iter().map(ImageName::familiar).collect();
    if names.is_empty() {
        let repository =
            |name: &ImageName| name.familiar().split('@').next().map(|it| format!("{it}:<none>"));
        names.extend(image.repo_digests.iter().filter_map(repository));
        names.dedup();
    }
    if names.is_empty() {
        names.push("<none>".to_owned());
    }
    names
}

/// What stands behind an image's identifier: its tags, or else its names by digest, each with a space before it.
pub(super) fn after(names: &[ImageName]) -> String {
    let has_tag = names.iter().any(|name| name.digest().is_none());
    let told = names.iter().filter(|name| !has_tag || name.digest().is_none());
    told.map(|name| format!(" {}", name.familiar())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.0kB"),
            (12_345_678, "12.3MB"),
            (123_456_789, "123MB"),
            (5_000_000_000, "5.0GB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
