//! Which image of an index is for a platform.

use coracle_model::Platform;

use crate::answer::shown;
use crate::document::Entry;
use crate::error::Error;

/// How many platforms a message names.
const SHOWN: usize = 20;

/// Which of an index is for this platform. What names no platform is taken where nothing else fits.
pub(crate) fn choose<'a>(platform: &Platform, entries: &'a [Entry]) -> Result<&'a Entry, Error> {
    let found = platform.choose(entries.iter().map(|entry| entry.platform.as_ref()));
    found.map(|at| &entries[at]).ok_or_else(|| {
        let named = entries.iter().filter_map(|entry| entry.platform.as_ref());
        let mut names: Vec<_> = named.map(|platform| shown(&platform.to_string())).collect();
        names.dedup();
        // Attestations, which are for no machine.
        names.retain(|name| name != "unknown/unknown");
        let more = names.len().saturating_sub(SHOWN);
        names.truncate(SHOWN);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let available = match names.as_slice() {
            [] => "none".to_owned(),
            names => format!("{}{more}", names.join(", ")),
        };
        Error::Platform { wanted: platform.to_string(), available }
    })
}

#[cfg(test)]
mod tests {
    use coracle_model::Digest;

    use super::*;
    use crate::Descriptor;

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        let (os, architecture) = (parts.next().unwrap(), parts.next().unwrap());
        Platform { architecture, os, variant: parts.next() }
    }

    fn entries(platforms: &[&str]) -> Vec<Entry> {
        let entry = |text: &&str| Entry {
            descriptor: Descriptor {
                media_type: (*text).to_owned(),
                digest: Digest::of(text.as_bytes()),
                size: 1,
            },
            platform: (*text != "-").then(|| platform(text)),
        };
        platforms.iter().map(entry).collect()
    }

    #[test]
    fn the_best_or_what_names_none_is_taken() {
        let on = platform("linux/amd64");
        for (of, expected) in [(["linux/386", "linux/amd64"], "linux/amd64"), (["linux/s390x", "-"], "-")] {
            assert_eq!(choose(&on, &entries(&of)).unwrap().descriptor.media_type, expected);
        }
    }

    #[test]
    fn what_there_is_is_named() {
        let of = entries(&["linux/arm64/v8", "windows/amd64", "unknown/unknown"]);
        let error = choose(&platform("linux/amd64"), &of).unwrap_err().to_string();
        assert_eq!(error, "has no image for linux/amd64; there is: linux/arm64/v8, windows/amd64");
    }
}
