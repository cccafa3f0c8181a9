//! The accepted ConfigMaps and Secrets, kept for the next agent.
//!
//! A running agent does not take every manifest at its word: what is `immutable` stays as it was accepted, a
//! manifest that has become invalid keeps its objects, and so does an address that does not answer. None of that
//! can be read from the manifests again, so it is kept beside them. Values of Secrets are among it: the directory
//! has to lie in memory, which is the caller's to see to. It ends with the boot, as memory does.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_linux::{PowerLoss, replace_file};
use coracle_model::{ConfigKey, ConfigObject, ManifestSource};
use serde::{Deserialize, Serialize};

/// An object that counts, and the manifest it counts for.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    /// The object.
    pub object: Arc<ConfigObject>,
    /// The manifest that defines it.
    pub source: ManifestSource,
}

/// Where the accepted objects are kept.
#[derive(Debug)]
pub struct KeptConfigs {
    file: PathBuf,
}

/// One object, as it is written down. The model's is not to be: it would come into records that lie on a disk.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    source: ManifestSource,
    key: ConfigKey,
    data: BTreeMap<String, String>,
    binary_data: BTreeMap<String, String>,
    secret_type: String,
    immutable: bool,
}

// === impl KeptConfigs ===

impl KeptConfigs {
    /// In a directory that lies in memory, and is nobody else's to read.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { file: directory.into().join("accepted.json") }
    }

    /// What the agent before this one has kept; nothing where there was none in this boot.
    ///
    /// # Errors
    /// When it cannot be read, or is not of this version.
    pub fn load(&self) -> io::Result<Vec<Accepted>> {
        let bytes = match fs::read(&self.file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        // An error of serde's would show what it found.
        let stored: Vec<Stored> = serde_json::from_slice(&bytes).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            io::Error::other(format!("it is not of this version: line {line}, column {column}"))
        })?;
        stored.into_iter().map(Stored::restore).collect()
    }

    /// Keeps these in place of those before.
    pub(crate) fn save<'a>(
        &self,
        accepted: impl Iterator<Item = (&'a Arc<ConfigObject>, &'a ManifestSource)>,
    ) -> io::Result<()> {
        let stored: Vec<_> = accepted.map(|(object, source)| Stored::of(object, source)).collect();
        let bytes = serde_json::to_vec(&stored)?;
        Ok(replace_file(&self.file, 0o600, PowerLoss::MayTear, &bytes)?)
    }

    /// Keeps nothing any more.
    pub(crate) fn forget(&self) {
        // What cannot be removed cannot be written either, and that was said.
        let _ = fs::remove_file(&self.file);
    }
}

// === impl Stored ===

impl Stored {
    fn of(object: &ConfigObject, source: &ManifestSource) -> Self {
        let encode = |values: &BTreeMap<String, Arc<[u8]>>| {
            values.iter().map(|(key, value)| (key.clone(), STANDARD.encode(value))).collect()
        };
        Self {
            source: source.clone(),
            key: object.key.clone(),
            data: encode(&object.data),
            binary_data: encode(&object.binary_data),
            secret_type: object.secret_type.clone(),
            immutable: object.immutable,
        }
    }

    fn restore(self) -> io::Result<Accepted> {
        // An error must not show what it found.
        let decode = |values: BTreeMap<String, String>| {
            let value = |(key, value): (String, String)| Some((key, STANDARD.decode(value).ok()?.into()));
            let values: Option<BTreeMap<_, _>> = values.into_iter().map(value).collect();
            values.ok_or_else(|| io::Error::other("a value is not base64"))
        };
        let object = ConfigObject {
            key: self.key,
            data: decode(self.data)?,
            binary_data: decode(self.binary_data)?,
            secret_type: self.secret_type,
            immutable: self.immutable,
        };
        Ok(Accepted { object: Arc::new(object), source: self.source })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use coracle_model::{ConfigKind, Name};

    use super::*;

    fn secret(value: &[u8]) -> ConfigObject {
        ConfigObject {
            key: ConfigKey {
                kind: ConfigKind::Secret,
                namespace: Name::label("default").unwrap(),
                name: Name::label("login").unwrap(),
            },
            data: [("key".to_owned(), Arc::from(value))].into(),
            binary_data: [("more".to_owned(), Arc::from(&b"\0\xff"[..]))].into(),
            secret_type: "Opaque".to_owned(),
            immutable: true,
        }
    }

    #[test]
    fn what_is_kept_is_found_again_and_is_nobody_elses_to_read() {
        let directory = tempfile::tempdir().unwrap();
        let kept = KeptConfigs::new(directory.path());
        assert_eq!(kept.load().unwrap(), []);
        let file = ManifestSource::from(Path::new("/m/a.yaml"));
        let url = ManifestSource::Url("https://h/".into());
        for (value, source) in [(&b"one"[..], &file), (b"\xfe\0", &url)] {
            let object = Arc::new(secret(value));
            kept.save([(&object, source)].into_iter()).unwrap();
            assert_eq!(kept.load().unwrap(), [Accepted { object, source: source.clone() }]);
        }
        let files: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap()).collect();
        assert_eq!(files.len(), 1);
        assert_eq!(files[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
        kept.forget();
        assert_eq!(kept.load().unwrap(), []);
    }

    #[test]
    fn what_cannot_be_read_is_told_without_what_it_says() {
        let directory = tempfile::tempdir().unwrap();
        let kept = KeptConfigs::new(directory.path());
        kept.save([(&Arc::new(secret(b"x")), &ManifestSource::from(Path::new("/m")))].into_iter()).unwrap();
        let good = fs::read_to_string(&kept.file).unwrap();
        for bad in
            [good.replace("true", "\"hunter2\""), good.replace("eA==", "hunter2!"), "hunter2".to_owned()]
        {
            fs::write(&kept.file, &bad).unwrap();
            let error = kept.load().unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
