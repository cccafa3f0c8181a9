//! ConfigMaps and Secrets, checked and turned into the model's.
//!
//! Their data is taken out of the tree before the wire types are read: Kubernetes' base64 is laxer than
//! that of the wire types, and what is wrong with a Secret must be said without its values.

mod data;
mod secret;

use coracle_document::{Faults, Node, Path, deserialize};
use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_model::{ConfigKey, ConfigKind, ConfigObject};
use k8s_openapi::api::core::v1;

use crate::metadata::{self, Metadata};
use data::{Encoding, Section};

/// The most bytes the values of one object may have together: 1 MiB, as in Kubernetes.
const MAX_BYTES: usize = 1024 * 1024;

/// Reads an object; `None` when `faults` grew. Its data is taken out of the tree.
pub(crate) fn read(kind: ConfigKind, tree: &mut Node<'_>, faults: &mut Faults) -> Option<ConfigObject> {
    match kind {
        ConfigKind::ConfigMap => config_map(tree, faults),
        ConfigKind::Secret => secret(tree, faults),
    }
}

fn config_map(tree: &mut Node<'_>, faults: &mut Faults) -> Option<ConfigObject> {
    let mut section = |field, encoding| Section { field, encoding, secret: false }.take(tree, faults);
    let (data, binary) = (section("data", Encoding::Plain), section("binaryData", Encoding::Base64));
    let object = deserialize::<v1::ConfigMap>(tree, faults);
    if let (Some(data), Some(binary)) = (&data, &binary) {
        for (key, (_, at)) in data.iter().filter(|(key, _)| binary.contains_key(*key)) {
            let path = Path::ROOT.child("data");
            faults.invalid_at(&path.key(key), *at, key, "duplicate of key present in binaryData");
        }
        if size(data) + size(binary) > MAX_BYTES {
            faults.too_long(&Path::ROOT, MAX_BYTES);
        }
    }
    let v1::ConfigMap { binary_data: _, data: _, immutable, mut metadata } = *object?;
    let metadata = metadata::convert(&mut metadata, &Path::ROOT.child("metadata"), faults)?;
    let (data, binary_data) = (without_places(data?), without_places(binary?));
    let kind = ConfigKind::ConfigMap;
    Some(ConfigObject { binary_data, ..finish(kind, metadata, data, immutable) })
}

fn secret(tree: &mut Node<'_>, faults: &mut Faults) -> Option<ConfigObject> {
    let mut section = |field, encoding| Section { field, encoding, secret: true }.take(tree, faults);
    let (data, text) = (section("data", Encoding::Base64), section("stringData", Encoding::Plain));
    let object = deserialize::<v1::Secret>(tree, faults);
    // What stands under stringData counts.
    let data = data.zip(text).map(|(data, text)| data.into_iter().chain(text).collect());
    if data.as_ref().is_some_and(|data| size(data) > MAX_BYTES) {
        faults.too_long(&Path::ROOT.child("data"), MAX_BYTES);
    }
    let v1::Secret { data: _, immutable, mut metadata, string_data: _, type_ } = *object?;
    let metadata = metadata::convert(&mut metadata, &Path::ROOT.child("metadata"), faults)?;
    let data = without_places(data?);
    secret::check(type_.as_deref().unwrap_or_default(), &data, &metadata.annotations, faults);
    let secret_type = type_.filter(|text| !text.is_empty()).unwrap_or_else(|| "Opaque".to_owned());
    Some(ConfigObject { secret_type, ..finish(ConfigKind::Secret, metadata, data, immutable) })
}

fn size(values: &data::Values) -> usize {
    values.values().map(|(value, _)| value.len()).sum()
}

fn without_places(values: data::Values) -> BTreeMap<String, Arc<[u8]>> {
    values.into_iter().map(|(key, (value, _))| (key, value)).collect()
}

fn finish(
    kind: ConfigKind,
    metadata: Metadata,
    data: BTreeMap<String, Arc<[u8]>>,
    immutable: Option<bool>,
) -> ConfigObject {
    let key = ConfigKey { kind, namespace: metadata.namespace, name: metadata.name };
    ConfigObject {
        key,
        data,
        binary_data: BTreeMap::new(),
        secret_type: String::new(),
        immutable: immutable.unwrap_or(false),
    }
}
