//! Images by name and identifier.

use std::fs;

use super::{ImageRecord, Names, Store, file_names, read_record};
use crate::{Digest, Image, ImageDocument, ImageError, ImageName};

impl Store {
    /// The image a name stands for; `None` when it is not in the store.
    ///
    /// # Errors
    ///
    /// [`ImageError::Record`] when the store is damaged, [`ImageError::Store`].
    pub fn resolve(&self, name: &ImageName) -> Result<Option<Image>, ImageError> {
        let names = self.names()?;
        match names.get(&name.key()) {
            Some(id) => self.get_among(id, &names),
            None => Ok(None),
        }
    }

    /// The identifiers that names stand for, of all names there are now: for many that are looked up, since the names are
    /// read once.
    ///
    /// # Errors
    ///
    /// As [`Store::resolve`].
    pub fn resolver(&self) -> Result<impl Fn(&ImageName) -> Option<Digest> + use<>, ImageError> {
        let names = self.names()?;
        Ok(move |name: &ImageName| names.get(&name.key()).copied())
    }

    /// The image of that identifier; `None` when it is not in the store.
    ///
    /// # Errors
    ///
    /// As [`Store::resolve`].
    pub fn get(&self, id: &Digest) -> Result<Option<Image>, ImageError> {
        self.get_among(id, &self.names()?)
    }

    fn get_among(&self, id: &Digest, names: &Names) -> Result<Option<Image>, ImageError> {
        match read_record::<ImageRecord>(&self.image_path(id))? {
            Some(record) => self.load(*id, record, names),
            None => Ok(None),
        }
    }

    /// The image a person means: a name, an identifier with or without `sha256:`, or the beginning of one.
    ///
    /// # Errors
    ///
    /// [`ImageError::NotFound`], [`ImageError::Ambiguous`], and as [`Store::resolve`].
    pub fn find(&self, text: &str) -> Result<Image, ImageError> {
        if let Ok(name) = text.parse::<ImageName>()
            && let Some(image) = self.resolve(&name)?
        {
            return Ok(image);
        }
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let is_id = !digits.is_empty() && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let ids = if is_id { self.ids()? } else { Vec::new() };
        let matching: Vec<_> = ids.into_iter().filter(|id| id.hex().starts_with(digits)).collect();
        match matching.as_slice() {
            [id] => self.get(id)?.ok_or_else(|| ImageError::NotFound(text.to_owned())),
            [] => Err(ImageError::NotFound(text.to_owned())),
            several => Err(ImageError::Ambiguous { text: text.to_owned(), count: several.len() }),
        }
    }

    /// Every image, the latest import first. One whose documents cannot be read keeps nobody from the others: it is left
    /// out, and told of in the log. [`Store::verify`] names it as well.
    ///
    /// # Errors
    ///
    /// [`ImageError::Record`] for damaged names, [`ImageError::Store`].
    pub fn list(&self) -> Result<Vec<Image>, ImageError> {
        let names = self.names()?;
        let mut images = Vec::new();
        for id in self.ids()? {
            match self.get_among(&id, &names) {
                // Where there is none, another process has removed it since.
                Ok(image) => images.extend(image),
                Err(error) => tracing::warn!(image = %id, %error, "an image cannot be read"),
            }
        }
        images.sort_by(|a, b| b.imported.cmp(&a.imported).then(a.id.cmp(&b.id)));
        Ok(images)
    }

    /// Every image there is, those included whose documents cannot be read, with its names.
    ///
    /// # Errors
    ///
    /// As [`Store::list`].
    pub fn known(&self) -> Result<Vec<(Digest, Vec<ImageName>)>, ImageError> {
        let names = self.names()?;
        let of =
            |id: Digest| names.iter().filter(move |(_, image)| **image == id).map(|(name, _)| name.clone());
        Ok(self.ids()?.into_iter().map(|id| (id, of(id).collect())).collect())
    }

    pub(super) fn ids(&self) -> Result<Vec<Digest>, ImageError> {
        let names = file_names(&self.root.join("images"))?;
        Ok(names
            .iter()
            .filter_map(|name| format!("sha256:{}", name.strip_suffix(".json")?).parse().ok())
            .collect())
    }

    /// The image of a record that was read; `None` when it was removed since.
    fn load(&self, id: Digest, record: ImageRecord, names: &Names) -> Result<Option<Image>, ImageError> {
        let (blob, path) = (self.blob_path(&id), self.image_path(&id));
        let document = match read_record::<ImageDocument>(&blob)? {
            Some(document) => document,
            // The record goes first.
            None if !path.exists() => return Ok(None),
            None => return Err(ImageError::Record { path: blob, problem: "it is missing".to_owned() }),
        };
        let used = fs::metadata(&path).and_then(|data| data.modified());
        // Removed since its record was read: then nobody asks for the time either.
        let last_used = used.ok().and_then(|time| time.try_into().ok()).unwrap_or(record.imported);
        let (repo_digests, repo_tags) = names
            .iter()
            .filter(|(_, image)| **image == id)
            .map(|(name, _)| name.clone())
            .partition(|name| name.digest().is_some());
        Ok(Some(Image {
            id,
            repo_tags,
            repo_digests,
            size: record.layers.iter().map(|layer| layer.size).sum(),
            created: document.created.as_deref().and_then(|time| time.parse().ok()),
            imported: record.imported,
            document,
            lower_dirs: record
                .layers
                .iter()
                .rev()
                .map(|layer| self.layer_path(&layer.chain_id).join("diff"))
                .collect(),
            layers: record.layers,
            manifest: record.manifest,
            last_used,
            pins: record.pins.into_iter().collect(),
        }))
    }
}
