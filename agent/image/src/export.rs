//! Images as files that other tools read: an archive that is an OCI layout and what `docker save` writes in one, or an
//! OCI layout as a directory.
//!
//! An image's configuration, and with it its identifier, is as it came, and so is every layer's archive. Its manifest is
//! as it came where that lists the layers as they are written here.

mod documents;
mod target;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::fd::AsFd;
use std::path::Path;

use coracle_model::Hasher;

use crate::incoming::HeldLayer;
use crate::store::{Temporary, open_directory};
use crate::unpack::{AssembleError, assemble};
use crate::{Digest, Image, ImageError, ImageName, Store};

use documents::{Blob, Described, index, manifest, saved_images};
use target::{Directory, Tar, Target};

/// How layers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// As they are: what is written needs no room besides, and digests are DiffIDs.
    #[default]
    None,
    /// What every tool reads.
    Gzip,
    /// Smaller and faster; what is newer than 2021 reads it.
    Zstd,
}

/// An image that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// The digest of its configuration.
    pub id: Digest,
    /// The digest of its manifest.
    pub manifest: Digest,
    /// The names it was written under; none where it was named by its identifier.
    pub names: Vec<ImageName>,
}

impl Store {
    /// Writes images as one archive: an OCI layout with the `manifest.json` of `docker save`. Each is named as in
    /// [`Store::find`]; one that is named by a name with a tag is written under that name, several names of one image
    /// under all of them.
    ///
    /// Every layer is verified while it is written; after a failure what was written is no archive.
    ///
    /// # Errors
    ///
    /// [`ImageError::Damaged`] for a layer that is not what was unpacked, [`ImageError::Output`], and as [`Store::find`].
    pub fn export(
        &self,
        images: &[String],
        compression: Compression,
        out: impl Write,
    ) -> Result<Vec<Exported>, ImageError> {
        let mut target = Tar::new(BufWriter::with_capacity(256 << 10, out));
        let exported = Export::new(self, images, compression)?.write(&mut target, true)?;
        target.finish().map_err(ImageError::Output)?;
        Ok(exported)
    }

    /// As [`Store::export`], to a file. What was there is replaced when all is written, and not before.
    ///
    /// # Errors
    ///
    /// As [`Store::export`].
    pub fn export_file(
        &self,
        images: &[String],
        compression: Compression,
        path: &Path,
    ) -> Result<Vec<Exported>, ImageError> {
        let failed = |step| ImageError::source(step, path);
        // A device or a pipe takes what it is given; a file gets its name when it is whole.
        if fs::metadata(path).is_ok_and(|data| !data.is_file()) {
            let file = File::options().write(true).open(path).map_err(failed("write"))?;
            return self.export(images, compression, file);
        }
        let name = path.file_name().ok_or_else(|| failed("write")(io::ErrorKind::IsADirectory.into()))?;
        let new = path.with_file_name(format!(".{}.new-{}", name.display(), std::process::id()));
        let written = File::create(&new).map_err(failed("write")).and_then(|mut file| {
            let exported = self.export(images, compression, &mut file)?;
            file.sync_all().and_then(|()| fs::rename(&new, path)).map_err(failed("write"))?;
            Ok(exported)
        });
        written.inspect_err(|_| {
            let _ = fs::remove_file(&new);
        })
    }

    /// Writes images as an OCI layout, into a directory that is empty or not there yet.
    ///
    /// # Errors
    ///
    /// [`ImageError::OutputExists`], and as [`Store::export`].
    pub fn export_directory(
        &self,
        images: &[String],
        compression: Compression,
        path: &Path,
    ) -> Result<Vec<Exported>, ImageError> {
        let export = Export::new(self, images, compression)?;
        export.write(&mut Directory::create(path)?, false)
    }

    /// Reads every byte of every layer: whether the archives that were unpacked would come again. What is wrong, for
    /// people. [`Store::verify`] is a part of it.
    ///
    /// # Errors
    ///
    /// [`ImageError::Store`] when the store cannot be read at all.
    pub fn verify_whole(&self) -> Result<Vec<String>, ImageError> {
        let mut problems = self.verify()?;
        let mut seen = HashMap::new();
        for image in self.list()? {
            for layer in &image.layers {
                if seen.insert(layer.chain_id, ()).is_some() {
                    continue;
                }
                // One that is missing is among the problems already.
                let Some(held) = self.hold_stored(&layer.chain_id)? else { continue };
                if let Err(error) = verified(&held, &mut io::sink()) {
                    problems.push(error.to_string());
                }
            }
        }
        Ok(problems)
    }
}

/// An image and the names it is written under.
struct Selected {
    image: Image,
    names: Vec<ImageName>,
    config: Vec<u8>,
    /// Nobody removes them meanwhile.
    layers: Vec<HeldLayer>,
}

struct Export<'a> {
    store: &'a Store,
    compression: Compression,
    selected: Vec<Selected>,
    /// Layers that were written, by DiffID.
    layers: HashMap<Digest, Blob>,
    work: Option<Temporary>,
}

// === impl Export ===

impl<'a> Export<'a> {
    fn new(store: &'a Store, images: &[String], compression: Compression) -> Result<Self, ImageError> {
        let mut selected: Vec<Selected> = Vec::new();
        for text in images {
            let image = store.find(text)?;
            let name = text.parse::<ImageName>().ok().filter(|name| image.repo_tags.contains(name));
            match selected.iter_mut().find(|known| known.image.id == image.id) {
                Some(known) => known.names.extend(name.filter(|name| !known.names.contains(name))),
                None => selected.push(select(store, image, name.into_iter().collect())?),
            }
        }
        Ok(Self { store, compression, selected, layers: HashMap::new(), work: None })
    }

