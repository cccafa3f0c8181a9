//! The files of attachments: `<state>/<container id>.json`, one each.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use coracle_linux::{PowerLoss, is_unfinished, remove_if_there, replace_file};
use sha2::{Digest as _, Sha256};

use super::attachment::{Attachment, AttachmentId};
use crate::NetworkError;

/// The directory.
#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
}

// === impl Store ===

impl Store {
    /// Makes the directory, if it is not there.
    pub(super) fn open(directory: &Path) -> Result<Self, NetworkError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(NetworkError::io("create directory", directory))?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// Reads everything. A file that is torn, or that cannot be read, says by its name what it was about.
    pub(super) fn load(&self) -> Result<BTreeMap<AttachmentId, Attachment>, NetworkError> {
        let failed = || NetworkError::io("list", &self.directory);
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&self.directory).map_err(failed())? {
            let path = entry.map_err(failed())?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if is_unfinished(name.as_ref()) {
                // What is in the way of nobody may stay.
                let _ = fs::remove_file(&path);
                continue;
            }
            let Some(id) = name.strip_suffix(".json").and_then(AttachmentId::parse) else {
                tracing::warn!(path = %path.display(), "a file among the attachments to networks is none");
                continue;
            };
            let attachment = read(&path).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "what a pod's attachment to its network was is not known");
                Attachment::unknown(&id)
            });
            found.insert(id, attachment);
        }
        Ok(found)
    }

    /// Writes one. It is not flushed to a disk: what is on record is of this boot, and what an agent has written
    /// outlives the agent.
    pub(super) fn write(&self, id: &AttachmentId, attachment: &Attachment) -> Result<(), NetworkError> {
        let path = self.path(id);
        let written = (|| {
            let json = serde_json::to_string(attachment)?;
            let text = format!("{json}\n{}\n", digest(&json));
            replace_file(&path, 0o600, PowerLoss::MayTear, text.as_bytes()).map_err(io::Error::from)
        })();
        written.map_err(NetworkError::io("write", &path))
    }

    /// Removes one.
    pub(super) fn remove(&self, id: &AttachmentId) -> Result<(), NetworkError> {
        let path = self.path(id);
        remove_if_there(&path).map(drop).map_err(NetworkError::io("remove", &path))
    }

    fn path(&self, id: &AttachmentId) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }
}

/// A line of JSON, and a line of its digest.
fn read(path: &Path) -> io::Result<Attachment> {
    let text = fs::read_to_string(path)?;
    let (json, rest) = text.split_once('\n').unwrap_or((&text, ""));
    if rest.trim_end() != digest(json) {
        return Err(io::Error::other(if text.is_empty() { "the file is empty" } else { "the file is torn" }));
    }
    Ok(serde_json::from_str(json)?)
}

fn digest(json: &str) -> String {
    Sha256::digest(json).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use coracle_cni::ConfigList;
    use serde_json::json;

    use super::*;

    fn attachment() -> Attachment {
        let list = json!({"cniVersion": "1.1.0", "name": "net", "plugins": [{"type": "bridge", "mtu": 1.5}]});
        let result = json!({"ips": [{"address": "10.0.0.2/24"}]});
        Attachment {
            pod: "default/a".to_owned(),
            list: Some(Arc::new(ConfigList::parse(list.to_string().as_bytes()).unwrap())),
            netns: Some("/proc/1/ns/net".into()),
            result: Some(serde_json::from_value(result).unwrap()),
            ..Attachment::unknown(&id())
        }
    }

    fn id() -> AttachmentId {
        AttachmentId::parse("uid-3").unwrap()
    }

    #[test]
    fn an_attachment_is_read_as_it_was_written_until_it_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("network")).unwrap();
        store.write(&id(), &attachment()).unwrap();
        let found = store.load().unwrap();
        let (key, read) = found.first_key_value().unwrap();
        assert_eq!((found.len(), key), (1, &id()));
        assert_eq!(serde_json::to_value(read).unwrap(), serde_json::to_value(attachment()).unwrap());
        assert_eq!(read.list, attachment().list);
        store.remove(&id()).unwrap();
        store.remove(&id()).unwrap();
        assert!(store.load().unwrap().is_empty());
    }

    #[test]
    fn wherever_a_file_is_torn_it_says_what_it_was_about() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        store.write(&id(), &attachment()).unwrap();
        let path = store.path(&id());
        let whole = fs::read(&path).unwrap();
        // All but the last line's end may be missing before it is noticed.
        for length in 0..whole.len() - 1 {
            fs::write(&path, &whole[..length]).unwrap();
            let found = store.load().unwrap();
            assert!(found[&id()].list.is_none(), "torn at {length}");
        }
        let mut changed = whole;
        changed[20] ^= 1;
        fs::write(&path, changed).unwrap();
        assert!(store.load().unwrap()[&id()].result.is_none());
    }

    #[test]
    fn what_is_no_attachment_is_left_alone_and_what_was_never_complete_goes() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        for name in ["notes.txt", "x.json", ".uid-3.json.new"] {
            fs::write(directory.path().join(name), "{}").unwrap();
        }
        assert!(store.load().unwrap().is_empty());
        let mut left: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["notes.txt", "x.json"]);
    }
}