    fn write(mut self, target: &mut impl Target, docker: bool) -> Result<Vec<Exported>, ImageError> {
        let (mut described, mut exported) = (Vec::new(), Vec::new());
        for selected in std::mem::take(&mut self.selected) {
            let mut layers = Vec::new();
            for held in &selected.layers {
                let blob = match self.layers.get(&held.layer.diff_id) {
                    Some(known) => *known,
                    None => self.layer(held, target)?,
                };
                self.layers.insert(held.layer.diff_id, blob);
                layers.push(blob);
            }
            let id = selected.image.id;
            let config = Blob { digest: id, size: selected.config.len() as u64 };
            target.blob(config, &mut |out| out.write_all(&selected.config).map_err(ImageError::Output))?;
            let content = match self.original_manifest(&selected.image, &layers) {
                Some(original) => original,
                None => manifest(self.compression, config, &layers)?,
            };
            let blob = Blob { digest: Digest::of(&content), size: content.len() as u64 };
            target.blob(blob, &mut |out| out.write_all(&content).map_err(ImageError::Output))?;
            exported.push(Exported { id, manifest: blob.digest, names: selected.names.clone() });
            described.push(Described {
                manifest: blob,
                config,
                layers,
                names: selected.names,
                document: selected.image.document,
            });
        }
        if docker {
            target.file("manifest.json", &saved_images(&described)?)?;
        }
        target.file("index.json", &index(&described)?)?;
        // The last: what has no such file is no layout.
        target.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        if let Some(work) = self.work {
            work.remove()?;
        }
        Ok(exported)
    }

    fn layer(&mut self, held: &HeldLayer, target: &mut impl Target) -> Result<Blob, ImageError> {
        let layer = &held.layer;
        if self.compression == Compression::None {
            let blob = Blob { digest: layer.diff_id, size: layer.size };
            target.blob(blob, &mut |mut out| verified(held, &mut out))?;
            return Ok(blob);
        }
        // Its digest, which names it, is known when it is compressed.
        let (blob, mut file) = self.compress(held)?;
        target.blob(blob, &mut |out| {
            file.rewind().map_err(ImageError::store("read", &held.path))?;
            io::copy(&mut (&mut file).take(blob.size), out).map(drop).map_err(ImageError::Output)
        })?;
        Ok(blob)
    }

    fn compress(&mut self, held: &HeldLayer) -> Result<(Blob, File), ImageError> {
        let work = match self.work.take() {
            Some(work) => work,
            None => self.store.temporary()?,
        };
        let path = work.path.join(held.layer.diff_id.hex());
        self.work = Some(work);
        let failed = |step| ImageError::store(step, &path);
        let file =
            File::options().read(true).write(true).create_new(true).open(&path).map_err(failed("create"))?;
        fs::remove_file(&path).map_err(failed("unlink"))?;
        let out = Counted { out: file, hasher: Hasher::default(), count: 0 };
        let written = match self.compression {
            Compression::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(out, 3).map_err(failed("compress to"))?;
                verified(held, &mut encoder)?;
                encoder.finish()
            }
            Compression::None | Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::default());
                verified(held, &mut encoder)?;
                encoder.finish()
            }
        };
        let Counted { out, hasher, count } = written.map_err(failed("compress to"))?;
        Ok((Blob { digest: hasher.finish(), size: count }, out))
    }

    /// The manifest the image came with, if it describes what is written here.
    fn original_manifest(&self, image: &Image, layers: &[Blob]) -> Option<Vec<u8>> {
        let content = fs::read(self.store.blob_path(&image.manifest?)).ok()?;
        documents::describes(&content, image.id, layers).then_some(content)
    }
}

fn select(store: &Store, image: Image, names: Vec<ImageName>) -> Result<Selected, ImageError> {
    let path = store.blob_path(&image.id);
    let config = fs::read(&path).map_err(ImageError::store("read", &path))?;
    if Digest::of(&config) != image.id {
        let problem = "its digest is another".to_owned();
        return Err(ImageError::Record { path, problem });
    }
    let missing = |layer: Digest| ImageError::Incomplete { id: image.id, layer };
    let layers = image
        .layers
        .iter()
        .map(|layer| store.hold_stored(&layer.chain_id)?.ok_or_else(|| missing(layer.diff_id)))
        .collect::<Result<_, _>>()?;
    Ok(Selected { image, names, config, layers })
}

/// Writes a layer's archive, and fails if it is not the one that was unpacked.
fn verified(held: &HeldLayer, out: &mut impl Write) -> Result<(), ImageError> {
    let layer = &held.layer;
    let damaged = |problem| ImageError::Damaged { layer: layer.diff_id, path: held.path.clone(), problem };
    let directory = open_directory(&held.path)?;
    let mut counted = Counted { out, hasher: Hasher::default(), count: 0 };
    assemble(directory.as_fd(), &mut counted).map_err(|error| match error {
        AssembleError::Output(error) => ImageError::Output(error),
        AssembleError::Damaged(problem) => damaged(problem),
    })?;
    let found = counted.hasher.finish();
    if found != layer.diff_id || counted.count != layer.size {
        return Err(damaged(format!("its archive would have digest {found}: a file was changed")));
    }
    Ok(())
}

struct Counted<W> {
    out: W,
    hasher: Hasher,
    count: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
